"""The tests of the C++ twins pass under the address and undefined-behavior sanitizers."""

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
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-10_000:]
    return output


def sanitizer(name: str) -> str | None:
    """The path of the sanitizer's runtime, or None if the compiler has none."""
    path = run("g++", f"-print-file-name=lib{name}.so").strip()
    return path if Path(path).is_absolute() else None


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, built from the sources into a temporary folder."""
    if sanitizer("asan") is None or sanitizer("ubsan") is None:
        pytest.skip("g++ has no sanitizers here")
    folder = tmp_path_factory.mktemp("sanitized")
    run("cmake", "-S", ROOT, "-B", folder, "-DMMPHATE_SANITIZE=ON", "-DCMAKE_CXX_COMPILER=g++")
    run("cmake", "--build", folder)
    return folder / native.LIBRARY


def with_sanitizers(library: Path, *arguments: str | Path) -> str:
    return run(
        *(sys.executable, *arguments),
        LD_PRELOAD=f"{sanitizer('asan')} {sanitizer('ubsan')}",
        # torch and Python do not free all memory. This test is for reads and writes outside an array.
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
native.call("radius_count", "dl", points, 1, 40, 3, 0, 1.0, counts)
"""


def test_sanitizers_are_on(library):
    """They report a count that has no room. Otherwise the test below would prove nothing."""
    with pytest.raises(AssertionError, match="AddressSanitizer: heap-buffer-overflow"):
        with_sanitizers(library, "-c", OVERRUN)


def test_twins_are_clean(library):
    """All tests of the C++ twins, except those of the library itself. Measured: 54 s to build, 90 s to run."""
    tests = sorted(set(Path(__file__).parent.glob("test_cpp_*.py")) - {Path(__file__).with_name("test_cpp_library.py")})
    output = with_sanitizers(library, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
    assert " passed" in output and "skipped" not in output
    assert "AddressSanitizer" not in output and "runtime error" not in output
