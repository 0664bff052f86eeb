"""The pretended GPU refuses what a GPU refuses, and gives the numbers of the CPU."""

from __future__ import annotations

import copy
import ctypes

import cupy
import numpy as np
import pytest
import torch
from torch import nn

from tests.pretend_gpu import device
from tests.pretend_gpu.cuda_kernels import without_kernel

CUDA = torch.device("cuda", 0)
KERNEL = """
MMP_KERNEL void __launch_bounds__(32) doubled(const double* from, double* to, long long n) {
    const long long i = (long long)blockIdx.x * 32 + threadIdx.x;
    if (i < n) to[i] = 2 * from[i];
}
"""


class Stream:
    """What CuPy reads of a stream."""

    @property
    def ptr(self) -> int:
        return torch.cuda.current_stream().cuda_stream


def doubled(source: torch.Tensor, target: torch.Tensor) -> None:
    kernel = cupy.RawModule(code=KERNEL).get_function("doubled")
    arguments = np.uint64(source.data_ptr()), np.uint64(target.data_ptr()), np.int64(source.numel())
    kernel((-(-source.numel() // 32),), (32,), arguments, shared_mem=0, stream=Stream())


# ---------------------------------------------------------------- tensors

MIXTURES = {
    "sum": lambda here, away: here + away,
    "product": lambda here, away: here @ away.T,
    "cat": lambda here, away: torch.cat([here, away]),
    "written": lambda here, away: torch.add(here, here, out=away),
    "chosen": lambda here, away: here.index_select(0, torch.zeros(2, dtype=torch.int64, device=away.device)),
    "scattered": lambda here, away: here.scatter_(0, torch.zeros(1, 3, dtype=torch.int64, device=away.device), 1.0),
}


@pytest.mark.parametrize("other", ["cpu", "cuda:1"])
@pytest.mark.parametrize("name", MIXTURES)
def test_tensors_of_two_devices_do_not_mix(name, other):
    here, away = torch.ones(2, 3, device=CUDA), torch.ones(2, 3, device=other)
    with pytest.raises(RuntimeError, match="same device"):
        MIXTURES[name](here, away)


def test_numbers_and_indices_of_the_cpu_may_mix_with_tensors_of_the_gpu():
    x = torch.arange(6.0, device=CUDA)
    assert (x * torch.tensor(2.0)).tolist() == [0, 2, 4, 6, 8, 10]
    assert x[torch.tensor([1, 3])].tolist() == [1, 3] and x[x > 3].tolist() == [4, 5]


def test_numpy_refuses_tensors_of_the_gpu():
    with pytest.raises(TypeError, match="numpy"):
        np.asarray(torch.ones(2, device=CUDA))


def test_fresh_memory_has_no_meaning():
    assert torch.empty(5, device=CUDA).isnan().all() and (torch.empty(5, dtype=torch.int64, device=CUDA) == -1).all()


def test_views_share_memory_and_outputs_take_their_size():
    x = torch.zeros(3, 4, device=CUDA)
    x.T[1].add_(1)
    x.view(-1)[:2].fill_(5)
    assert x.tolist() == [[5, 5, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]]
    out = torch.empty(0, device=CUDA)
    torch.mm(x, x.T, out=out)
    assert out.shape == (3, 3) and torch.equal(out.cpu(), x.cpu() @ x.cpu().T)


@pytest.mark.filterwarnings("ignore:Sparse")
def test_sparse_tensors():
    dense = torch.tensor([[0.0, 2, 0], [1, 0, 3]], dtype=torch.float64)
    csr = dense.to(CUDA).to_sparse_csr()
    assert csr.device == CUDA and torch.equal((csr @ torch.eye(3, dtype=torch.float64, device=CUDA)).cpu(), dense)
    assert torch.equal(csr.cpu().to_dense(), dense) and torch.equal(
        copy.deepcopy(csr.values()).cpu(), csr.values().cpu()
    )


def test_what_the_device_cannot_do_is_refused():
    integers = torch.ones(2, 2, dtype=torch.int64, device=CUDA)
    with pytest.raises(RuntimeError, match="not implemented for 'Long'"):
        integers @ integers
    with pytest.raises(RuntimeError, match="generator"):
        torch.rand(3, device=CUDA, generator=torch.Generator())
    for wrong in (
        lambda: torch.ones(3, device="cuda:5"),
        lambda: torch.Generator("cuda:5"),
        lambda: torch.cuda.get_device_properties(7),
    ):
        with pytest.raises(RuntimeError, match="invalid device ordinal"):
            wrong()


def test_roots_are_rounded_correctly():
    values = torch.rand(5000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(values.to(CUDA).sqrt().cpu().numpy(), np.sqrt(values.numpy()))


def test_each_device_has_random_numbers_of_its_own():
    torch.manual_seed(0)
    host = torch.random.get_rng_state()
    torch.cuda.manual_seed(3)
    first = torch.rand(4, device=CUDA)
    state = torch.cuda.get_rng_state()
    torch.cuda.manual_seed(3)
    assert torch.equal(first, torch.rand(4, device=CUDA)) and torch.equal(state, torch.cuda.get_rng_state())
    assert torch.equal(host, torch.random.get_rng_state())


@pytest.mark.parametrize("layer", [nn.RNN, nn.LSTM, nn.GRU])
def test_recurrent_layers_have_the_values_and_gradients_of_the_cpu(layer):
    torch.manual_seed(0)
    model, x = layer(3, 4, 2).double(), torch.randn(5, 2, 3, dtype=torch.float64)
    expected = [model(x)[0], *torch.autograd.grad(model(x)[0].square().sum(), list(model.parameters()))]
    model.to(CUDA)
    y = model(x.to(CUDA))[0]
    results = [y, *torch.autograd.grad(y.square().sum(), list(model.parameters()))]
    # Sums of a few dozen numbers, of gradients up to 10, in another order.
    for result, other in zip(results, expected, strict=True):
        torch.testing.assert_close(result.cpu(), other, rtol=0, atol=1e-13)


# ---------------------------------------------------------------- memory


def test_a_full_device_refuses_and_says_so():
    torch.cuda.set_per_process_memory_fraction(1e-9, 1)
    try:
        with pytest.raises(torch.cuda.OutOfMemoryError, match="out of memory"):
            torch.empty(2**20, device="cuda:1")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, 1)
    assert torch.cuda.memory_allocated(1) == 0


def test_a_write_outside_a_block_is_counted():
    x = torch.zeros(3, dtype=torch.uint8, device=CUDA)
    ctypes.memset(x.data_ptr() + 3, 0, 1)
    del x
    assert device.LIBRARY.pretend_overruns() == 1
    device.LIBRARY.pretend_forget_overruns()


def test_kernels_read_the_memory_of_the_current_device_only():
    x, y = torch.arange(40.0, dtype=torch.float64, device=CUDA), torch.empty(40, dtype=torch.float64, device=CUDA)
    doubled(x, y)
    assert y.tolist() == [2.0 * i for i in range(40)]
    for elsewhere in (y.cpu(), y.to("cuda:1")):
        with pytest.raises(RuntimeError, match="illegal memory access"):
            doubled(elsewhere, y)


def test_tensors_go_to_other_libraries_from_the_current_device_only():
    x = torch.ones(2, device="cuda:1")
    with pytest.raises(BufferError, match="different CUDA device"):
        x.__dlpack__()
    assert cupy.from_dlpack(x).tensor.device == x.device and torch.cuda.current_device() == 0


# ---------------------------------------------------------------- streams and graphs


@pytest.fixture
def graph():
    """Captures calls on a stream of its own."""

    def capture(*calls):
        made = torch.cuda.CUDAGraph()
        with torch.cuda.stream(torch.cuda.Stream()):
            made.capture_begin()
            try:
                for call in calls:
                    call()
            finally:
                made.capture_end()
        return made

    return capture


def test_a_graph_runs_at_replays_only(graph):
    x, y = torch.ones(4, dtype=torch.float64, device=CUDA), torch.zeros(4, dtype=torch.float64, device=CUDA)
    made = graph(lambda: x.add_(1), lambda: doubled(x, y), lambda: y.copy_(y.square() + x))
    assert x.tolist() == [1] * 4 and y.tolist() == [0] * 4
    for n in (2.0, 3.0):
        made.replay()
        assert x.tolist() == [n] * 4 and y.tolist() == [(2 * n) ** 2 + n] * 4
    made.reset()


WAITS = {
    "item": lambda x: x.sum().item(),
    "copy": lambda x: x.cpu(),
    "nonzero": lambda x: x.nonzero(),
    "mask": lambda x: x[x > 0],
    "written by mask": lambda x: x.index_put_((x > 0,), torch.ones(4, device=CUDA)),
    "counts": lambda x: x.long().bincount(),
    "lengths": lambda x: x.repeat_interleave(x.long()),
    "bool": lambda x: bool((x > 0).all()),
}


@pytest.mark.parametrize("name", WAITS)
def test_a_wait_is_refused_during_a_capture_and_where_it_is_forbidden(name, graph):
    x = torch.ones(4, device=CUDA)
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        graph(lambda: WAITS[name](x))
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError, match="synchronizing"):
            WAITS[name](x)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    WAITS[name](x)


def test_a_fault_of_a_kernel_shows_at_the_replay(graph, monkeypatch):
    def fails(*_):
        raise RuntimeError("a fault of the kernel")

    x = torch.ones(4, dtype=torch.float64, device=CUDA)
    monkeypatch.setattr(cupy, "_run", fails)
    made = graph(lambda: doubled(x, x))
    with pytest.raises(RuntimeError, match="a fault of the kernel"):
        made.replay()


def test_a_graph_that_is_dropped_gives_its_memory_back(graph):
    x = torch.ones(4, device=CUDA)
    before = torch.cuda.memory_allocated()
    made = graph(lambda: (x + 1).mul_(2))
    assert torch.cuda.memory_allocated() > before
    del made
    assert torch.cuda.memory_allocated() == before


def test_a_size_that_is_known_needs_no_wait():
    x = torch.arange(3, device=CUDA)
    torch.cuda.set_sync_debug_mode("error")
    try:
        repeated = x.repeat_interleave(x, output_size=3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert repeated.tolist() == [1, 2, 2]


def test_a_graph_needs_a_stream_of_its_own():
    with pytest.raises(RuntimeError, match="non-default stream"):
        torch.cuda.CUDAGraph().capture_begin()


# ---------------------------------------------------------------- torch's list of kernels


def test_ops_without_a_kernel_on_cuda_are_named():
    have = ["aten::add.out", "aten::add.Tensor", "aten::mm", "aten::linalg_eigh", "aten::crow_indices"]
    lack = ["aten::mkldnn_max_pool2d", "aten::empty_quantized", "aten::no_such_function"]
    assert without_kernel([*have, *lack]) == lack
