"""The user's settings of torch, NumPy and Python change no bit of a result, and stay as they are."""

from __future__ import annotations

import contextlib
import io
import random
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import mmphate_gpu as mp
from mmphate_gpu import datasets, plots, reference
from mmphate_gpu.diffusion import diffuse, knee
from mmphate_gpu.linalg.kmeans import kmeans
from mmphate_gpu.linalg.top_eigenpairs import top_eigenpairs
from mmphate_gpu.ops.launch import twins
from mmphate_gpu.runtime.isolation import isolated

# ---------------------------------------------------------------- what is called


def _walk(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).cumsum(0)


WIDE = _walk(30, 4, 6)
# Half of the units respond in the smallest normal numbers: their squares are denormal.
NARROW = (_walk(6, 5, 4, 5, seed=1) * np.array([1, 1e-19, 1, 1e-20])[:, None]).astype(np.float32)
FIT = {"n_landmark": 40, "random_state": 0, "device": "cpu"}
FITTED = ("landmark_op_", "transitions_", "clusters_", "von_neumann_entropy_", "diff_potential_")


def _fit(trace: Any = WIDE, **options: Any) -> list[Any]:
    model = mp.MMPHATE(**FIT | options)
    coordinates = model.fit_transform(trace)
    return [coordinates, model.stress_, model.transform(trace), *(getattr(model, name) for name in FITTED)]


def _masked() -> list[Any]:
    mask = np.arange(6) < np.array([6, 6, 4, 5])[:, None]
    trace = mp.as_trace(WIDE, mask=np.broadcast_to(mask, WIDE.shape), label=[0, 1, 0, 1, 2, 2])
    model = mp.MMPHATE(**FIT).fit(trace)
    shares = mp.neighborhood_preservation(trace, model.embedding_, [2, 5])
    return [model.embedding_, model.result_.most_active, shares]


def _affinity(storage: str) -> list[Any]:
    """Call every member of the operator, with float32 values and a vector in float64."""
    operator = mp.multislice_affinity(NARROW, storage=storage, device="cpu")
    vector = torch.from_numpy(np.sin(np.arange(len(NARROW) * 5 * 4.0)))
    linear = mp.as_linear_operator(operator) @ vector.numpy()
    sums = operator.row_sums(), operator.aggregate(torch.from_numpy(np.arange(120) % 7), 7)
    return [operator @ vector, linear, *sums, operator.to_dense(), mp.to_scipy(operator), mp.to_torch_csr(operator)]


def _stages() -> list[Any]:
    operator = mp.multislice_affinity(WIDE, device="cpu")
    landmarks = mp.landmark_diffusion(operator, n_landmark=30, random_state=0)
    whole = mp.landmark_diffusion(operator, n_landmark=None).landmark_op
    op = landmarks.landmark_op.numpy()
    potential = mp.diffusion_potential(op, 5)
    distances = mp.potential_distances(potential, "cosine")
    solved = mp.metric_mds(distances, solver="nonmetric", random_state=0)
    curve = mp.von_neumann_entropy(op)
    numbers = [mp.stress(distances, solved.coordinates), mp.optimal_t(op), knee(curve)]
    return [op, whole, potential, distances, solved.coordinates, curve, diffuse(op, 3), *numbers]


def _reference() -> list[Any]:
    result = reference.mmphate(WIDE[:27], n_landmark=40, random_state=0)
    return [value for value in vars(result).values() if isinstance(value, np.ndarray | float | int)]


def _drawn(figure: Any) -> np.ndarray:
    with io.BytesIO() as file:
        figure.savefig(file, format="raw", dpi=30)
        return np.frombuffer(file.getvalue(), dtype=np.uint8)


def _pictures() -> list[Any]:
    result = mp.MMPHATE(**FIT).fit(WIDE).result_
    return [_drawn(plots.panels(result)), _drawn(plots.entropy(result)), _drawn(plots.entropy(result.entropy))]


