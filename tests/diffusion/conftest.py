"""The landmark operators that the tests of diffusion share."""

from __future__ import annotations

import numpy as np
import pytest

from .operator_cases import OPERATORS


@pytest.fixture(params=OPERATORS)
def landmark_op(request: pytest.FixtureRequest) -> np.ndarray:
    return OPERATORS[request.param]
