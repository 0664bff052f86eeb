"""Settings of the user in torch, NumPy and Python change no bit of a result, and a call does not change them."""

from __future__ import annotations

import contextlib
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
from mmphate_gpu.runtime.isolation import isolated

from . import public_calls
from .public_calls import CALLS, FIT, NOT_CALLED, WIDE, fit


def bits(value: Any) -> Any:
    """Types, shapes and bytes of a result, which are equal for equal results."""
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


# ---------------------------------------------------------------- settings of the user


class _Passing(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


class _Rounding(TorchFunctionMode):
    """A mode that changes results: it rounds new results to half precision, and does not change views."""

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
    """All settings that a call could change."""
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
    # torch.use_deterministic_algorithms loads SymPy, which adds a filter of warnings. pytest restores the filters.
    assert changes(before) <= {"warnings"}


# ---------------------------------------------------------------- tests


def test_every_exported_function_is_called():
    text = Path(public_calls.__file__).read_text(encoding="utf-8")
    assert {name for name in mp.__all__ if f"mp.{name}(" not in text} == NOT_CALLED


# These calls run every stage. Under "several at once" all calls are made.
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
    # 512 terms of at most 1, each with a rounding of 2^-24. The rounding of bfloat16, where it is supported, is 2^-9.
    assert float((product - exact).abs().max()) < 512 * 2**-23


def test_the_last_thread_to_leave_restores_the_settings_of_the_process():
    """The settings of the isolation stay while another thread is inside."""
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


def test_fits_in_threads_restore_the_filters_of_warnings():
    before = list(warnings.filters)
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(bits(fit()))) for _ in range(4)]
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
