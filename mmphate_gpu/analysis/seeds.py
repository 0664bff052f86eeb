"""The seed of an analysis that draws random numbers."""

from __future__ import annotations

import numpy as np

from ..errors import check_number


def drawn_seed(random_state: int | None) -> int:
    """``random_state`` after a check, or a seed from the system for None, so that a result can say what it used."""
    if random_state is None:
        return int(np.random.default_rng().integers(2**31))
    return int(check_number("random_state", random_state, low=0, high=2**63 - 1, integer=True))
