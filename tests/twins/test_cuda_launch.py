"""How the launchers call CuPy. A stand-in for CuPy takes the calls, so that no GPU is needed."""

from __future__ import annotations

import inspect
import threading
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from mmphate_gpu.ops.launch import kernel, twins
from mmphate_gpu.ops.launch.kernel import Launch
from mmphate_gpu.ops.launch.sources import kernel_names, kernel_source, source_of_kernel
from mmphate_gpu.ops.launch.twins import CPP, CUPY, PORTABLE, TRITON, CudaCompiler

from .emulation import Twins
from .fake_cupy import FakeCupy, without_cuda
from .waits import no_waits


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> FakeCupy:
    fake = FakeCupy()
    monkeypatch.setattr(kernel, "require_cupy", lambda **_: fake)
    monkeypatch.setattr(kernel, "_compiled", {})
    without_cuda(monkeypatch, devices=fake.devices)
    return fake


def fill(**changes: Any) -> Launch:
    types = {"MMP_VALUE": "float", "MMP_INDEX": "mmp_i32"}
    settings = {"blocks": 7, "threads": 64, "shared_bytes": 96, "defines": types} | changes
    return Launch("radius_affinity", "radius_fill", (torch.ones(3), 5, 0.5, None), **settings)


GPU = [torch.device("cuda", index) for index in range(2)]


def test_a_launch_reaches_cupy(cupy: FakeCupy) -> None:
    launch = fill()
    kernel.start_with_cupy(launch, GPU[1])
    (call,) = cupy.calls
    assert (call["name"], call["grid"], call["block"], call["shared_mem"]) == ("radius_fill", (7,), (64,), 96)
    assert call["device"] == 1 and call["stream"].ptr == 1234 and not cupy.devices
    # Pointers, int64 and float64 have eight bytes each.
    assert [type(argument) for argument in call["arguments"]] == [np.uint64, np.int64, np.float64, np.uint64]
    assert call["arguments"] == (launch.arguments[0].data_ptr(), 5, 0.5, 0)


def test_the_stand_in_warns_as_cupy_14_does(cupy: FakeCupy) -> None:
    """Otherwise the test above would not show that a launch uses nothing that version 14 deprecates."""
    with pytest.warns(DeprecationWarning, match="ExternalStream"):
        cupy.cuda.ExternalStream(1234)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DeprecationWarning):
            cupy.cuda.ExternalStream(1234)


def test_a_kernel_is_compiled_once_for_each_device(cupy: FakeCupy) -> None:
    for device in (GPU[0], GPU[0], GPU[1]):
        kernel.start_with_cupy(fill(), device)
    kernel.start_with_cupy(fill(defines={}), GPU[0])
    assert len(cupy.calls) == 4
    assert [module["device"] for module in cupy.modules] == [0, 1, 0]
    module = cupy.modules[0]
    assert module["backend"] == "nvrtc" and module["options"] == ("--std=c++17", "--fmad=false")
    assert module["code"] == source_of_kernel("radius_affinity", "radius_fill", fill().defines)


def test_the_compiled_text_has_one_kernel() -> None:
    text = source_of_kernel("radius_affinity", "radius_fill", {"MMP_VALUE": "float", "MMP_INDEX": "mmp_i32"})
    assert text.startswith("#define MMP_INDEX mmp_i32\n#define MMP_VALUE float\n")
    names = kernel_names("radius_affinity")
    assert len(names) == 3 and [name for name in names if f" {name}(const" in text] == ["radius_fill"]
    # The text loses nothing but the other kernels.
    whole, left = kernel_source("radius_affinity"), source_of_kernel("radius_affinity", "none", {})
    assert whole.count("MMP_KERNEL") - left.count("MMP_KERNEL") == 3
    assert "MMP_OUTLINED int drain" in left and left.count("{") == left.count("}")


def test_a_compiler_that_fails_is_called_again(cupy: FakeCupy) -> None:
    cupy.fault = RuntimeError("nvrtc: error")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="nvrtc: error"):
            kernel.start_with_cupy(fill(), GPU[0])
    cupy.fault = None
    kernel.start_with_cupy(fill(), GPU[0])
    assert len(cupy.modules) == 3 and len(cupy.calls) == 1


def test_compiling_ahead_waits_for_nothing_and_launches_nothing(cupy: FakeCupy) -> None:
    cupy.gate = threading.Event()
    kernel.begin_compiling([fill(), fill(), fill(defines={})], GPU[0])
    kernel.begin_compiling([fill()], GPU[0])  # it is being compiled already
    assert not cupy.calls
    late = threading.Timer(0.2, cupy.gate.set)
    late.start()
    kernel.start_with_cupy(fill(), GPU[0])  # waits for the thread that compiles it
    late.join()
    kernel.start_with_cupy(fill(defines={}), GPU[0])
    assert len(cupy.calls) == 2 and len(cupy.modules) == 2
    assert {module["thread"] for module in cupy.modules} == {"compiles radius_fill"}


def test_an_error_of_compiling_ahead_is_raised_at_the_launch(cupy: FakeCupy) -> None:
    cupy.fault = RuntimeError("nvrtc: error")
    kernel.begin_compiling([fill()], GPU[0])
    for _ in range(2):
        with pytest.raises(RuntimeError, match="nvrtc: error"):
            kernel.start_with_cupy(fill(), GPU[0])


