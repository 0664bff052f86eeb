"""Random numbers: drawn on the CPU, so that one seed means the same on every device."""

from __future__ import annotations

import torch

from ..params import check_number


def seeded_generator(random_state: int | None) -> torch.Generator:
    """A CPU generator with this seed; None takes one from the system."""
    generator = torch.Generator()
    if random_state is None:
        generator.seed()
    else:
        generator.manual_seed(int(check_number("random_state", random_state, low=0, high=2**63 - 1, integer=True)))
    return generator
