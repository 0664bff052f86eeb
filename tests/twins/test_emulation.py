"""The emulation itself: it shows faults that would hang or corrupt a GPU, and the tests run every kernel under it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from mmphate_gpu.ops.launch.kernel import Launch
from mmphate_gpu.ops.launch.sources import kernel_names, source_folder

from .emulation import ORDERS, Emulation, compile_text, needs_emulation

pytestmark = needs_emulation


_FAULTY = """
#include <cuda_emulation.h>
namespace of {
typedef long long Row[64];
static void reversed(const long long* from, long long* to, long long synchronized) {
    MMP_SHARED(Row, shared);
    shared[threadIdx.x] = from[threadIdx.x];
    if (synchronized) __syncthreads();
    to[threadIdx.x] = shared[63 - threadIdx.x];
}
static void stuck(long long threads) {
    if (threadIdx.x < threads) __syncthreads();
}
static void half_a_vote(long long lanes) {
    if (threadIdx.x < lanes) __ballot_sync(0xffffffffu, 1);
}
static void last_block(const long long* from, long long* by_block, long long* n_done, long long* sum,
                       long long counted) {
    if (threadIdx.x != 0) return;
    by_block[blockIdx.x] = from[blockIdx.x];
    const long long place = atomicAdd(n_done, 1ll);
    if ((counted ? place : blockIdx.x) != gridDim.x - 1) return;
    *sum = 0;
    for (unsigned b = 0; b < gridDim.x; ++b) *sum += by_block[b];
}
}
MMP_EMULATE(of, reversed)
MMP_EMULATE(of, stuck)
MMP_EMULATE(of, half_a_vote)
MMP_EMULATE(of, last_block)
"""


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Emulation:
    folder = tmp_path_factory.mktemp("faulty")
    return Emulation(folder, libraries={"faulty": compile_text("faulty", _FAULTY, folder)})


def _start(emulation: Emulation, kernel: str, *arguments: object, blocks: int = 1) -> None:
    emulation.start(Launch("faulty", kernel, arguments, blocks, 64), torch.device("cpu"))


@pytest.mark.parametrize("order", ORDERS)
def test_a_missing_barrier_shows(faulty: Emulation, order: int) -> None:
    faulty.order = order
    start, ends = torch.arange(64), [torch.empty(64, dtype=torch.int64) for _ in range(2)]
    for synchronized, end in enumerate(ends):
        _start(faulty, "reversed", start, end, synchronized)
    assert torch.equal(ends[1], start.flip(0))
    assert not torch.equal(ends[0], start.flip(0))


@pytest.mark.parametrize("order", ORDERS)
def test_a_last_block_by_number_shows(faulty: Emulation, order: int) -> None:
    """It shows if blocks run backwards. A block that counts the finished blocks is right in all orders."""
    faulty.order, sums = order, []
    for counted in (0, 1):
        by_block, n_done, total = torch.zeros(3, 5, dtype=torch.int64).unbind()
        _start(faulty, "last_block", torch.arange(1, 6), by_block, n_done, total, counted, blocks=5)
        sums.append(int(total[0]))
    assert sums == [5 if order == 1 else 15, 15]


@pytest.mark.parametrize("kernel", ["stuck", "half_a_vote"])
def test_what_would_hang_is_reported(faulty: Emulation, kernel: str) -> None:
    with pytest.raises(RuntimeError, match="never reach"):
        _start(faulty, kernel, 20)
    _start(faulty, kernel, 64)


def test_arguments_of_other_types_are_reported(faulty: Emulation) -> None:
    with pytest.raises(RuntimeError, match="arguments d for q"):
        _start(faulty, "stuck", 20.0)
    with pytest.raises(RuntimeError, match="arguments QFq for QQq"):
        _start(faulty, "reversed", torch.arange(64), torch.ones(64), 1)


def test_every_kernel_is_emulated() -> None:
    """The marks `kernels` name every kernel of csrc/cuda. A test fails if it does not start the kernels of its mark."""
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_emulated_*.py"))
    marked = {name for names in re.findall(r"mark\.kernels\(([^)]*)\)", text) for name in re.findall(r"\w+", names)}
    sources = (path.stem for path in (source_folder() / "cuda").glob("*.cu"))
    assert marked == {name for source in sources for name in kernel_names(source)}
