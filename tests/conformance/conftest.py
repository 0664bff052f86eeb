"""Every form of the affinity with every dtype, and the dense matrix it is compared with."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmphate_gpu.operators import AffinityOperator

from .forms import FORMS, HALF_FORMS, HALF_TOLERANCE, TOLERANCE, dense_affinity, make


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    if "keops" in request.param:
        request.getfixturevalue("keops")
    return request.param


@pytest.fixture(params=[torch.float32, torch.float64], ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture
def operator(form, dtype, device) -> AffinityOperator:
    return make(form, dtype, device)


@pytest.fixture
def product_tolerance(form, dtype) -> float:
    """Of products and degrees."""
    return HALF_TOLERANCE if form in HALF_FORMS else TOLERANCE[dtype]


@pytest.fixture
def entry_tolerance(form, dtype) -> float:
    """Of the entries of `to_dense`. Tiles show those that multiply, off by half a unit in the last of 11 bits."""
    return 2.0**-12 if form == "tiles" else TOLERANCE[dtype]


@pytest.fixture(scope="session")
def dense_oracle() -> np.ndarray:  # (N, N)
    return dense_affinity()
