"""Every form of the affinity of a masked trace against the dense reference, over the nodes of its graph."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch

from mmphate_gpu import MMPHATE, as_trace, multislice_affinity, reference
from mmphate_gpu.errors import InputError
from mmphate_gpu.operators import AffinityOperator
from mmphate_gpu.operators.graph_nodes import GraphNodes
from mmphate_gpu.ops import csr as csr_ops

from .forms import HALF_TOLERANCE, TOLERANCE, assert_near, right_hand_side

E, T, M, P = 5, 9, 4, 7
N = E * T * M


def lengths() -> np.ndarray:
    """Nested: sequences end, and the last two time steps have less than two of them."""
    return np.arange(T)[:, None] < np.array([9, 7, 7, 6, 4, 4, 2])


def holes() -> np.ndarray:
    """Not nested, the same for all epochs and units; every node has its two samples."""
    mask = np.random.default_rng(1).random((T, P)) < 0.5
    mask[np.arange(T), np.arange(T) % P] = mask[np.arange(T), (np.arange(T) + 3) % P] = True
    return mask


def general() -> np.ndarray:
    """Each value by itself: nodes without a sample, with one, and pairs of nodes without a common sample."""
    mask = np.random.default_rng(2).random((E, T, M, P)) < 0.35
    mask[2, 3] = False  # a slice without any node
    return mask


MASKS: dict[str, Callable[[], np.ndarray]] = {"lengths": lengths, "holes": holes, "general": general}
OPTIONS = {
    "default": {},
    "no decay": {"decay": None, "intraslice_knn": 3},
    "not normalized": {"normalize": False},
    "more neighbors than nodes": {"intraslice_knn": 9, "interslice_knn": 40},
    "all that float32 holds": {"thresh": 0.0},
}


def values() -> np.ndarray:
    """A walk over the slices with a repeated slice, a repeated unit and a dead one."""
    walk = np.random.default_rng(0).normal(size=(E * T, M, P)).cumsum(0)
    walk[7], walk[:9, 2], walk[:, 3] = walk[8], walk[:9, 1], 0.1
    return walk.reshape(E, T, M, P)


@pytest.fixture(params=MASKS)
def mask(request: pytest.FixtureRequest) -> np.ndarray:
    return MASKS[request.param]()


@pytest.fixture(params=["sparse", "lazy", "tiles"])
def storage(request: pytest.FixtureRequest) -> str:
    return request.param


def made(mask: np.ndarray, storage: str, dtype: torch.dtype = torch.float64, **options: object) -> AffinityOperator:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nodes are left out, and there are fewer slices than neighbors asked for
        trace = as_trace(torch.from_numpy(values()).to(dtype), mask=mask)
        return multislice_affinity(trace, storage=storage, device="cpu", **options)


def dense(mask: np.ndarray, **options: object) -> np.ndarray:  # (N', N')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return reference.multislice_affinity(values(), mask=mask, **options)


@pytest.mark.parametrize("options", OPTIONS)
def test_entries(mask, storage, options):
    expected, operator = dense(mask, **OPTIONS[options]), made(mask, storage, **OPTIONS[options])
    expected[expected < torch.finfo(torch.float32).tiny] = 0  # no entry in any dtype
    actual = operator.to_dense().numpy()
    assert operator.shape == expected.shape and operator.storage == storage
    np.testing.assert_array_equal(actual > 0, expected > 0)
    # Measured: 2e-15; tiles are rounded to float32, then to 11 bits.
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2.0**-12 + 1e-7 if storage == "tiles" else 1e-12)
    np.testing.assert_allclose(csr_ops.to_torch(operator.to_csr()).to_dense().numpy(), expected, rtol=0, atol=1e-12)


def test_the_masks_are_what_they_are_for():
    n_left = {name: len(reference.graph_nodes(values(), mask=make())) for name, make in MASKS.items()}
    assert n_left == {"lengths": N - 2 * E * M, "holes": N, "general": n_left["general"]}
    assert 0.7 * N < n_left["general"] < 0.95 * N
    apart = [
        np.isinf(reference.affinity.distances_between(z, z)).any()
        for z in reference.normalize(values(), mask=general())
    ]
    assert any(apart)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_members(mask, storage, dtype):
    """Products, degrees and sums by label, as of the dense entries."""
    operator = made(mask, storage, dtype)
    expected = made(mask, "sparse", dtype).to_dense().double().numpy()
    n = len(expected)
    block = right_hand_side(n, 5, dtype=dtype, device=torch.device("cpu"))
    tolerance = HALF_TOLERANCE if storage == "tiles" else TOLERANCE[dtype]
    assert_near(operator @ block, expected @ block.double().numpy(), tolerance)
    assert_near(operator.row_sums(), expected.sum(1), tolerance)
    labels = torch.arange(n) % 6
    aggregated = operator.aggregate(labels, 7)  # with a column without entries
    assert aggregated.shape == (n, 7) and aggregated.nnz == int(aggregated.indptr[-1])
    assert_near(csr_ops.to_torch(aggregated).to_dense(), expected @ np.eye(7)[labels.numpy()], TOLERANCE[dtype])


def test_a_form_over_fewer_nodes_is_one_of_the_protocol():
    operator = made(lengths(), "lazy")
    assert isinstance(operator, GraphNodes) and operator.nbytes == operator.whole.nbytes + 8 * operator.shape[0]
    again = pickle.loads(pickle.dumps(operator))
    assert torch.equal(again.to_dense(), operator.to_dense())
    assert not isinstance(made(holes(), "lazy"), GraphNodes)  # no node is left out


def test_lazy_has_the_bits_of_sparse(mask):
    stored, anew = made(mask, "sparse", torch.float32), made(mask, "lazy", torch.float32)
    block = right_hand_side(stored.shape[0], 16, dtype=torch.float32, device=torch.device("cpu"))
    assert torch.equal(stored @ block, anew @ block)
    assert all(torch.equal(*pair) for pair in zip(stored.to_csr()[:3], anew.to_csr()[:3], strict=True))


@pytest.mark.parametrize("storage", ["sparse", "lazy", "tiles"])
def test_a_full_mask_has_the_bits_of_none(storage):
    options = {"n_landmark": 40, "random_state": 0, "storage": storage, "device": "cpu"}
    plain = MMPHATE(**options).fit(as_trace(values()))
    full = MMPHATE(**options).fit(as_trace(values(), mask=np.ones((E, T, M, P), bool)))
    assert torch.equal(plain.embedding_, full.embedding_) and torch.equal(plain.landmark_op_, full.landmark_op_)
    assert plain.bandwidth_ == full.bandwidth_ and torch.equal(full.graph_nodes_, torch.arange(N))


def test_hidden_values_do_not_matter(mask, storage):
    full = np.broadcast_to(mask if mask.ndim == 4 else mask[None, :, None], values().shape)
    hidden = np.where(full, values(), [np.nan, np.inf, 1e30, 0, -7, 1, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = multislice_affinity(as_trace(hidden, mask=mask), storage=storage, device="cpu")
    assert torch.equal(other.to_dense(), made(mask, storage).to_dense())


@pytest.mark.parametrize("backend", ["scipy", "keops", "pynndescent"])
def test_backends_that_need_every_sample_are_refused(backend):
    with pytest.raises(InputError, match=f"knn_backend='{backend}' cannot search masked samples; accepted"):
        made(lengths(), "sparse", knn_backend=backend)


def test_the_torch_backend_finds_the_same_entries(mask):
    assert torch.equal(made(mask, "sparse", knn_backend="torch").to_dense() > 0, made(mask, "sparse").to_dense() > 0)
