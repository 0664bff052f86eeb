"""The C++ library itself: what it refuses to read, where it is loaded from, and why it may not be used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from mmphate_gpu.ops.launch import native
from mmphate_gpu.ops.launch.twins import CPP

from .cases import normal
from .instruction_sets import needs_cpp

pytestmark = needs_cpp


NO_ENTRIES = torch.zeros(0, dtype=torch.int32), torch.zeros(0)
MISREAD = {
    "points of another device": lambda x: CPP["radius_counts"](x.to("meta"), 1.0),
    "float32 where doubles are read": lambda x: CPP["kth_neighbor_distance"](x.float(), 1),
    "bandwidths of another device": lambda x: CPP["symmetrized_affinity"](
        x, torch.ones(2, 9, dtype=torch.float64, device="meta"), 2.0, 0.0, 0.0, 1.0, torch.float64
    ),
    "int32 offsets beside int64 indices": lambda x: CPP["csr_matmul"](
        torch.tensor([0, 1], dtype=torch.int32), torch.tensor([0]), torch.ones(1), x[0], 1
    ),
    "gaps that are not contiguous": lambda x: CPP["radius_fill"](
        x, 1.0, 2.0, 0.0, 0, 9, torch.zeros(19, dtype=torch.int64), torch.zeros(36, dtype=torch.int64)[::2], *NO_ENTRIES
    ),
    "half precision": lambda x: CPP["assign_nearest"](x.half(), x.half()),
    "points and centers of two types": lambda x: CPP["assign_nearest"](x, x.float()),
    "distances in half precision": lambda x: CPP["guttman_transform"](x[0].half() @ x[0].half().T, x[0], 0.0),
}


@pytest.mark.parametrize("call", MISREAD.values(), ids=MISREAD)
def test_memory_that_cpp_would_misread_is_refused(call):
    with pytest.raises(native.NativeError, match=r"tensor \d is torch.*; accepted: torch.* on the CPU, contiguous"):
        call(normal(2, 9, 3))


@pytest.fixture
def afresh() -> Iterator[None]:
    """The library is loaded anew, before and after the test."""
    native.why_no_native.cache_clear(), native._library.cache_clear()
    yield
    native.why_no_native.cache_clear(), native._library.cache_clear()


def test_switched_off(afresh, monkeypatch):
    monkeypatch.setenv(native.SWITCH, "0")
    assert native.why_no_native() == "MMPHATE_GPU_NATIVE=0 in the environment"


def test_not_built(afresh, monkeypatch):
    monkeypatch.setattr(native, "_library_path", lambda: None)
    assert "libmmphate_cpu.so was not built" in str(native.why_no_native())


def test_built_from_other_sources(afresh, monkeypatch):
    monkeypatch.setattr(native, "_sources_stamp", lambda: "0" * 64)
    with pytest.warns(RuntimeWarning, match="the portable torch versions are used: .* built from other sources"):
        assert "build it again" in str(native.why_no_native())


def test_installed_without_sources(afresh, monkeypatch):
    """A wheel has no C++ sources, so there is no stamp to compare with."""
    monkeypatch.setattr(native, "_sources_stamp", lambda: None)
    assert native.why_no_native() is None


def test_no_library_at_all(afresh, monkeypatch, tmp_path):
    path = tmp_path / "libmmphate_cpu.so"
    path.write_text("not a library")
    monkeypatch.setenv(native.PATH_VARIABLE, str(path))
    with pytest.warns(RuntimeWarning, match="the portable torch versions are used: libmmphate_cpu.so does not load"):
        assert "does not load" in str(native.why_no_native())


def test_another_library(afresh, monkeypatch):
    """A library that loads, but has none of our functions."""
    monkeypatch.setenv(native.PATH_VARIABLE, torch._C.__file__)
    with pytest.warns(RuntimeWarning, match="the portable torch versions are used: .* has no entry point"):
        assert "has no entry point of the C++ twins" in str(native.why_no_native())


FIT = """
import json, numpy, sys, warnings
from mmphate_gpu import MMPHATE
from mmphate_gpu.ops.launch.native import why_no_native
trace = numpy.cumsum(numpy.random.default_rng(0).normal(size=(40, 8, 6)), axis=0)
model = MMPHATE(n_landmark=60, random_state=0, device="cpu").fit(trace)
embedding = numpy.asarray(model.embedding_)
print(json.dumps({"why": why_no_native(), "t": int(model.t_), "embedding": embedding.tolist()}))
"""


def fit_with(switch: str) -> dict:
    env = {**os.environ, native.SWITCH: switch, "PYTHONPATH": str(Path(native.PACKAGE).parent)}
    done = subprocess.run([sys.executable, "-c", FIT], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_fit_without_the_library_is_the_same():
    """A fit by the portable ops alone has the same t, and the same embedding up to rounding."""
    ours, portable = fit_with("1"), fit_with("0")
    assert ours["why"] is None and portable["why"] == "MMPHATE_GPU_NATIVE=0 in the environment"
    assert ours["t"] == portable["t"]
    first, other = np.array(ours["embedding"]), np.array(portable["embedding"])
    assert first.shape == other.shape and np.isfinite(first).all()
    # Measured: 6e-15 of the largest coordinate.
    np.testing.assert_allclose(first, other, rtol=0, atol=1e-9 * np.abs(first).max())
