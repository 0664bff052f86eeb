"""Random numbers: drawn on the CPU, so that one seed means the same on every device."""

from __future__ import annotations

import torch


def seeded_generator(random_state: int | None) -> torch.Generator:
    """A CPU generator with this seed; None takes one from the system."""
    generator = torch.Generator()
    if random_state is None:
        generator.seed()
    else:
        generator.manual_seed(random_state)
    return generator
