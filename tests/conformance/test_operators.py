"""Every form of the affinity, every dtype, every device: one suite, held against dense matrices.

The oracle is `dense_oracle`: METHOD steps 3, 5 and 6 by the reference on whole N x N arrays, which shares no code with
the operators. A new form joins by a line in `FORMS`.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import eigsh

from mmphate_gpu import reference
from mmphate_gpu.affinities.intraslice import intraslice_affinity
from mmphate_gpu.operators import (
    AffinityOperator,
    LazyAffinity,
    SparseAffinity,
    as_linear_operator,
    to_cupy,
    to_scipy,
    to_torch_csr,
)
from mmphate_gpu.operators import assemble as assemble_module
from mmphate_gpu.operators.assemble import assembled_bytes, assembled_nnz
from mmphate_gpu.ops import csr as csr_ops
from mmphate_gpu.ops.twins import PORTABLE, serves
from mmphate_gpu.params import InputError, InputTypeError
from mmphate_gpu.slices import unit_major

N_SLICES, N_UNITS, N_FEATURES = 23, 4, 5
N_NODES = N_SLICES * N_UNITS
BANDWIDTH, THRESH = 0.6, 1e-4

# Entries, sums and products are compared with float64 ones. Worst measured over all forms and 20 right-hand sides:
# float32 2.9e-6 in products (rows that sum to as much as 25, times standard normal numbers), 2.5e-6 in aggregated sums,
# 2e-7 in row sums (float32 entries, float64 sums); float64 5.3e-15 in all three.
TOLERANCE = {torch.float32: 8e-6, torch.float64: 5e-14}


def points() -> torch.Tensor:
    """(S, M, D) float64, with a repeated slice, a repeated unit and a dead one."""
    rng = np.random.default_rng(5)
    walk = 0.4 * np.cumsum(rng.normal(size=(N_SLICES, N_UNITS, N_FEATURES)), axis=0)
    walk[7] = walk[8]
    walk[:5, 2] = walk[:5, 1]
    walk[:, 3] = 0
    return torch.from_numpy(walk)


def lazy(engine: str) -> Callable[[torch.dtype, torch.device], LazyAffinity]:
    def make(dtype: torch.dtype, device: torch.device) -> LazyAffinity:
        stack = points().to(device)
        intraslice = intraslice_affinity(stack, thresh=THRESH, dtype=dtype)
        bandwidth = torch.tensor(BANDWIDTH, dtype=torch.float64, device=device)
        return LazyAffinity(unit_major(stack), bandwidth, intraslice, thresh=THRESH, dtype=dtype, engine=engine)

    return make


def sparse(dtype: torch.dtype, device: torch.device) -> SparseAffinity:
    return SparseAffinity(lazy("torch")(dtype, device).to_csr())


def sparse_int64(dtype: torch.dtype, device: torch.device) -> SparseAffinity:
    """With the offsets that more than 2^31 entries need."""
    csr = sparse(dtype, device).csr
    return SparseAffinity(csr._replace(indptr=csr.indptr.long(), indices=csr.indices.long()))


FORMS = {"sparse": sparse, "sparse int64": sparse_int64, "lazy torch": lazy("torch"), "lazy keops": lazy("keops")}


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
    return FORMS[form](dtype, device)


@pytest.fixture(scope="module")
def dense_oracle() -> np.ndarray:
    """(N, N) float64 by the dense reference."""
    stack = points().numpy()
    intraslice = reference.intraslice_affinity(stack, thresh=THRESH)
    interslice = reference.interslice_affinity(stack, BANDWIDTH, thresh=THRESH)
    dense = np.zeros((N_SLICES, N_UNITS, N_SLICES, N_UNITS))
    for one in range(N_SLICES):
        dense[one, :, one, :] += intraslice[one]
    for unit in range(N_UNITS):
        dense[:, unit, :, unit] += interslice[unit]
    dense = dense.reshape(N_NODES, N_NODES)
    dense[dense < THRESH] = 0
    return dense


def right_hand_side(*shape: int, dtype: torch.dtype, device: torch.device, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def assert_near(found: torch.Tensor, wanted: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(found.cpu().double().numpy(), wanted, rtol=0, atol=tolerance)


# ---------------------------------------------------------------- the members


def test_attributes(operator, dtype, device):
    assert isinstance(operator, AffinityOperator)
    assert operator.shape == (N_NODES, N_NODES)
    assert operator.dtype == dtype
    assert operator.device.type == device.type
    assert operator.nbytes > 0
    assert repr(operator).startswith(f"{type(operator).__name__}(shape=({N_NODES}, {N_NODES}), dtype={dtype}")


def test_to_dense(operator, dtype, dense_oracle):
    dense = operator.to_dense()
    assert dense.dtype == dtype
    np.testing.assert_array_equal(dense.cpu().numpy() > 0, dense_oracle > 0)
    assert_near(dense, dense_oracle, TOLERANCE[dtype])
    # The cut leaves some pairs of slices and takes others, or the pattern would say nothing.
    unit = dense_oracle.reshape(N_SLICES, N_UNITS, N_SLICES, N_UNITS)[:, 0, :, 0]
    assert 0.1 < (unit > 0).mean() < 0.9


def test_to_csr_is_in_order(operator, dense_oracle):
    csr = operator.to_csr()
    assert csr.shape == operator.shape and csr.values.dtype == operator.dtype
    assert csr.nnz == int(csr.indptr[-1]) == (dense_oracle > 0).sum()
    rows = csr.row_of_entry()
    ascending = (rows[1:] > rows[:-1]) | (csr.indices[1:] > csr.indices[:-1])
    assert bool(ascending.all())  # columns ascend, none occurs twice


def test_product_with_a_vector(operator, dtype, device, dense_oracle):
    vector = right_hand_side(N_NODES, dtype=dtype, device=device)
    product = operator @ vector
    assert product.shape == (N_NODES,) and product.dtype == dtype and product.device.type == device.type
    assert_near(product, dense_oracle @ vector.cpu().double().numpy(), TOLERANCE[dtype])


def test_product_with_a_matrix(operator, dtype, device, dense_oracle):
    matrix = right_hand_side(N_NODES, 16, dtype=dtype, device=device)
    product = operator @ matrix
    assert product.shape == (N_NODES, 16) and product.dtype == dtype
    assert_near(product, dense_oracle @ matrix.cpu().double().numpy(), TOLERANCE[dtype])


def test_product_with_one_column_keeps_its_axis(operator, dtype, device):
    vector = right_hand_side(N_NODES, dtype=dtype, device=device)
    column = operator @ vector[:, None]
    assert column.shape == (N_NODES, 1)
    assert torch.equal(column[:, 0], operator @ vector)


LAYOUTS = {
    "transposed": lambda x: x.T.contiguous().T,
    "every other row": lambda x: torch.repeat_interleave(x, 2, 0)[::2],
    "every other column": lambda x: torch.repeat_interleave(x, 2, 1)[:, ::2],
    "expanded": lambda x: x[:, :1].expand(-1, 16),
    "offset": lambda x: torch.cat([x[:3], x])[3:],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_product_with_non_contiguous(operator, dtype, device, layout):
    strided = LAYOUTS[layout](right_hand_side(N_NODES, 16, dtype=dtype, device=device))
    before = strided.clone()
    assert torch.equal(operator @ strided, operator @ strided.contiguous())
    assert torch.equal(strided, before)  # and what was given is left alone


def test_product_with_a_strided_vector(operator, dtype, device):
    vector = right_hand_side(N_NODES, dtype=dtype, device=device)
    assert torch.equal(operator @ torch.repeat_interleave(vector, 2)[::2], operator @ vector)


def test_product_with_no_columns(operator, dtype, device):
    empty = operator @ torch.empty(N_NODES, 0, dtype=dtype, device=device)
    assert empty.shape == (N_NODES, 0) and empty.dtype == dtype


@pytest.mark.parametrize("given", [torch.float16, torch.float32, torch.float64, torch.int64, torch.bool], ids=str)
def test_product_is_in_the_own_dtype(operator, dtype, device, given):
    ones = torch.ones(N_NODES, dtype=given, device=device)
    product = operator @ ones
    assert product.dtype == dtype
    assert torch.equal(product, operator @ ones.to(dtype))


@pytest.mark.parametrize("shape", [(), (N_NODES - 1,), (N_NODES + 1, 3), (3, N_NODES), (N_NODES, 2, 2), (0,)], ids=str)
def test_wrong_shapes_are_refused(operator, dtype, device, shape):
    with pytest.raises(InputError, match=rf"right-hand side has shape .* accepted: \({N_NODES},\) or \({N_NODES}, C\)"):
        operator @ torch.zeros(shape, dtype=dtype, device=device)


@pytest.mark.parametrize(
    "other", [np.zeros(N_NODES), [0.0] * N_NODES, 2.0, None], ids=lambda other: type(other).__name__
)
def test_other_kinds_are_refused(operator, other):
    with pytest.raises(InputTypeError, match="right-hand side is a .*; accepted: a torch tensor"):
        operator @ other


def test_complex_is_refused(operator, device):
    with pytest.raises(InputTypeError, match="complex64; accepted: real numbers"):
        operator @ torch.zeros(N_NODES, dtype=torch.complex64, device=device)


def test_symmetry_by_dot_test(operator, dtype, device):
    """<x, K y> = <K x, y>."""
    x, y = (right_hand_side(N_NODES, dtype=dtype, device=device, seed=seed) for seed in (1, 2))
    left, right = float(x.double() @ (operator @ y).double()), float((operator @ x).double() @ y.double())
    # Measured: 9.5e-6 and 1.4e-14; a dot product adds 92 such errors, of either sign.
    assert left == pytest.approx(right, abs=10 * TOLERANCE[dtype])


def test_linearity(operator, dtype, device):
    x, y = (right_hand_side(N_NODES, dtype=dtype, device=device, seed=seed) for seed in (1, 2))
    assert_near(
        operator @ (2 * x - y), (2 * (operator @ x) - operator @ y).cpu().double().numpy(), 4 * TOLERANCE[dtype]
    )


def test_row_sums(operator, dtype, device, dense_oracle):
    sums = operator.row_sums()
    assert sums.dtype == torch.float64 and sums.shape == (N_NODES,) and sums.device.type == device.type
    assert_near(sums, dense_oracle.sum(1), TOLERANCE[dtype])


GROUPS = {
    "random": lambda: torch.randint(0, 9, (N_NODES,), generator=torch.Generator().manual_seed(3)),
    "one": lambda: torch.zeros(N_NODES, dtype=torch.int64),
    "own": lambda: torch.arange(N_NODES).flip(0),
    "with gaps": lambda: 3 * torch.randint(0, 3, (N_NODES,), generator=torch.Generator().manual_seed(4)) + 1,
    "int32": lambda: torch.randint(0, 9, (N_NODES,), generator=torch.Generator().manual_seed(3), dtype=torch.int32),
}


@pytest.mark.parametrize("groups", GROUPS)
def test_aggregate(operator, dtype, device, dense_oracle, groups):
    labels = GROUPS[groups]().to(device)
    n = int(labels.max()) + 2  # one more than occurs: a column without entries
    aggregated = operator.aggregate(labels, n)
    one_hot = np.eye(n)[labels.cpu().numpy()]
    assert aggregated.shape == (N_NODES, n) and aggregated.values.dtype == dtype
    dense = csr_ops.to_torch(aggregated).to_dense()
    np.testing.assert_array_equal(dense.cpu().numpy() > 0, dense_oracle @ one_hot > 0)
    assert_near(dense, dense_oracle @ one_hot, TOLERANCE[dtype])


def test_aggregate_agrees_with_own_entries(operator, dtype, device):
    labels = GROUPS["random"]().to(device)
    one_hot = torch.nn.functional.one_hot(labels, 9).to(torch.float64)
    wanted = operator.to_dense().double() @ one_hot
    assert_near(csr_ops.to_torch(operator.aggregate(labels, 9)).to_dense(), wanted.cpu().numpy(), TOLERANCE[dtype])


@pytest.mark.parametrize("portable", [False, True], ids=["served", "portable"])
@pytest.mark.parametrize("entries_at_once", [1, 700])
def test_small_chunks_change_nothing(operator, dtype, device, entries_at_once, portable, monkeypatch):
    """One slice, or a few, at a time, and blocks of a few rows, as at full size; by the portable ops too."""
    block = right_hand_side(N_NODES, 16, dtype=dtype, device=device)
    labels = GROUPS["random"]().to(device)
    wanted = operator @ block, operator.row_sums(), csr_ops.to_torch(operator.aggregate(labels, 9)).to_dense()
    entries = operator.to_dense()
    few_at_a_time(monkeypatch, entries_at_once)
    if portable:
        by_portable_ops(monkeypatch)
    if isinstance(operator, LazyAffinity) and entries_at_once == 1:
        assert len(list(operator._chunks())) == N_SLICES
    found = operator @ block, operator.row_sums(), csr_ops.to_torch(operator.aggregate(labels, 9)).to_dense()
    for one, other in zip(found, wanted, strict=True):
        assert_near(one, other.cpu().double().numpy(), TOLERANCE[dtype])
    again = operator.to_dense()
    assert torch.equal(entries > 0, again > 0)
    if not portable:
        assert torch.equal(entries, again)
    # An exponential of torch's and one of the twins' may round apart. Measured: 2.2e-16 and 6e-8.
    assert_near(again, entries.cpu().double().numpy(), 1e-15 if dtype == torch.float64 else 1.2e-7)


def few_at_a_time(monkeypatch, entries: int) -> None:
    from mmphate_gpu.operators import lazy as lazy_module
    from mmphate_gpu.ops import landmark_aggregate, radius_affinity

    monkeypatch.setattr(lazy_module, "FEWEST", entries)
    monkeypatch.setattr(lazy_module, "MOST", entries)
    pairs, few_rows = radius_affinity.pair_chunks, lambda rows, columns, *_: five_rows(rows)
    monkeypatch.setattr(
        radius_affinity, "pair_chunks", lambda sets, points, **rows: pairs(sets, points, 5 * N_SLICES, **rows)
    )
    for module in (assemble_module, landmark_aggregate, csr_ops):
        monkeypatch.setattr(module, "row_chunks", few_rows)


def five_rows(n_rows: int):
    return (slice(start, min(start + 5, n_rows)) for start in range(0, n_rows, 5))


def by_portable_ops(monkeypatch) -> None:
    """As where no native library was built, and no CuPy."""
    from mmphate_gpu.operators import lazy as lazy_module
    from mmphate_gpu.ops import csr_matmul, landmark_aggregate

    for module, name in (
        (lazy_module, "radius_counts"),
        (assemble_module, "radius_fill"),
        (csr_matmul, "csr_matmul"),
        (landmark_aggregate, "landmark_aggregate"),
    ):
        monkeypatch.setattr(module, name, PORTABLE[name])


@pytest.mark.parametrize("width", [1, 3, 16, 40])
@pytest.mark.parametrize("entries_at_once", [1, 700, 10**6])
def test_lazy_has_the_bits_of_sparse(dtype, device, width, entries_at_once, monkeypatch):
    """The same rows, made anew some slices at a time: products, degrees and aggregates to the last bit."""
    stored, anew = sparse(dtype, device), lazy("torch")(dtype, device)
    monkeypatch.setattr("mmphate_gpu.operators.lazy.FEWEST", entries_at_once)
    monkeypatch.setattr("mmphate_gpu.operators.lazy.MOST", entries_at_once)
    labels = GROUPS["random"]().to(device)
    for kind in (torch.float32, torch.float64):
        block = right_hand_side(N_NODES, width, dtype=kind, device=device)
        assert torch.equal(anew.product(block), stored.product(block))
    assert torch.equal(anew.row_sums(), stored.row_sums())
    for one, other in zip(anew.aggregate(labels, 9)[:3], stored.aggregate(labels, 9)[:3], strict=True):
        assert torch.equal(one, other)


def test_interleave_is_a_hint_only(dtype, device):
    csr, block = sparse(dtype, device).csr, right_hand_side(N_NODES, 40, dtype=dtype, device=device)
    wanted = SparseAffinity(csr) @ block
    for interleave in (2, N_UNITS, N_NODES, 1000):
        assert torch.equal(SparseAffinity(csr, interleave=interleave) @ block, wanted)
    again = pickle.loads(pickle.dumps(SparseAffinity(csr, interleave=N_UNITS)))
    assert again.interleave == N_UNITS


def test_same_bits_on_every_run(operator, dtype, device):
    block, labels = right_hand_side(N_NODES, 16, dtype=dtype, device=device), GROUPS["random"]().to(device)
    assert torch.equal(operator @ block, operator @ block)
    assert torch.equal(operator.row_sums(), operator.row_sums())
    assert torch.equal(operator.aggregate(labels, 9).values, operator.aggregate(labels, 9).values)


def test_pickling(operator, dtype, device):
    again = pickle.loads(pickle.dumps(operator))
    assert type(again) is type(operator) and (again.shape, again.dtype) == (operator.shape, operator.dtype)
    assert torch.equal(again.to_dense(), operator.to_dense())
    block = right_hand_side(N_NODES, 16, dtype=dtype, device=device)
    assert torch.equal(again @ block, operator @ block)


# ---------------------------------------------------------------- conversions


def test_to_scipy(operator, dense_oracle, dtype):
    matrix = to_scipy(operator)
    assert matrix.has_sorted_indices and matrix.has_canonical_format
    assert matrix.dtype == {torch.float32: np.float32, torch.float64: np.float64}[dtype]
    np.testing.assert_allclose(matrix.toarray(), dense_oracle, rtol=0, atol=TOLERANCE[dtype])


def test_to_torch_csr(operator, dtype, device, dense_oracle):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch's beta notice is not the user's business
        tensor = to_torch_csr(operator)
    assert tensor.layout == torch.sparse_csr and tensor.dtype == dtype and tensor.device.type == device.type
    assert_near(tensor.to_dense(), dense_oracle, TOLERANCE[dtype])
    block = right_hand_side(N_NODES, 16, dtype=dtype, device=device)
    assert_near(tensor @ block, dense_oracle @ block.cpu().double().numpy(), TOLERANCE[dtype])


def test_as_linear_operator(operator, dtype, dense_oracle):
    linear = as_linear_operator(operator)
    assert linear.shape == operator.shape
    rng = np.random.default_rng(0)
    vector, matrix = rng.normal(size=N_NODES), rng.normal(size=(N_NODES, 16))
    for found, wanted in [
        (linear @ vector, dense_oracle @ vector),
        (linear @ matrix, dense_oracle @ matrix),
        (linear.H @ vector, dense_oracle @ vector),
        (linear.T @ matrix, dense_oracle @ matrix),
    ]:
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE[dtype])


def test_as_linear_operator_takes_read_only_and_reversed(operator):
    vector = np.arange(N_NODES, dtype=np.float64)
    linear = as_linear_operator(operator)
    wanted = linear @ vector[::-1].copy()
    vector.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(linear @ vector[::-1], wanted)
        linear @ vector


def test_as_linear_operator_serves_scipys_solvers(operator, dtype, dense_oracle):
    found = eigsh(as_linear_operator(operator), k=3, return_eigenvectors=False, v0=np.ones(N_NODES), tol=1e-10)
    # Measured: 4e-15 and 7e-7 of 21 (float32: the operator's own rounding).
    np.testing.assert_allclose(np.sort(found), np.linalg.eigvalsh(dense_oracle)[-3:], rtol=10 * TOLERANCE[dtype])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_to_cupy(dense_oracle):
    pytest.importorskip("cupy")
    matrix = to_cupy(sparse(torch.float64, torch.device("cuda")))
    np.testing.assert_allclose(matrix.toarray().get(), dense_oracle, rtol=0, atol=1e-13)


def test_to_cupy_says_what_is_missing(monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("CuPy may be there")
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(InputError, match=r"to_cupy needs the package 'cupy'.*mmphate-gpu\[cuda12\]"):
        to_cupy(sparse(torch.float64, torch.device("cpu")))


# ---------------------------------------------------------------- single forms


def test_sparse_shares_its_memory():
    operator = sparse(torch.float64, torch.device("cpu"))
    pointer = operator.csr.values.data_ptr()
    assert to_torch_csr(operator).values().data_ptr() == pointer
    assert to_scipy(operator).data.ctypes.data == pointer


def test_sparse_bytes_are_what_was_foretold():
    """What the choice between the forms is made on."""
    one = lazy("torch")(torch.float32, torch.device("cpu"))
    operator = SparseAffinity(one.to_csr())
    assert assembled_nnz(one.intraslice, one.interslice_counts()) == operator.nnz
    assert operator.nbytes == assembled_bytes(operator.nnz, N_NODES, torch.float32)


def test_assembled_bytes_beyond_int32():
    """HAR with pitchfork-like units: 2.1e9 entries. 12 bytes each with int64 columns, 8 below 2^31."""
    assert assembled_bytes(2**31 - 1, 1000, torch.float32) == (2**31 - 1) * 8 + 1001 * 4
    assert assembled_bytes(2**31, 1000, torch.float32) == 2**31 * 12 + 1001 * 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_int64_offsets_give_the_same_matrix(dtype, device, monkeypatch):
    """The path that more than 2^31 entries take, forced by a lower threshold."""
    wanted = sparse(dtype, device).csr
    assert wanted.indptr.dtype == wanted.indices.dtype == torch.int32
    monkeypatch.setattr(assemble_module, "index_dtype", lambda nnz, columns: torch.int64)
    found = lazy("torch")(dtype, device).to_csr()
    assert found.indptr.dtype == found.indices.dtype == torch.int64
    for one, other in zip(found[:3], wanted[:3], strict=True):
        assert torch.equal(one, other.to(one.dtype))


def test_lazy_checks_its_parts():
    one = lazy("torch")(torch.float64, torch.device("cpu"))
    options = {"thresh": THRESH, "dtype": torch.float64}
    with pytest.raises(InputError, match="engine='cuda' is unknown; accepted: 'auto', 'torch', 'keops'"):
        LazyAffinity(one.unit_points, one.bandwidth, one.intraslice, engine="cuda", **options)
    with pytest.raises(InputError, match=r"intraslice has shape \(92, 4\); accepted: \(88, 4\)"):
        LazyAffinity(one.unit_points[:, 1:], one.bandwidth, one.intraslice, **options)


def test_lazy_auto_engine_on_the_cpu_is_torch():
    assert lazy("auto")(torch.float64, torch.device("cpu")).engine == "torch"


@pytest.mark.parametrize("engine", ["torch", "keops"])
def test_lazy_stores_points_and_intraslice_only(engine, dtype, device):
    """And, once they have been counted, how many entries each row has."""
    one = lazy(engine)(dtype, device)
    wanted = N_NODES * N_FEATURES * 8 + one.intraslice.nnz * (4 + dtype.itemsize) + (N_NODES + 1) * 4
    assert one.nbytes == wanted
    one.row_sums()
    assert one.nbytes == wanted + N_NODES * 8
    one.to_dense()
    assert one.nbytes == wanted + N_NODES * 8


# ---------------------------------------------------------------- memory

MEMORY_SCRIPT = """
import psutil, torch
from mmphate_gpu.affinities.intraslice import intraslice_affinity
from mmphate_gpu.operators import LazyAffinity, SparseAffinity
from mmphate_gpu.slices import unit_major

