"""The suite with the native part switched off: the portable versions run everything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
# These do not depend on the native part, or they run the package in other processes.
LEFT_OUT = ("examples/*", "cli/*", "architecture/test_doctests.py", "twins/test_cuda_*", "benchmarks/*")


@pytest.mark.slow
def test_the_suite_without_the_native_part(tmp_path):
    left_out = [f"--ignore-glob={TESTS / name}" for name in LEFT_OUT]
    options = ["-q", "-m", "not slow", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "inner"), *left_out]
    command = [sys.executable, "-m", "pytest", *options, str(TESTS)]
    env = {**os.environ, "MMPHATE_GPU_NATIVE": "0"}
    done = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, (done.stdout + done.stderr)[-10_000:]