def _ops() -> list[Any]:
    """Call two ops that run in torch alone, in float32, and the portable versions of four that C++ runs here."""
    portable, points = twins.PORTABLE, torch.from_numpy(WIDE.transpose(1, 0, 2).copy())
    generator = torch.Generator("cpu").manual_seed(0)
    with isolated():
        rows = points.reshape(-1, 6).float()
        gram = rows @ rows.T
        results = [
            portable["radius_counts"](points, 2.0),
            portable["assign_nearest"](rows, rows[:3]),
            portable["kth_neighbor_distance"](points, 3),
            portable["guttman_transform"](torch.cdist(points[0], points[0]), points[0, :, :2], 0.0),
        ]
    pairs = top_eigenpairs(gram.matmul, 120, 3, dtype=torch.float32, generator=generator)
    return [*results, kmeans(rows, 9, generator=generator), *pairs]


CALLS: dict[str, Callable[[], list[Any]]] = {
    "fit float64": _fit,
    "fit float32": lambda: _fit(NARROW),
    "fit a tensor": lambda: _fit(torch.from_numpy(WIDE), landmarks="stratified", mds_solver="classic"),
    "fit tiles, PCA, links": lambda: _fit(storage="tiles", n_pca=3, decay=None, gamma=1, n_landmark=None),
    "fit lazy": lambda: _fit(NARROW, storage="lazy", normalize=False, gamma=-1, knn_backend="torch"),
    "M_PHATE": lambda: [mp.M_PHATE(**FIT, n_jobs=1).fit_transform(WIDE)],
    "masked": _masked,
    "affinity sparse": lambda: _affinity("sparse"),
    "affinity tiles": lambda: _affinity("tiles"),
    "affinity lazy": lambda: _affinity("lazy"),
    "stages": _stages,
    "datasets": lambda: [datasets.bifurcation("hopf_pitchfork", 4, 20, 3).data, datasets.random_walk(5, 3, 4).data],
    "plan": lambda: [
        str(mp.plan(mp.as_trace(WIDE), device=device)).splitlines()[1:9] for device in ("cpu", "9 GB card")
    ],
    "reference": _reference,
    "pictures": _pictures,
    "ops": _ops,
}
# These are exported, and no call above needs them.
NOT_CALLED = {
    *("Recorder", "load_trace", "save_trace"),  # of the model and of files: test_record, test_trace
    "to_cupy",  # on a GPU
    *("Trace", "Landmarks", "Embedding", "MDSResult", "Plan", "Params"),  # classes of inputs and results
    *("InputError", "InputTypeError", "show_config", "__version__"),
    *("datasets", "plots", "reference"),  # called by module
}


def bits(value: Any) -> Any:
    """What two equal results have in common: types, shapes and bytes."""
    if isinstance(value, torch.Tensor):
        with torch._C.DisableTorchFunction():
            return _bits_of_tensor(value)
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if hasattr(value, "indptr"):  # of SciPy, or a Csr
        return bits([value.indptr, value.indices, value.data if hasattr(value, "data") else value.values])
    return [bits(item) for item in value] if isinstance(value, list | tuple) else repr(value)


def _bits_of_tensor(tensor: torch.Tensor) -> Any:
    assert not tensor.is_inference() and not tensor.requires_grad
    if tensor.layout == torch.strided:
        return bits(tensor.numpy())
    return bits([part.numpy() for part in (tensor.values(), tensor.col_indices(), tensor.crow_indices())])


@cache
def plain(name: str) -> Any:
    return bits(CALLS[name]())


# ---------------------------------------------------------------- what a user sets


