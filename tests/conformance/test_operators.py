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
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from mmphate_gpu import reference
from mmphate_gpu.affinities.intraslice import intraslice_affinity
from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.operators import (
    AffinityOperator,
    LazyAffinity,
    SparseAffinity,
    TiledAffinity,
    as_linear_operator,
    to_cupy,
    to_scipy,
    to_torch_csr,
)
from mmphate_gpu.operators import assemble as assemble_module
from mmphate_gpu.operators import tiles as tiles_module
from mmphate_gpu.operators.assemble import assembled_bytes, assembled_nnz
from mmphate_gpu.operators.tiles import tiles_bytes
from mmphate_gpu.ops import csr as csr_ops
from mmphate_gpu.ops import tile_layout as tile_layout_module
from mmphate_gpu.ops.launch.twins import PORTABLE, serves
from mmphate_gpu.ops.tile_layout import TILE, stored_pairs, tile_layout
from mmphate_gpu.runtime import memory
from mmphate_gpu.slices import unit_major

N_SLICES, N_UNITS, N_FEATURES = 23, 4, 5
N_NODES = N_SLICES * N_UNITS
BANDWIDTH, THRESH = 0.6, 1e-4

# Entries, sums and products are compared with float64 ones. Worst measured over all forms and 20 right-hand sides:
# float32 2.9e-6 in products (rows that sum to as much as 25, times standard normal numbers), 2.5e-6 in aggregated sums,
# 2e-7 in row sums (float32 entries, float64 sums); float64 5.3e-15 in all three.
TOLERANCE = {torch.float32: 8e-6, torch.float64: 5e-14}
# Forms that multiply in half precision: entries and right-hand sides are rounded to 11 bits, 2^-11 of themselves at
# most, and sums are float32, whatever the dtype. Worst measured over the same: 3.6e-3 in products, 2.4e-4 in row sums.
HALF_FORMS = ("tiles", "lazy fused")
HALF_TOLERANCE = 8e-3


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


def tiles(dtype: torch.dtype, device: torch.device) -> TiledAffinity:
    return TiledAffinity(lazy("torch")(dtype, device))


FORMS = {
    "sparse": sparse,
    "sparse int64": sparse_int64,
    "lazy torch": lazy("torch"),
    "lazy keops": lazy("keops"),
    "lazy fused": lazy("fused"),
    "tiles": tiles,
}


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


@pytest.fixture
def product_tolerance(form, dtype) -> float:
    """Of products and degrees."""
    return HALF_TOLERANCE if form in HALF_FORMS else TOLERANCE[dtype]


@pytest.fixture
def entry_tolerance(form, dtype) -> float:
    """Of the entries of `to_dense`: tiles show those that multiply, off by half a unit in the last of 11 bits."""
    return 2.0**-12 if form == "tiles" else TOLERANCE[dtype]


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


def test_to_dense(operator, dtype, dense_oracle, entry_tolerance):
    dense = operator.to_dense()
    assert dense.dtype == dtype
    np.testing.assert_array_equal(dense.cpu().numpy() > 0, dense_oracle > 0)
    assert_near(dense, dense_oracle, entry_tolerance)
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


def test_product_with_a_vector(operator, dtype, device, dense_oracle, product_tolerance):
    vector = right_hand_side(N_NODES, dtype=dtype, device=device)
    product = operator @ vector
    assert product.shape == (N_NODES,) and product.dtype == dtype and product.device.type == device.type
    assert_near(product, dense_oracle @ vector.cpu().double().numpy(), product_tolerance)


def test_product_with_a_matrix(operator, dtype, device, dense_oracle, product_tolerance):
    matrix = right_hand_side(N_NODES, 16, dtype=dtype, device=device)
    product = operator @ matrix
    assert product.shape == (N_NODES, 16) and product.dtype == dtype
    assert_near(product, dense_oracle @ matrix.cpu().double().numpy(), product_tolerance)


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


def test_symmetry_by_dot_test(operator, dtype, device, product_tolerance):
    """<x, K y> = <K x, y>."""
    x, y = (right_hand_side(N_NODES, dtype=dtype, device=device, seed=seed) for seed in (1, 2))
    left, right = float(x.double() @ (operator @ y).double()), float((operator @ x).double() @ y.double())
    # Measured: 9.5e-6 and 1.4e-14, in half precision 7.6e-4; a dot product adds 92 such errors, of either sign.
    assert left == pytest.approx(right, abs=10 * product_tolerance)


