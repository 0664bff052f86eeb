"""How kernels are handed to CuPy: a stand-in for CuPy takes the calls, so this runs where no GPU is."""

from __future__ import annotations

import contextlib
import inspect
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mmphate_gpu.ops import _cuda, _native, radius_affinity, tile_matmul, twins  # noqa: F401 - they define their ops
from mmphate_gpu.ops._sources import kernel_source
from mmphate_gpu.ops.twins import PORTABLE


class FakeCupy:
    """Keeps what was compiled and started, and under which device and stream."""

    def __init__(self) -> None:
        self.modules: list[dict[str, Any]] = []
        self.calls: list[dict[str, Any]] = []
        self.within: list[tuple[str, int]] = []
        self.cuda = SimpleNamespace(Device=self._entering("device"), ExternalStream=self._entering("stream"))

    def _entering(self, what: str) -> Any:
        @contextlib.contextmanager
        def enter(value: int) -> Any:
            self.within.append((what, value))
            yield
            self.within.pop()

        return enter

    def RawModule(self, **given: Any) -> Any:
        self.modules.append(given)

        def get_function(name: str) -> Any:
            def kernel(grid: tuple[int], block: tuple[int], arguments: tuple[Any, ...], *, shared_mem: int = 0) -> None:
                found = {"grid": grid, "block": block, "arguments": arguments, "shared": shared_mem}
                self.calls.append({"name": name, "within": list(self.within), **found})

            return kernel

        return SimpleNamespace(get_function=get_function)


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> FakeCupy:
    fake = FakeCupy()
    monkeypatch.setattr(_cuda, "require", lambda *_, **__: fake)
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: SimpleNamespace(cuda_stream=1234))
    _cuda._kernel.cache_clear()
    yield fake
    _cuda._kernel.cache_clear()


def _launch(**changes: Any) -> _cuda.Launch:
    given = {"blocks": 7, "threads": 64, "shared_bytes": 96, "defines": {"MMP_VALUE": "float", "MMP_INDEX": "mmp_i32"}}
    return _cuda.Launch("radius_affinity", "radius_fill", (torch.ones(3), 5, 0.5, None), **{**given, **changes})


def test_a_launch_reaches_cupy(cupy: FakeCupy) -> None:
    launch = _launch()
    _cuda.start_with_cupy(launch, torch.device("cuda", 1))
    (call,) = cupy.calls
    assert (call["name"], call["grid"], call["block"], call["shared"]) == ("radius_fill", (7,), (64,), 96)
    assert call["within"] == [("device", 1), ("stream", 1234)]
    # Eight bytes each: pointers, int64, float64.
    assert [type(argument) for argument in call["arguments"]] == [np.uint64, np.int64, np.float64, np.uint64]
    assert call["arguments"] == (launch.arguments[0].data_ptr(), 5, 0.5, 0)


def test_the_module_is_compiled_once_a_device(cupy: FakeCupy) -> None:
    for index in (0, 0, 1):
        _cuda.start_with_cupy(_launch(), torch.device("cuda", index))
    _cuda.start_with_cupy(_launch(defines={}), torch.device("cuda", 0))
    assert len(cupy.calls) == 4 and len(cupy.modules) == 3
    module = cupy.modules[0]
    assert module["backend"] == "nvrtc" and module["code"] == kernel_source("radius_affinity")
    assert module["options"] == ("--std=c++17", "--fmad=false", "-DMMP_INDEX=mmp_i32", "-DMMP_VALUE=float")


def test_nothing_is_started_for_nothing() -> None:
    def start(launch: _cuda.Launch, device: torch.device) -> None:
        raise AssertionError(launch.kernel)

    twins = _cuda.Twins(start)
    assert twins.radius_counts(torch.empty(0, 5, 3, dtype=torch.float64), 1.0).shape == (0, 5)
    nothing = torch.zeros(1, dtype=torch.int32)
    assert twins.csr_matmul(nothing, nothing[:0], torch.ones(0), torch.ones(4, 16), 1).shape == (0, 16)


@pytest.mark.parametrize(
    "name",
    [
        "radius_counts",
        "radius_fill",
        "symmetrised_affinity",
        "kth_neighbor_distance",
        "median_kth_neighbor_distance",
        "csr_matmul",
        "landmark_aggregate",
        "guttman_transform",
    ],
)
def test_every_op_has_a_launcher_with_the_arguments_of_its_c_plus_plus_twin(name: str) -> None:
    ours, theirs = (inspect.signature(getattr(module, name)).parameters for module in (_cuda, _native))
    assert list(ours) == list(theirs)


def test_the_op_without_a_c_plus_plus_twin_has_the_arguments_of_its_portable_version() -> None:
    ours, theirs = (inspect.signature(one).parameters for one in (_cuda.descent_step, PORTABLE["descent_step"]))
    assert list(ours) == list(theirs)
    assert not hasattr(_native, "descent_step") and "no C++ twin" in twins.serving_op("descent_step", "cpu")


def cuda_that_fails(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """A CUDA device is there, and every compiler's probe raises ``error``."""

    class Broken:
        @staticmethod
        def probe() -> None:
            raise error

    monkeypatch.setattr(twins.importlib, "import_module", lambda *_: Broken)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(twins, "available", lambda name: True)
    monkeypatch.setattr(twins._native, "switched_off", lambda: False)


def test_a_cupy_that_cannot_compile_leaves_the_portable_version(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda_that_fails(monkeypatch, OSError("libnvrtc.so is missing"))
    monkeypatch.setattr(twins, "CUPY", twins.CudaCompiler("CuPy", "cupy", "._cuda"))
    launch = twins.CUPY.launcher("radius_counts")
    points = torch.arange(6.0, dtype=torch.float64).view(1, 6, 1)
    with pytest.warns(RuntimeWarning, match="portable torch versions serve on CUDA: .*OSError: libnvrtc"):
        assert launch(points, 1.5).tolist() == [[1, 2, 2, 2, 2, 1]]
    assert launch(points, 1.5).tolist() == [[1, 2, 2, 2, 2, 1]]  # and says so once
    assert "libnvrtc.so is missing" in twins.serving("cuda", twins.CUPY)
    assert not twins.serves(torch.device("cuda"))


def test_a_triton_that_cannot_compile_leaves_the_portable_version(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda_that_fails(monkeypatch, RuntimeError("PassManager::run failed"))
    compiler = twins.CudaCompiler("Triton", "triton", "._triton")
    assert compiler.why_not() is None  # nothing is tried before the first call
    tiles, one = torch.eye(128).half()[None], torch.zeros(1, dtype=torch.int32)
    arguments = (
        tiles,
        one,
        torch.tensor([0, 1]),
        torch.zeros(1, dtype=torch.int64),
        one,
        torch.ones(1, 128, 16).half(),
    )
    with pytest.warns(RuntimeWarning, match="portable .* serve on CUDA: Triton cannot compile here: .*PassManager"):
        assert torch.equal(compiler.launcher("tile_matmul")(*arguments), torch.ones(1, 128, 16))
    assert "PassManager" in compiler.why_not() and "PassManager" in twins.serving("cuda", compiler)


def test_the_switch_is_for_cuda_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twins._native, "switched_off", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert twins.why_no_cuda_twins() == "MMPHATE_GPU_NATIVE=0 in the environment"
