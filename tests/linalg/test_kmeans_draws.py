"""k-means: the numbers its seeding draws, and how often the host waits for the device."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmphate_gpu.linalg import kmeans as module
from mmphate_gpu.linalg.kmeans import kmeans
from mmphate_gpu.linalg.random import seeded_generator


class Calls(TorchDispatchMode):
    """Counts torch's operators by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[function._schema.name.removeprefix("aten::")] += 1
        return function(*args, **(kwargs or {}))


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("sets", [(), (3,)], ids=["one set", "a stack"])
def test_one_draw_has_the_numbers_of_many(sets):
    """One draw gives the numbers of separate draws, and leaves the generator in the same state."""
    sizes = [1000, 300, 300, 17, 16, 15, 1]
    together, apart = seeded_generator(5), seeded_generator(5)
    clocks = list(module._clocks(normal(*sets, 4, 2), sizes, together))
    expected = [torch.empty(*sets, size, dtype=torch.float64).exponential_(generator=apart) for size in sizes]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(clocks, expected, strict=True))
    assert torch.equal(together.get_state(), apart.get_state())


@pytest.mark.parametrize("n_clusters", [1, 2, 5, 11, 12, 100, 4000])
def test_the_rounds_add_up(n_clusters):
    shares = module._shares(n_clusters)
    assert sum(shares) == n_clusters and min(shares) == 1
    made = torch.tensor(shares).cumsum(0)
    assert all(share <= max(1, 0.2 * before) for share, before in zip(shares[1:], made.tolist(), strict=False))


@pytest.mark.parametrize("shape", [(600, 3), (4, 150, 3)], ids=["one set", "a stack"])
@pytest.mark.parametrize("n_clusters", [1, 40, 150])
def test_the_host_waits_once_a_step(shape, n_clusters):
    """Three things wait for a CUDA device: numbers read back, results whose size depends on values, and copies."""
    with Calls() as calls:
        kmeans.__wrapped__(normal(*shape), n_clusters, generator=seeded_generator(0))  # `isolated` hides calls of torch
    steps = calls.counts["_local_scalar_dense"]
    assert 1 <= steps <= 10 and calls.counts["exponential_"] == calls.counts["_unique2"] == 1
    assert not calls.counts.keys() & {"bincount", "nonzero", "masked_select", "unique_dim", "item", "repeat_interleave"}
