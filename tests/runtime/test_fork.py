"""A forked process does not wait for the OpenMP threads of its parent, which it does not have."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mmphate_gpu as mp
from mmphate_gpu.runtime.isolation import _ProcessWide

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_a_forked_process_computes_on_one_thread_and_warns_once(two_threads, recwarn):
    forked = _ProcessWide(forked=True)
    for _ in range(2):
        with forked, forked:
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    (warning,) = recwarn
    assert "this process was forked, so it computes on 1 thread" in str(warning.message)
    with _ProcessWide():
        assert torch.get_num_threads() == 2


def test_nothing_is_said_of_a_single_thread(two_threads, recwarn):
    torch.set_num_threads(1)
    with _ProcessWide(forked=True):
        assert torch.get_num_threads() == 1
    assert not recwarn


SCRIPT = """
import multiprocessing, os, sys, warnings
import numpy as np, torch
torch.set_num_threads(2)
from mmphate_gpu import MMPHATE
trace = np.random.default_rng(0).normal(size=(60, 20, 12)).cumsum(0)

def fit():
    warnings.simplefilter("ignore")
    points = MMPHATE(n_landmark=200, random_state=0, device="cpu").fit(trace).embedding_
    np.save(str(os.getpid()), points)

if {first!r} == "fit":
    fit()
else:
    torch.randn(2000, 2000) @ torch.randn(2000, 2000)
process = multiprocessing.get_context("fork").Process(target=fit)
process.start()
process.join(120)
hangs = process.is_alive()
process.kill()
sys.exit("hangs" if hangs else process.exitcode)
"""


@pytest.mark.slow
@pytest.mark.parametrize("first", ["fit", "torch"])
def test_a_fit_after_a_fork_ends(tmp_path, first):
    """OpenMP would wait without end for the threads of the parent, after a fit and after torch's own products."""
    env = os.environ | {"PYTHONPATH": str(Path(mp.__file__).parents[1])}
    env.pop("OMP_NUM_THREADS", None)
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT.format(first=first)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("*.npy"))) == (2 if first == "fit" else 1)