def peak():  # bytes. Not getrusage: on Linux a process inherits the peak of the one that started it
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

torch.set_num_threads(1)  # two spin against each other where other tests run beside
def make(n_slices, n_units):
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(n_slices, n_units, 5, dtype=torch.float64, generator=generator)
    bandwidth = torch.tensor({bandwidth}, dtype=torch.float64)
    return LazyAffinity(
        unit_major(points), bandwidth, intraslice_affinity(points), thresh=1e-4, dtype=torch.float32, engine="torch"
    )

small = make(64, 6)  # the libraries' own buffers come with the first use
small @ torch.ones(384, 16); small.row_sums(); small.aggregate(torch.arange(384) % 9, 9); small.to_csr()
lazy = make({n_slices}, 6)
n = lazy.shape[0]
before = psutil.Process().memory_info().rss
{action}
print(peak() - before)
"""

MIB = 2**20
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")


def growth_of(action: str, n_slices: int, bandwidth: float = 0.1) -> int:
    """Bytes from those held before ``action`` to the peak of a fresh process; tracemalloc does not see torch's."""
    script = textwrap.dedent(MEMORY_SCRIPT)
    for name, value in {"action": action, "n_slices": n_slices, "bandwidth": bandwidth}.items():
        script = script.replace("{" + name + "}", str(value))
    # glibc gives blocks above this back at once; what it would keep for later changes from run to run.
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**16)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@needs_proc
@pytest.mark.parametrize(
    ("action", "n_slices", "bandwidth", "ceiling", "portable_ceiling"),
    [
        # 6 x 6000 x 6000 distances are 1.7 GB in float64. Rows are made 2^18 entries at a time: 2 MiB, with their
        # offsets, counts and gaps (36,000 x 8 bytes, 0.3 MiB) less than 4; the 36,000 x 16 sides and the product are
        # 2.2 MiB each, row sums in float64 another 2 MiB of entries. Measured: 15 MiB. Portable: a block of 2^21
        # distances is 16 MiB, its mask 2, and the entries found have eight lists of 8 bytes: 38 MiB.
        ("lazy @ torch.ones(n, 16); lazy.row_sums()", 6000, 0.1, 24 * MIB, 60 * MIB),
        # 36,000 x 1000 sums are 275 MiB in float64 if dense; there are 36,000 x 13 of 8 bytes: 3.6 MiB in pieces and
        # again in one. Measured: 13 MiB, and 37 with the portable blocks.
        ("lazy.aggregate(torch.arange(n) % 1000, 1000)", 6000, 0.1, 24 * MIB, 60 * MIB),
        # Bandwidth 0.8: three pairs in ten are entries, 28 million or 224 MB. A sixteenth of them is 13.4 MiB, and the
        # rows before are let go when the next ones are there: 27 MiB, and 1.5 MiB for either side. Measured: 30 MiB.
        # Portable: a block of 2^21 pairs has 6e5 entries, each with its row, column, set, place, ... in 8 bytes, a
        # dozen lists of 5 MiB beside the 16 MiB of distances: 87 MiB.
        ("lazy @ torch.ones(n, 16)", 4000, 0.8, 45 * MIB, 130 * MIB),
        # Its counts: 24,000 x 8 bytes, and the points of one set. Measured: 1.3 MiB, and 18 by a block of distances.
        ("lazy.interslice_counts()", 4000, 0.8, 5 * MIB, 30 * MIB),
    ],
    ids=["product", "aggregate", "product of many entries", "counts"],
)
def test_lazy_memory_stays_at_a_few_blocks(action, n_slices, bandwidth, ceiling, portable_ceiling):
    growth = growth_of(action, n_slices, bandwidth)
    print(f"{action}: {growth / MIB:.0f} MiB")
    assert growth < (ceiling if serves(torch.device("cpu")) else portable_ceiling)


@needs_proc
def test_assembly_holds_nothing_twice():
    """To CSR: the result, and beside it a few blocks, but no second list of its entries."""
    # Bandwidth 0.8: 224 MB of entries; a list of them in int64 and float64 would be 448 MB. Measured: 7 MiB (offsets,
    # counts and gaps of 24,000 rows, and the intraslice entries of all of them in int64). Portable: a dozen lists of
    # the 6e5 entries of one block of 2^21 pairs, 8 bytes each, are 60 MB, beside the 16 MiB of its distances: 62 MiB.
    action = (
        "csr = lazy.to_csr(); size = sum(part.nbytes for part in csr[:3]); assert size > 200e6, size; before += size"
    )
    growth = growth_of(action, 4000, bandwidth=0.8)
    print(f"assembly beyond the result: {growth / MIB:.0f} MiB")
    assert growth < (20 if serves(torch.device("cpu")) else 110) * MIB
