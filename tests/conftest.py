"""The devices, a guard for KeOps, and the traces whose affinity is compared with the float64 reference."""

from __future__ import annotations

import os

# Waiting threads may not spin: if other work shares the cores, spinning makes small products three times as slow. torch
# reads the variable when it is imported.
os.environ["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")
# Processes that share the cores (pytest -n) get their share of the threads.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    os.environ["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
# The threads of NumPy always spin, and the references in tests are small, so NumPy gets one thread.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ.get("OPENBLAS_NUM_THREADS", "1")

import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from mmphate_gpu import reference
from mmphate_gpu.runtime.keops import why_no_keops
from mmphate_gpu.trace import as_trace, flat_points, normalize, trace_points
from mmphate_gpu.trace.pca import reduce

# KeOps compiles every formula again for another number of features, so all cases are reduced to this number.
N_FEATURES = 5

_DEVICES = ["cpu"] + [pytest.param("cuda", marks=pytest.mark.cuda)] * torch.cuda.is_available()


@pytest.fixture(params=_DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU, and the GPU if there is a GPU."""
    return torch.device(request.param)


@pytest.fixture(scope="session")
def keops() -> None:
    """Skip the test if KeOps cannot run: it is not installed, or no C++ compiler can compile its formulas."""
    reason = why_no_keops()
    if reason is not None:
        pytest.skip(reason)


# ---------------------------------------------------------------- traces


@dataclass(frozen=True)
class Case:
    """A trace with the options of its affinity. Methods give its points and its affinity by the reference."""

    trace: np.ndarray  # (E, T, M, P) or (S, M, P)
    options: dict[str, Any] = field(default_factory=dict)
    normalize: bool = True
    mask: np.ndarray | None = None

    def points(self, device: torch.device | str = "cpu") -> torch.Tensor:  # (S, M, D) float64
        trace = as_trace(self.trace, mask=self.mask)
        points = normalize(trace) if self.normalize else flat_points(trace)
        return reduce(points, N_FEATURES).to(device)

    def resolution(self, device: torch.device | str = "cpu") -> torch.Tensor:  # (S, M) float64
        return trace_points(as_trace(self.trace, mask=self.mask), normalize=self.normalize).resolution.to(device)

    def reference_affinity(self) -> np.ndarray:  # (N, N)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="interslice_knn=.* is clamped")
            return reference.multislice_affinity(
                self.trace, n_pca=N_FEATURES, normalize=self.normalize, mask=self.mask, **self.options
            )


def walk(*shape: int, seed: int = 0) -> np.ndarray:
    """A random walk along the first axis."""
    return np.cumsum(np.random.default_rng(seed).normal(size=shape), axis=0)


def _bifurcation(scenario: str) -> Case:
    from mmphate_gpu.datasets import bifurcation

    # The suite at small size, 168 slices, and in float64, so that both sides normalize in float64. The tests of traces
    # check the normalization in float32.
    return Case(bifurcation(scenario, n_epochs=12, n_timesteps=14, n_samples=5).data.double().numpy())


def _dead(trace: np.ndarray, *units: int) -> np.ndarray:
    trace = trace.copy()
    trace[..., list(units), :] = 0.1  # the rounding of its mean is not 0
    return trace


def _lattice() -> np.ndarray:
    """Points on a small integer lattice. Nearly every distance occurs many times, and the squares are exact."""
    return np.random.default_rng(3).integers(0, 3, (40, 5, 5)).astype(float)


CASES: dict[str, Callable[[], Case]] = {
    "walk": lambda: Case(walk(30, 5, 5)),
    "walk, four axes": lambda: Case(walk(6, 7, 6, 5)),
    "hopf": lambda: _bifurcation("hopf"),
    "hopf and pitchfork": lambda: _bifurcation("hopf_pitchfork"),
    "PCA": lambda: Case(walk(40, 6, 30)),
    "PCA, unnormalized": lambda: Case(walk(40, 6, 30), normalize=False),
    "repeated slices": lambda: Case(np.repeat(walk(15, 5, 5), 3, axis=0)),
    "mostly one slice": lambda: Case(np.concatenate([np.repeat(walk(1, 5, 5), 40, axis=0), walk(6, 5, 5, seed=1)])),
    "repeated units": lambda: Case(np.repeat(walk(30, 3, 5), 2, axis=1)),
    "all units alike": lambda: Case(np.repeat(walk(30, 1, 5), 4, axis=1)),
    "all points equal": lambda: Case(np.broadcast_to(np.arange(5.0), (30, 4, 5)).copy()),
    "one dead unit": lambda: Case(_dead(walk(30, 5, 5), 1)),
    "three dead units": lambda: Case(_dead(walk(30, 5, 5), 0, 2, 4)),
    "all units dead": lambda: Case(_dead(walk(30, 3, 5), 0, 1, 2)),
    "lattice": lambda: Case(_lattice(), {"interslice_knn": 7}, normalize=False),
    "huge": lambda: Case(1e8 * walk(30, 5, 5)),
    "huge, unnormalized": lambda: Case(1e8 * walk(30, 5, 5), normalize=False),
    "tiny": lambda: Case(1e-8 * walk(30, 5, 5)),
    "tiny, unnormalized": lambda: Case(1e-8 * walk(30, 5, 5), normalize=False),
    # After converged training slices differ only in their last digits.
    "converged": lambda: Case(1 + 1e-9 * walk(30, 5, 5), normalize=False),
    "decay=None": lambda: Case(walk(30, 7, 5), {"decay": None, "intraslice_knn": 3}),
    "decay=None, repeated units": lambda: Case(
        np.tile(walk(30, 3, 5), (1, 3, 1)), {"decay": None, "intraslice_knn": 3}
    ),
    "decay=None, one unit": lambda: Case(walk(30, 1, 5), {"decay": None}),
    "decay=2.5": lambda: Case(walk(30, 7, 5), {"decay": 2.5}),
    "decay=40": lambda: Case(walk(30, 7, 5), {"decay": 40}),
    "decay=0.001": lambda: Case(walk(30, 4, 5), {"decay": 0.001}),
    "thresh=0.01": lambda: Case(walk(30, 7, 5), {"thresh": 0.01}),
    # A one-sided intraslice entry is cut below 0.3, and its half is cut again after the averaging.
    "thresh=0.3": lambda: Case(walk(30, 7, 5), {"thresh": 0.3}),
    "wide neighborhoods": lambda: Case(walk(30, 7, 5), {"intraslice_knn": 4, "interslice_knn": 29}),
    "more units than intraslice_knn allows": lambda: Case(walk(30, 3, 5), {"intraslice_knn": 9}),
    "one unit": lambda: Case(walk(30, 1, 5)),
    "two units": lambda: Case(walk(30, 2, 5)),
    "two slices": lambda: Case(walk(2, 5, 5)),
    "twenty slices": lambda: Case(walk(20, 5, 5)),
    "masked": lambda: Case(walk(6, 7, 6, 5), mask=np.arange(7)[:, None] < np.array([7, 7, 6, 5, 4])),
}


@cache
def _case(name: str) -> tuple[Case, np.ndarray]:
    case = CASES[name]()
    affinity = case.reference_affinity()
    affinity.flags.writeable = False
    return case, affinity


@pytest.fixture(params=list(CASES))
def case_and_reference(request: pytest.FixtureRequest) -> tuple[Case, np.ndarray]:
    """Each case with its reference affinity (N, N)."""
    return _case(request.param)


@pytest.fixture(scope="session")
def get_case() -> Callable[[str], tuple[Case, np.ndarray]]:
    """A function that returns a case and its reference affinity by name."""
    return _case


_READ_EACH = """
import resource, sys
from mmphate_gpu import InputError, load_trace
honest, *damaged = sys.argv[1:]
for stream in (False, True) if honest else ():
    load_trace(honest, stream=stream).load()
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in damaged:
    for stream in (False, True):
        try:
            load_trace(path, stream=stream).load()
            print("read", path)
        except InputError:
            pass
scale = 2**20 if sys.platform == "darwin" else 2**10
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) // scale)
"""


@pytest.fixture
def memory_of_refusals() -> Callable[..., int]:
    """A function that reads damaged files in a new process, as a stream and whole.

    It returns the MiB that this takes beyond reading the file ``honest``. Each damaged file must be refused by an
    `InputError`, and the process must survive.
    """
    pytest.importorskip("resource")  # which Windows lacks

    def measured(damaged: list[Any], honest: Any = "") -> int:
        command = [sys.executable, "-c", _READ_EACH, *map(str, [honest, *damaged])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    return measured