def test_without_threads_the_caller_compiles(cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    kernel.begin_compiling([fill(), fill(defines={})], GPU[0])
    kernel.start_with_cupy(fill(), GPU[0])
    assert len(cupy.modules) == 2 and len(cupy.calls) == 1


def test_the_probe_compiles_what_every_run_needs(cupy: FakeCupy) -> None:
    kernel.probe()
    assert [module["code"] for module in cupy.modules] == [source_of_kernel("pair_screen", "pair_screen", {})]
    Twins(kernel.start_with_cupy).gpu.run(Launch("pair_screen", "pair_screen", (), 1, 1), GPU[0])
    assert len(cupy.modules) == 1


def test_nothing_is_started_for_nothing() -> None:
    def start(launch: Launch, device: torch.device) -> None:
        raise AssertionError(launch.kernel)

    twins = Twins(start)
    assert twins.radius_counts(torch.empty(0, 5, 3, dtype=torch.float64), 1.0).shape == (0, 5)
    nothing = torch.zeros(1, dtype=torch.int32)
    assert twins.csr_matmul(nothing, nothing[:0], torch.ones(0), torch.ones(4, 16), 1).shape == (0, 16)


@pytest.mark.parametrize(
    "name",
    [
        "radius_counts",
        "radius_fill",
        "symmetrized_affinity",
        "kth_neighbor_distance",
        "median_kth_neighbor_distance",
        "csr_matmul",
        "landmark_aggregate",
        "guttman_transform",
    ],
)
def test_every_op_has_a_launcher_with_the_arguments_of_its_c_plus_plus_twin(name: str) -> None:
    ours, theirs = (inspect.signature(launchers[name]).parameters for launchers in (CUPY.launchers, CPP))
    assert list(ours) == ["gpu", *theirs]


def test_the_op_without_a_c_plus_plus_twin_has_the_arguments_of_its_portable_version() -> None:
    versions = CUPY.launchers["descent_step"], PORTABLE["descent_step"]
    ours, theirs = (inspect.signature(version).parameters for version in versions)
    assert list(ours) == ["gpu", *theirs]
    assert "descent_step" not in CPP and "no C++ twin" in twins.serving_op("descent_step", "cpu")


def cuda_that_fails(monkeypatch: pytest.MonkeyPatch, compiler: CudaCompiler, error: Exception) -> None:
    """A CUDA device is there, and the probe of ``compiler``, which was not asked before, raises ``error``."""

    def probe() -> None:
        raise error

    monkeypatch.setattr(compiler, "probe", probe)
    monkeypatch.setattr(compiler, "_probed", False)
    monkeypatch.setattr(compiler, "_fault", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(twins, "available", lambda name: True)
    monkeypatch.setattr(twins.native, "switched_off", lambda: False)


def test_a_cupy_that_cannot_compile_leaves_the_portable_version(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda_that_fails(monkeypatch, CUPY, OSError("libnvrtc.so is missing"))
    launch = CUPY.launcher("radius_counts")
    points = torch.arange(6.0, dtype=torch.float64).view(1, 6, 1)
    with pytest.warns(RuntimeWarning, match="portable torch versions are used on CUDA: .*OSError: libnvrtc"):
        assert launch(points, 1.5).tolist() == [[1, 2, 2, 2, 2, 1]]
    assert launch(points, 1.5).tolist() == [[1, 2, 2, 2, 2, 1]]  # and warns only once
    assert "libnvrtc.so is missing" in twins.serving("cuda", CUPY)
    assert not twins.serves(torch.device("cuda"))


def test_a_triton_that_cannot_compile_leaves_the_portable_version(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda_that_fails(monkeypatch, TRITON, RuntimeError("PassManager::run failed"))
    assert TRITON.why_not() is None  # it compiles nothing before the first call
    tiles, zero = torch.eye(128).half()[None], torch.zeros(1, dtype=torch.int32)
    arguments = (
        tiles,
        zero,
        torch.tensor([0, 1]),
        torch.zeros(1, dtype=torch.int64),
        zero,
        torch.ones(1, 128, 16).half(),
    )
    with pytest.warns(RuntimeWarning, match="portable .* used on CUDA: Triton cannot compile here: .*PassManager"):
        assert torch.equal(TRITON.launcher("tile_matmul")(*arguments), torch.ones(1, 128, 16))
    assert "PassManager" in TRITON.why_not() and "PassManager" in twins.serving("cuda", TRITON)


def test_the_switch_is_for_cuda_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twins.native, "switched_off", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert CUPY.why_not() == "MMPHATE_GPU_NATIVE=0 in the environment"


def test_a_ban_on_waiting_ends_even_if_torch_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call sets the mode and then warns, and every warning is an error here."""
    modes = ["default"]

    def set_mode(mode: str) -> None:
        modes.append(mode)
        if len(modes) == 2:
            warnings.warn("Synchronization debug mode is a prototype feature", UserWarning, stacklevel=2)

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)
    with no_waits():
        assert modes[-1] == "error"
    modes.clear()
    modes.append("default")
    with pytest.raises(ZeroDivisionError), no_waits():
        raise ZeroDivisionError
    assert modes == ["default", "error", "default"]