def test_linearity(operator, dtype, device, product_tolerance):
    x, y = (right_hand_side(N_NODES, dtype=dtype, device=device, seed=seed) for seed in (1, 2))
    assert_near(
        operator @ (2 * x - y), (2 * (operator @ x) - operator @ y).cpu().double().numpy(), 4 * product_tolerance
    )


def test_row_sums(operator, dtype, device, dense_oracle, product_tolerance):
    sums = operator.row_sums()
    assert sums.dtype == torch.float64 and sums.shape == (N_NODES,) and sums.device.type == device.type
    assert_near(sums, dense_oracle.sum(1), product_tolerance)


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


def test_aggregate_agrees_with_own_entries(operator, dtype, device, form):
    labels = GROUPS["random"]().to(device)
    one_hot = torch.nn.functional.one_hot(labels, 9).to(torch.float64)
    wanted = operator.to_dense().double() @ one_hot
    # Sums of exact entries against those of rounded ones. Measured: 2.3e-4.
    tolerance = 1e-3 if form == "tiles" else TOLERANCE[dtype]
    assert_near(csr_ops.to_torch(operator.aggregate(labels, 9)).to_dense(), wanted.cpu().numpy(), tolerance)


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

    monkeypatch.setattr(lazy_module, "entries_at_once", lambda *_: entries)
    pairs, few_rows = radius_affinity.pair_chunks, lambda rows, columns, *_: five_rows(rows)
    monkeypatch.setattr(
        radius_affinity, "pair_chunks", lambda sets, points, **rows: pairs(sets, points, 5 * N_SLICES, **rows)
    )
    for module in (assemble_module, landmark_aggregate, csr_ops, tile_layout_module, tiles_module):
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
    monkeypatch.setattr("mmphate_gpu.operators.lazy.entries_at_once", lambda *_: entries_at_once)
    labels = GROUPS["random"]().to(device)
    for kind in (torch.float32, torch.float64):
        block = right_hand_side(N_NODES, width, dtype=kind, device=device)
        assert torch.equal(anew.product(block), stored.product(block))
    assert torch.equal(anew.row_sums(), stored.row_sums())
    for one, other in zip(anew.aggregate(labels, 9)[:3], stored.aggregate(labels, 9)[:3], strict=True):
        assert torch.equal(one, other)


def test_more_entries_at_once_on_a_gpu():
    """A chunk on a GPU takes at most a sixteenth of its free memory, and is never smaller than on the CPU."""
    from mmphate_gpu.operators.lazy import entries_at_once

    assert entries_at_once(5e8) == 2**24 and entries_at_once(1e3) == 2**18 and entries_at_once(2**25) == 2**21
    assert 26 * entries_at_once(5e8, 80 * 2**30) <= 5 * 2**30 < 26 * (entries_at_once(5e8, 80 * 2**30) + 1)
    assert entries_at_once(5e8, 2**30) == 2**24 and entries_at_once(5e8, 2**40) == 2**28


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


def test_as_linear_operator(operator, dense_oracle, product_tolerance):
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
        np.testing.assert_allclose(found, wanted, rtol=0, atol=product_tolerance)


def test_as_linear_operator_takes_read_only_and_reversed(operator):
    vector = np.arange(N_NODES, dtype=np.float64)
    linear = as_linear_operator(operator)
    wanted = linear @ vector[::-1].copy()
    vector.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(linear @ vector[::-1], wanted)
        linear @ vector


def test_as_linear_operator_serves_scipys_solvers(operator, form, dtype, dense_oracle):
    found = eigsh(as_linear_operator(operator), k=3, return_eigenvectors=False, v0=np.ones(N_NODES), tol=1e-10)
    # Measured: 4e-15 and 7e-7 of 21 (float32: the operator's own rounding), in half precision 4.7e-4.
    rtol = 1e-4 if form in HALF_FORMS else 10 * TOLERANCE[dtype]
    np.testing.assert_allclose(np.sort(found), np.linalg.eigvalsh(dense_oracle)[-3:], rtol=rtol)


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
    with pytest.raises(InputError, match=r"to_cupy needs the package 'cupy'.*mmphate-gpu\[cuda13\]"):
        to_cupy(sparse(torch.float64, torch.device("cpu")))