class _Passing(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


class _Rounding(TorchFunctionMode):
    """A mode that changes results: it rounds new results to halves, and leaves views as they are."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunction():
            rounds = isinstance(result, torch.Tensor) and result.is_floating_point() and not result._is_view()
            return result.half().to(result.dtype) if rounds else result


@contextlib.contextmanager
def _set(function: Callable[[Any], Any], value: Any, before: Any) -> Iterator[None]:
    function(value)
    try:
        yield
    finally:
        function(before)


@contextlib.contextmanager
def _raised_warnings() -> Iterator[None]:
    with warnings.catch_warnings(), _set(torch.set_warn_always, True, False):
        warnings.simplefilter("error")
        yield


def _set_tensor_type(tensor_type: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        torch.set_default_tensor_type(tensor_type)


@contextlib.contextmanager
def _products(function: Callable[[], None]) -> Iterator[None]:
    products = (torch.backends.mkldnn.matmul, torch.backends.cuda.matmul)
    before = [backend.fp32_precision for backend in products]  # which other tests may have set
    function()
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")
        for backend, precision in zip(products, before, strict=True):
            backend.fp32_precision = precision


def _set_mkldnn(enabled: bool) -> None:
    torch.backends.mkldnn.enabled = enabled


@contextlib.contextmanager
def _together(*names: str) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(STATES[name]())
        yield


STATES: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
    "default dtype float64": lambda: _set(torch.set_default_dtype, torch.float64, torch.float32),
    "default dtype float16": lambda: _set(torch.set_default_dtype, torch.float16, torch.float32),
    "default dtype bfloat16": lambda: _set(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "default tensor type": lambda: _set(_set_tensor_type, torch.DoubleTensor, torch.FloatTensor),
    "default device meta": lambda: _set(torch.set_default_device, "meta", None),
    "within a device": lambda: torch.device("meta"),
    "bfloat16 autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "float16 autocast": lambda: torch.autocast("cpu", dtype=torch.float16, cache_enabled=False),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "gradients off": lambda: _set(torch.set_grad_enabled, False, True),
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
    "deterministic": lambda: _set(torch.use_deterministic_algorithms, True, False),
    "medium products": lambda: _products(lambda: torch.set_float32_matmul_precision("medium")),
    "high products": lambda: _products(lambda: torch.set_float32_matmul_precision("high")),
    "bfloat16 products": lambda: _products(lambda: setattr(torch.backends.mkldnn.matmul, "fp32_precision", "bf16")),
    "TF32": lambda: _products(lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True)),
    "no oneDNN": lambda: _set(_set_mkldnn, False, True),
    "flushed denormals": lambda: _set(torch.set_flush_denormal, True, False),
    "a function mode": _Rounding,
    "a dispatch mode": _Passing,
    "checked sparse tensors": torch.sparse.check_sparse_tensor_invariants,
    "raised numpy errors": lambda: np.errstate(all="raise"),
    "numpy printing": lambda: np.printoptions(precision=1, threshold=2),
    "raised warnings": _raised_warnings,
    "few frames": lambda: _set(sys.setrecursionlimit, 400, sys.getrecursionlimit()),
    "several at once": lambda: _together(
        *("default dtype bfloat16", "default device meta", "bfloat16 autocast", "inference mode", "deterministic"),
        *("raised numpy errors", "raised warnings", "flushed denormals", "medium products", "a dispatch mode"),
    ),
}


def state() -> dict[str, Any]:
    """All settings that a call could leave changed."""
    from matplotlib import rcParams

    with torch._C.DisableTorchFunction():
        generators = torch.get_rng_state().numpy().tobytes(), repr(np.random.get_state()), random.getstate()
    return {
        "device": torch.get_default_device(),
        "dtype": torch.get_default_dtype(),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()),
        "autocast": [
            (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)) for device in ("cpu", "cuda")
        ],
        "autocast cache": torch.is_autocast_cache_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "products": (torch.backends.mkldnn.matmul.fp32_precision, torch.backends.cuda.matmul.fp32_precision),
        "oneDNN": torch.backends.mkldnn.enabled,
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "modes": (torch.overrides._len_torch_function_stack(), torch._C._len_torch_dispatch_stack()),
        "flushed": sys.float_info.min / 2 == 0,
        "numpy": (np.geterr(), np.get_printoptions()),
        "warnings": (list(warnings.filters), torch.is_warn_always_enabled()),
        "frames": sys.getrecursionlimit(),
        "random": generators,
        "matplotlib": dict(rcParams),
    }


def changes(before: dict[str, Any]) -> set[str]:
    after = state()
    return {key for key in before if after[key] != before[key]}


@pytest.fixture(autouse=True)
def _nothing_leaks() -> Iterator[None]:
    before = state()
    yield
    # pytest restores the filters of warnings; torch.use_deterministic_algorithms loads SymPy, which adds one.
    assert changes(before) <= {"warnings"}


# ---------------------------------------------------------------- tests


def test_every_exported_function_is_called():
    text = Path(__file__).read_text(encoding="utf-8")
    assert {name for name in mp.__all__ if f"mp.{name}(" not in text} == NOT_CALLED


# Calls in which every stage takes part. All calls are made under several states at once.
MOST = ("fit float32", "affinity tiles", "stages", "masked", "ops")


@pytest.mark.parametrize("name", STATES)
def test_no_bit_changes_and_the_state_stays(name):
    calls = CALLS if name == "several at once" else MOST
    wanted = {call: plain(call) for call in calls}
    with STATES[name]():
        before = state()
        for call in calls:
            assert bits(CALLS[call]()) == wanted[call], call
        assert changes(before) == set()


def test_results_under_inference_mode_are_ordinary_tensors():
    with torch.inference_mode():
        model = mp.MMPHATE(**FIT).fit(torch.from_numpy(WIDE))
        product = model.affinity_ @ torch.ones(120)
    for result in (model.embedding_, model.landmark_op_, product):
        result.mul_(2).requires_grad_().sum().backward()
        assert bool((result.grad == 1).all())


def test_tensors_made_under_inference_mode_are_accepted():
    with torch.inference_mode():
        trace, coordinates = torch.from_numpy(WIDE), torch.ones(120, 2)
        held = mp.as_trace(trace)
    for data in (trace, held):
        assert bits(mp.MMPHATE(**FIT).fit(data).embedding_) == bits(mp.MMPHATE(**FIT).fit(trace.clone()).embedding_)
    assert mp.neighborhood_preservation(trace, coordinates, 2)


# ---------------------------------------------------------------- what the isolation restores


def test_products_have_all_their_digits_inside():
    left, right = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (2, 256, 512))).float()
    exact = left.double() @ right.double().T
    with STATES["medium products"]():
        rough = left @ right.T
        with isolated():
            product = left @ right.T
        assert torch.equal(left @ right.T, rough)
    # 512 terms of at most 1, each rounded to 2^-24 of itself; bfloat16 keeps 2^-9, on the processors that have it.
    assert float((product - exact).abs().max()) < 512 * 2**-23


def test_the_last_thread_to_leave_restores_what_belongs_to_the_process():
    """The settings stay while another thread is inside, whichever came first."""
    precision = torch.backends.mkldnn.matmul
    with STATES["bfloat16 products"](), contextlib.ExitStack() as first:
        first.enter_context(isolated())
        inside, leave = threading.Event(), threading.Event()

        def second() -> None:
            with isolated():
                inside.set()
                leave.wait()

        thread = threading.Thread(target=second)
        thread.start()
        inside.wait()
        first.close()
        assert precision.fp32_precision == "ieee"
        leave.set()
        thread.join()
        assert precision.fp32_precision == "bf16"


def test_an_inherited_precision_is_inherited_again():
    inherit = _products(lambda: setattr(torch.backends.mkldnn.matmul, "fp32_precision", "none"))
    with inherit, _set(lambda value: setattr(torch.backends, "fp32_precision", value), "bf16", "none"):
        with isolated():
            assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
        torch.backends.fp32_precision = "tf32"
        assert torch.backends.mkldnn.matmul.fp32_precision == "tf32"


def test_fits_in_threads_leave_the_filters_of_warnings():
    before = list(warnings.filters)
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(bits(_fit()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [plain("fit float64")] * 4
    assert list(warnings.filters) == before


def test_an_error_restores_the_state_too():
    with STATES["several at once"]():
        before = state()
        with pytest.raises(mp.InputError):
            mp.MMPHATE(**FIT).fit(np.full((30, 4, 6), np.nan))
        assert changes(before) == set()
