"""The C++ twins under the address and undefined-behaviour sanitizers: the tests of test_cpu_twins.py, clean."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmphate_gpu.ops.launch import native

ROOT = native.PACKAGE.parent
SOURCES = ROOT / "CMakeLists.txt"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SOURCES.exists(), reason="needs the sources beside the package"),
    pytest.mark.skipif(not all(map(shutil.which, ("cmake", "g++"))), reason="needs cmake and g++"),
]


def run(*command: str | Path, **env: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, **env})
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-10_000:]
    return said


def sanitizer(name: str) -> str | None:
    """Path of the sanitizer's runtime; None where the compiler comes without."""
    path = run("g++", f"-print-file-name=lib{name}.so").strip()
    return path if Path(path).is_absolute() else None


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sources as they are, into a folder of its own."""
    if sanitizer("asan") is None or sanitizer("ubsan") is None:
        pytest.skip("g++ comes without sanitizers")
    folder = tmp_path_factory.mktemp("sanitized")
    run("cmake", "-S", ROOT, "-B", folder, "-DMMPHATE_SANITIZE=ON", "-DCMAKE_CXX_COMPILER=g++")
    run("cmake", "--build", folder)
    return folder / native.LIBRARY


def with_sanitizers(library: Path, *arguments: str | Path) -> str:
    return run(
        *(sys.executable, *arguments),
        LD_PRELOAD=f"{sanitizer('asan')} {sanitizer('ubsan')}",
        # torch and Python keep what they allocate; what is read or written beside an array is meant here.
        ASAN_OPTIONS="detect_leaks=0:abort_on_error=0",
        UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1",
        PYTHONPATH=str(ROOT),
        **{native.PATH_VARIABLE: str(library), native.SWITCH: "1"},
    )


OVERRUN = """
import ctypes, torch
from mmphate_gpu.ops import native
assert native.why_no_native() is None
points, counts = torch.zeros(1, 40, 3, dtype=torch.float64), torch.zeros(1, 39, dtype=torch.int64)
native.call("radius_count", "dl", points, 1, 40, 3, 1.0, counts)
"""


def test_sanitizers_are_on(library):
    """One count more than there is room for: or the test below would prove nothing."""
    with pytest.raises(AssertionError, match="AddressSanitizer: heap-buffer-overflow"):
        with_sanitizers(library, "-c", OVERRUN)


def test_twins_are_clean(library):
    """Everything but what starts another process or looks at the library itself. Measured: 54 s to build, 90 to run."""
    tests = Path(__file__).with_name("test_cpu_twins.py")
    leave_out = "not fit and not built and not library and not switched and not installed"
    said = with_sanitizers(library, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests, "-k", leave_out)
    assert " passed" in said and "skipped" not in said
    assert "AddressSanitizer" not in said and "runtime error" not in said