# ---------------------------------------------------------------- single forms


def test_conversions_return_copies(operator):
    """An estimator keeps its operator for the next fit."""
    wanted = operator.to_dense()
    matrix = to_scipy(operator)
    for part in (matrix.data, matrix.indices, matrix.indptr):
        part[:] = 1
    tensor = to_torch_csr(operator)
    for part in (tensor.values(), tensor.col_indices(), tensor.crow_indices()):
        part.fill_(1)
    for part in operator.to_csr()[:3]:  # which torch does not see
        part.cpu().numpy()[:] = 1
    assert torch.equal(operator.to_dense(), wanted)


def test_a_copy_that_does_not_fit_is_refused(monkeypatch):
    operator = sparse(torch.float64, torch.device("cpu"))
    monkeypatch.setenv(memory.MEMORY_LIMIT_VARIABLE, str(operator.nbytes - 1))
    for convert in (to_scipy, to_torch_csr):
        with pytest.raises(InputError, match="a copy of the affinity with .* as_linear_operator"):
            convert(operator)


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
    with pytest.raises(InputError, match="engine='cuda' is unknown; accepted: 'auto', 'torch', 'keops', 'fused'"):
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


# ---------------------------------------------------------------- half precision

LONG = 300  # three tiles of slices, the last one not full


def long_lazy(engine: str, dtype: torch.dtype, device: torch.device) -> LazyAffinity:
    """A walk long enough for tiles without entries."""
    rng = np.random.default_rng(0)
    walk = 0.4 * np.cumsum(rng.normal(size=(LONG, 3, 5)), axis=0)
    walk[7] = walk[8]
    walk[:, 2, 1:] = 0  # a curve that comes back: here the kd-tree pays
    stack = torch.from_numpy(walk).to(device)
    bandwidth = torch.tensor(0.6, dtype=torch.float64, device=device)
    intraslice = intraslice_affinity(stack, thresh=THRESH, dtype=dtype)
    return LazyAffinity(unit_major(stack), bandwidth, intraslice, thresh=THRESH, dtype=dtype, engine=engine)


def long_form(form: str, dtype: torch.dtype, device: torch.device) -> AffinityOperator:
    lazy_form = long_lazy("fused" if form == "lazy fused" else "torch", dtype, device)
    return TiledAffinity(lazy_form) if form == "tiles" else lazy_form


@pytest.mark.parametrize("half_form", HALF_FORMS)
def test_products_in_half_precision_are_near(half_form, dtype, device):
    """Within the rounding of both factors, entry by entry, whatever a column's scale; zeros stay zeros."""
    exact, half = long_lazy("torch", torch.float64, device), long_form(half_form, dtype, device)
    block = right_hand_side(exact.shape[0], 130, dtype=dtype, device=device)
    block *= torch.logspace(-30, 30, 130, dtype=torch.float64, device=device).to(dtype)
    block[:, 3] = 0
    wanted, found = exact.product(block.double()), (half @ block).double()
    assert not found[:, 3].any()
    error = (found - wanted).abs()
    # Twice 2^-11 of the products' sizes, and 2^-22 where both meet.
    assert bool((error <= (2.0**-10 + 2.0**-20) * exact.product(block.double().abs())).all())
    # By columns, of their norm: median 2.2e-4, worst 6.3e-4 (one whose products nearly cancel).
    by_column = error.norm(dim=0) / wanted.norm(dim=0).clamp_min(1e-300)
    assert 1e-5 < float(by_column.median()) < 5e-4


def test_tiles_multiply_what_they_show(dtype, device):
    """Products of half numbers are exact in float32: nothing is left but the rounding of its sums."""
    operator = long_form("tiles", dtype, device)
    block = right_hand_side(operator.shape[0], 33, dtype=torch.float16, device=device).to(dtype)
    # Measured: 2.1e-6 for sums of up to 90.
    assert_near(operator @ block, (operator.to_dense().double() @ block.double()).cpu().numpy(), 2e-5)
    assert_near(operator.row_sums(), operator.to_dense().double().sum(1).cpu().numpy(), 2e-5)


