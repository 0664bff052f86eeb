"""The distances that the tests of MDS share."""

from __future__ import annotations

import numpy as np
import pytest

from .distance_cases import DISTANCES


@pytest.fixture(scope="module", params=DISTANCES)
def distances(request: pytest.FixtureRequest) -> np.ndarray:
    result = DISTANCES[request.param]()
    result.flags.writeable = False
    return result
