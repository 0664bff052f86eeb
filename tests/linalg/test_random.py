"""Generators of random numbers, and the global one that no call moves."""

from __future__ import annotations

import pytest
import torch

from mmphate_gpu.errors import InputError
from mmphate_gpu.linalg.kmeans import kmeans
from mmphate_gpu.linalg.random import seeded_generator
from mmphate_gpu.linalg.symmetric_power import symmetric_power
from mmphate_gpu.linalg.top_eigenpairs import top_eigenpairs

from .matrices import normal


def test_seeded_generator():
    draws = [torch.rand(3, generator=seeded_generator(seed)) for seed in (5, 5, 6)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    fresh = [torch.rand(3, generator=seeded_generator(None)) for _ in range(2)]
    assert not torch.equal(*fresh)
    with pytest.raises(InputError, match="random_state=-1"):
        seeded_generator(-1)


def test_random_state_is_left_alone():
    """No function draws from the global generator of the user."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    kmeans(normal(50, 3), 5, generator=seeded_generator(0))
    top_eigenpairs(lambda block: block, 50, 3, generator=seeded_generator(0))
    symmetric_power(torch.eye(5, dtype=torch.float64), 3)
    assert torch.equal(before, torch.get_rng_state())