def test_tiles_show_the_exact_pattern(dtype, device):
    operator = long_form("tiles", dtype, device)
    exact, shown = operator.to_csr(), operator.to_dense().double()
    wanted = csr_ops.to_torch(exact).to_dense().double()
    assert torch.equal(shown > 0, wanted > 0)
    error = (shown - wanted).abs()
    assert float((error / wanted.clamp_min(THRESH)).max()) <= 2.0**-11 * 1.001
    rows, columns = (part % 3 for part in torch.nonzero(error, as_tuple=True))
    assert torch.equal(rows, columns)  # and the intraslice part is exact


@pytest.mark.parametrize("half_form", HALF_FORMS)
def test_rows_of_the_half_precision_diffusion_sum_to_one(half_form, dtype, device):
    """D^-1 K as it is applied, for which degrees come from the same product; exact ones would leave 1e-4."""
    operator = long_form(half_form, dtype, device)
    ones = torch.ones(operator.shape[0], 1, dtype=torch.float64, device=device)
    sums = operator.product(ones)[:, 0] / operator.row_sums()
    assert float((sums - 1).abs().max()) < 1e-12
    assert float((operator.row_sums() / long_lazy("torch", dtype, device).row_sums() - 1).abs().max()) > 1e-6


AFFINITY_GOAL, PRODUCT_GOAL = 5e-5, 5e-4


def test_errors_are_within_the_goals(form, dtype, device):
    """Of what is handed out the 99th percentile; of products with 130 random columns, all together."""
    exact_and_found = [(sparse(torch.float64, device), FORMS[form](dtype, device))]
    if form in HALF_FORMS:
        exact_and_found.append((long_lazy("torch", torch.float64, device), long_form(form, dtype, device)))
    for exact, found in exact_and_found:
        labels = torch.arange(exact.shape[0], device=device) % 9
        wanted, handed = ((one.to_csr(), one.aggregate(labels, 9)) for one in (exact, found))
        # Measured: 2.9e-8 of entries, 8.4e-7 of sums of up to 24, 0 in float64: not even tiles hand out halves.
        for one, other in zip(handed, wanted, strict=True):
            assert torch.equal(one.indices, other.indices)
            assert np.percentile((one.values.double() - other.values).abs().cpu(), 99) <= AFFINITY_GOAL
        block = right_hand_side(exact.shape[0], 130, dtype=torch.float64, device=device)
        error = (found.product(block) - exact.product(block)).norm() / exact.product(block).norm()
        # Measured: 7.6e-9, in half precision 1.9e-4 (short) and 2.5e-4 (long). A column by itself, whose products may
        # nearly cancel: up to 7.5e-4 and 5.0e-4.
        assert float(error) <= PRODUCT_GOAL


class _NoKernel:
    """In the place of a Triton kernel: started, it does nothing."""

    def __init__(self) -> None:
        self.started = 0

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        self.started += 1
        return lambda *given, **options: None


@pytest.mark.parametrize("half_form", HALF_FORMS)
def test_products_wait_for_no_number_of_a_gpu(half_form, monkeypatch):
    """By the Triton launchers on fake tensors, which have shapes and no numbers: to ask for one raises."""
    pytest.importorskip("triton")
    from mmphate_gpu.operators import lazy as lazy_module
    from mmphate_gpu.ops import tile_block
    from mmphate_gpu.ops.triton import blocks, launchers

    operator = long_form(half_form, torch.float32, torch.device("cpu"))
    block = right_hand_side(operator.shape[0], 5, dtype=torch.float32, device=operator.device)
    first, kernel = operator @ block, _NoKernel()
    name, module = ("tile_matmul", tiles_module) if half_form == "tiles" else ("gaussian_product", lazy_module)
    monkeypatch.setattr(launchers, f"{name}_kernel", kernel)
    monkeypatch.setattr(module, name, getattr(launchers, name))
    for around in ("tile_block", "tile_rows"):
        monkeypatch.setattr(blocks, f"{around}_kernel", kernel)
        monkeypatch.setattr(tile_block, around, getattr(blocks, around))
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:  # `product` and `@` would turn it off
        given = fake.from_tensor(block)
        assert operator._matmul(given).shape == first.shape and kernel.started == 3
        with pytest.raises(DataDependentOutputException):  # the mode is on
            float(given.sum())


