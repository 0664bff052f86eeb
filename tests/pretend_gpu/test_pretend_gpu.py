"""The code around the CUDA kernels, on the pretended GPU: `tests.pretend_gpu.device` says what that is.

The tests are in the folder ``inside``. They run in a process of their own, because a process
either has the pretended GPU or has not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from .environment import environment

INSIDE = Path(__file__).parent / "inside"
TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
SECONDS = 7200  # the longest takes half an hour; a run that hangs is ended

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or shutil.which("g++") is None, reason="needs Linux, and g++ on PATH"),
    pytest.mark.skipif(torch.backends.cuda.is_built(), reason="this torch was built for a GPU"),
    pytest.mark.skipif(not torch.__version__.startswith("2.13."), reason="written for the headers of torch 2.13"),
]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the compiled libraries, which all workers share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "pretended_gpu"
    folder.mkdir(exist_ok=True)
    return folder


def run_pytest(folder: Path, *arguments: str | Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    options = [
        "-q",
        "--tb=short",
        "-p",
        "no:cacheprovider",
        f"--rootdir={ROOT}",
        f"--config-file={ROOT / 'pyproject.toml'}",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *map(str, arguments)],
        env=kept | environment(folder),
        capture_output=True,
        text=True,
        cwd=folder,  # not the checkout, which Python would take mmphate_gpu from
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-5000:]


def test_it_has_the_rules_of_a_gpu(folder):
    run_pytest(folder, INSIDE / "rules.py")


def test_fits_give_the_pictures_of_the_cpu(folder):
    run_pytest(folder, INSIDE / "fits.py", "-m", "not slow")


@pytest.mark.slow
def test_fits_with_other_options_give_the_pictures_of_the_cpu(folder):
    run_pytest(folder, INSIDE / "fits.py", "-m", "slow")


@pytest.mark.slow
def test_the_tests_that_need_a_gpu_pass(folder):
    run_pytest(folder, "-m", "cuda and not slow", TESTS)
