"""The suite where the native part is switched off: the portable versions serve everything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
# Nothing in these asks what serves, or they run the package in processes of their own.
OWN_PROCESSES = ("examples", "cli", "doctests")
LEFT_OUT = (*(f"test_{name}.py" for name in OWN_PROCESSES), "twins/test_cuda_*", "benchmarks/*")


@pytest.mark.slow
def test_the_suite_without_the_native_part(tmp_path):
    left_out = [f"--ignore-glob={TESTS / name}" for name in LEFT_OUT]
    options = ["-q", "-m", "not slow", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "inner"), *left_out]
    command = [sys.executable, "-m", "pytest", *options, str(TESTS)]
    env = {**os.environ, "MMPHATE_GPU_NATIVE": "0"}
    done = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, (done.stdout + done.stderr)[-10_000:]
