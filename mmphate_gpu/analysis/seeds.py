"""The seeds of analyses that draw random numbers."""

from __future__ import annotations

import numpy as np

from ..errors import check_number


def seeded(random_state: int | None) -> np.random.Generator:
    """NumPy's generator with this seed, which is checked; None takes a seed from the system."""
    return np.random.default_rng(None if random_state is None else _checked(random_state))


def drawn_seed(random_state: int | None) -> int:
    """``random_state`` after a check, or a seed from the system for None, so that a result can say what it used."""
    return _checked(random_state) if random_state is not None else int(np.random.default_rng().integers(2**31))


def seeds_of(random_state: int | None, n: int) -> list[int]:
    """``n`` seeds that follow from ``random_state``, which is checked."""
    return seeded(random_state).integers(2**31, size=n).tolist()


def _checked(random_state: int) -> int:
    return int(check_number("random_state", random_state, low=0, high=2**63 - 1, integer=True))