@pytest.mark.parametrize("order", ["time", "tree"])
def test_layout_holds_every_pair(device, order, monkeypatch):
    """In either order: each pair within reach lies in a tile that is listed, and each tile listed holds one."""
    lazy_form = long_lazy("torch", torch.float64, device)
    monkeypatch.setattr(tile_layout_module, "SAMPLED_ROWS", 3)
    if order == "time":
        own = torch.arange(LONG, device=device).repeat(3, 1)
        monkeypatch.setattr(tile_layout_module, "kd_order", lambda points: own)
    layout = tile_layout(lazy_form.unit_points, lazy_form.reach)
    near = torch.cdist(lazy_form.unit_points, lazy_form.unit_points) <= lazy_form.reach
    wanted = []
    for unit in range(3):
        assert torch.equal(layout.order[unit].sort().values, torch.arange(LONG, device=device))
        own = near[unit].fill_diagonal_(False)[layout.order[unit]][:, layout.order[unit]]
        own = torch.nn.functional.pad(own, (0, 3 * TILE - LONG) * 2)
        wanted.append(own.view(3, TILE, 3, TILE).any(3).any(1))
    active = torch.zeros(9, 9, dtype=torch.bool, device=device)
    rows = torch.repeat_interleave(torch.arange(9, device=device), layout.indptr.diff())
    active[rows, layout.columns.long()] = True
    assert torch.equal(active, torch.block_diag(*wanted).bool())
    above = torch.repeat_interleave(layout.diagonal, layout.indptr.diff()) <= torch.arange(layout.n_active).to(device)
    assert torch.equal(above, layout.columns >= rows)
    for slot, row, column in zip(stored_pairs(layout)[2].tolist(), rows.tolist(), layout.columns.tolist(), strict=True):
        assert [int(one[slot]) for one in stored_pairs(layout)[:2]] == sorted((row, column))
    assert 9 < layout.n_active < 27  # some are left out


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (2, 128, 3), (2, 129, 3), (3, 300, 2), (1, 2500, 1), (4, 1601, 5)], ids=str
)
def test_tree_by_levels_is_the_tree_span_by_span(shape, device):
    """The order is that of sorting each half by itself, one after the other, to the last place and with ties."""
    points = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).cumsum(1).round()
    wanted, spans = torch.arange(shape[1]).repeat(shape[0], 1), [(0, shape[1])]
    while spans:
        first, last = spans.pop()
        if last - first > TILE:
            for order, of_set in zip(wanted, points, strict=True):
                coordinates = of_set[order[first:last]]
                along = coordinates[:, int((coordinates.amax(0) - coordinates.amin(0)).argmax())]
                order[first:last] = order[first:last][along.argsort(stable=True)]
            middle = first + -(-(last - first) // TILE) // 2 * TILE
            spans += [(first, middle), (middle, last)]
    assert torch.equal(tile_layout_module.kd_order(points.to(device)).cpu(), wanted)


def test_layout_takes_the_better_order(device):
    """Units in the order of time where that leaves fewer tiles, others by the tree."""
    line = torch.arange(4.0 * TILE, dtype=torch.float64, device=device)[:, None]
    shuffled = line.flatten().view(TILE, 4).T.reshape(-1, 1)  # every tile spans the whole line
    layout = tile_layout(torch.stack([line, shuffled]), 4.5)
    assert torch.equal(layout.order[0], torch.arange(4 * TILE, device=device))
    leaves = shuffled.flatten()[layout.order[1]].view(4, TILE)
    assert torch.equal(leaves.sort(1).values.flatten(), line.flatten())
    assert layout.n_active == 2 * (4 + 2 * 3)  # a tile meets itself and its neighbours


def test_no_entry_is_no_tile(dtype, device):
    """Slices all out of reach of one another."""
    stack = 100.0 * torch.arange(10, dtype=torch.float64, device=device)[:, None, None].expand(10, 2, 3)
    intraslice = intraslice_affinity(stack, thresh=THRESH, dtype=dtype)
    bandwidth = torch.tensor(1.0, dtype=torch.float64, device=device)
    parts = (unit_major(stack), bandwidth, intraslice)
    for engine in ("torch", "fused"):
        one = LazyAffinity(*parts, thresh=THRESH, dtype=dtype, engine=engine)
        operator = TiledAffinity(one) if engine == "torch" else one
        assert one.tile_layout().n_active == 0
        assert_near(operator @ torch.eye(20, dtype=dtype, device=device), operator.to_dense().cpu().numpy(), 0)
        assert_near(operator.row_sums(), operator.to_dense().sum(1).cpu().numpy(), 1e-6)


def test_tiles_bytes_are_what_was_foretold(device):
    operator = long_form("tiles", torch.float32, device)
    held = operator.tiles.numel() * operator.tiles.element_size()
    assert held == tiles_bytes(operator.layout.n_stored) == 2 * TILE**2 * operator.layout.n_stored
    on_diagonal = 9  # three of each of three units
    assert 2 * operator.layout.n_stored == operator.layout.n_active + on_diagonal
    assert operator.nbytes == operator.lazy.nbytes + held + 4 * operator.layout.n_active


def test_tiles_that_do_not_fit_are_refused(monkeypatch):
    lazy_form = long_lazy("torch", torch.float32, torch.device("cpu"))
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", "100000")
    words = r"the affinity in [0-9]+ tiles needs .* KiB but cpu has 97.7 KiB available .*; storage=\"lazy\" stores none"
    with pytest.raises(InputError, match=words):
        TiledAffinity(lazy_form)


def test_far_points_are_not_for_the_fused_engine(monkeypatch):
    """Where float32 would have too few digits for the distances of points so far from the mean of their unit."""
    from mmphate_gpu.operators import lazy as lazy_module

    one = long_lazy("fused", torch.float64, torch.device("cpu"))
    assert 1 < one.fused_radius() < lazy_module.FUSED_RADIUS
    monkeypatch.setattr(lazy_module.TRITON, "serves", lambda: True)
    monkeypatch.setattr(lazy_module, "keops_serves", lambda: True)
    one.device = torch.device("cuda")
    assert one._best_engine() == "fused"
    one.bandwidth = one.bandwidth / 1000
    assert one._best_engine() == "keops"
    monkeypatch.setattr(lazy_module, "keops_serves", lambda: False)
    assert one._best_engine() == "torch"


# ---------------------------------------------------------------- memory

MEMORY_SCRIPT = """
import psutil, torch
from mmphate_gpu.affinities.intraslice import intraslice_affinity
from mmphate_gpu.operators import LazyAffinity, SparseAffinity, TiledAffinity
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


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize(
    ("action", "ceiling"),
    [
        # 3000 slices of each of 6 units are 24 x 24 tiles, all of them active, of which the 300 on the diagonal and
        # above are stored: 1,800 of 32 KiB, 56 MiB. They are made 128 at a time: 2^21 distances in float64, over the
        # bandwidth, and squared (16 MiB each), in float32 (8 MiB). A product takes 128 in float32, 8 MiB, those to be
        # transposed once more, and less for its blocks: 18,000 x 16 of 8 bytes are 2 MiB. Measured: 56 MiB beyond the
        # tiles.
        (
            "tiled = TiledAffinity(lazy); size = tiled.tiles.nbytes; assert size == 1800 * 2**15, size\n"
            "tiled @ torch.ones(n, 16); before += size",
            80 * MIB,
        ),
        # Matrix-free: none of them, distances in float32 (8 MiB), entries, and masks of 2 MiB. Measured: 31 MiB, those
        # of the search for active tiles (16 MiB of distances) among them.
        (
            "parts = (lazy.unit_points, lazy.bandwidth, lazy.intraslice)\n"
            "LazyAffinity(*parts, thresh=1e-4, dtype=lazy.dtype, engine='fused') @ torch.ones(n, 16)",
            50 * MIB,
        ),
    ],
    ids=["tiles", "fused"],
)
def test_tiles_are_held_once(action, ceiling):
    growth = growth_of(action, 3000, bandwidth=0.8)
    print(f"{action}: {growth / MIB:.0f} MiB")
    assert growth < ceiling
