"""Kills of a recording at any moment, after which ``resume=True`` continues to the recording of an unbroken run."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import mmphate_gpu
from mmphate_gpu import Recorder, Trace, load_trace

N_EPOCHS = 16 if sys.argv[1:2] == ["random"] else 5
# What a snapshot asks the system for, as Python names it.
EVENTS = {"open", *(f"os.{call}" for call in ("mkdir", "rename", "remove", "rmdir", "truncate", "scandir", "listdir"))}


def run(tmp_path: Path, *arguments: object) -> dict[str, int]:
    """A process with one thread imports torch and the package once, and forks for each recording."""
    root = Path(mmphate_gpu.__file__).parents[1]
    env = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX signals")


@posix
@pytest.mark.parametrize("n_kills", [6, pytest.param(40, marks=pytest.mark.slow)])
def test_kills_at_random_moments(tmp_path, n_kills):
    counts = run(tmp_path, "random", n_kills)
    assert counts["kills"] == n_kills and counts["went on"] > n_kills / 3, counts


@posix
def test_kills_at_every_step_of_a_snapshot(tmp_path):
    """The process is killed before the first thing that a snapshot asks of the system, before the second, ..."""
    counts = run(tmp_path, "steps")
    assert counts["lost"] > 10 and counts["kept"] == 1, counts  # kept: before the line in the list is flushed


# ---------------------------------------------------------------- in the process that forks


def train(path: str, finished: Callable[[float], None], dies: Callable[[float], None] = lambda epoch: None) -> None:
    """Train a small network from its start, and record it; ``finished`` is called after each snapshot."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.GRU(2, 5, batch_first=True))
    data, probe = torch.randn(40, 8, 2), torch.randn(6, 8, 2)
    with Recorder(model, "0", probe, path=path, resume=True, lengths=[8, 3, 5, 8, 1, 8]) as recorder:
        for epoch in range(N_EPOCHS):
            loss = (model(data)[0].cumsum(1) - data.sum(2, keepdim=True)).square().mean()
            dies(epoch)
            recorder.snapshot(epoch, loss=loss.item())
            finished(epoch)
            gradients = torch.autograd.grad(loss, [*model.parameters()])
            with torch.no_grad():  # torch.optim imports the compiler, which takes seconds in each process
                for weight, gradient in zip(model.parameters(), gradients, strict=True):
                    weight -= 0.02 * gradient


def forked(work: Callable[[], None]) -> int:
    process = os.fork()
    if process == 0:
        try:
            work()
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            os._exit(1)
        os._exit(0)
    return process


def recorded(path: str, die: Callable[[float], None] = lambda epoch: None, seconds: float = 0) -> tuple[bool, float]:
    """Record in a process that is killed after ``seconds``, if any: whether it was, and its last finished epoch."""
    reading, writing = os.pipe()
    process = forked(lambda: train(path, lambda epoch: os.write(writing, bytes([int(epoch)])) and None, die))
    os.close(writing)
    if seconds:
        time.sleep(seconds)
        os.kill(process, signal.SIGKILL)
    with os.fdopen(reading, "rb") as pipe:
        epochs = pipe.read()
    status = os.waitpid(process, 0)[1]
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return os.WIFSIGNALED(status), epochs[-1] if epochs else -1


def check(path: str, truth: Trace, last: float) -> int:
    """Check that no finished snapshot is lost and each is that of the unbroken run; how many there are."""
    if not Path(path, "snapshots.jsonl").exists():
        assert last == -1
        return 0
    trace = load_trace(path)
    n = trace.n_epochs
    assert trace.epoch.tolist() == [*range(n)] and n > last, (trace.epoch, last)
    expected = truth.subsample(epochs=slice(0, n))
    assert torch.equal(trace.data, expected.data) and torch.equal(trace.mask, expected.mask)
    assert np.array_equal(trace.metrics["loss"], expected.metrics["loss"])
    return n


def unbroken() -> tuple[Trace, float]:
    """The trace of a run without a kill, and its seconds."""
    start = time.monotonic()
    assert recorded("unbroken") == (False, N_EPOCHS - 1)
    return load_trace("unbroken"), time.monotonic() - start


def complete(path: str, truth: Trace) -> None:
    """Go on to the end, and check that nothing is left of the kills."""
    assert recorded(path) == (False, N_EPOCHS - 1)
    assert check(path, truth, N_EPOCHS - 1) == N_EPOCHS
    assert {*os.listdir(path)} == {*os.listdir("unbroken")}


def random_kills(n_kills: int) -> dict[str, int]:
    random.seed(0)
    truth, seconds = unbroken()
    counts = {"kills": 0, "went on": 0}
    for folder in map(str, itertools.count()):
        n = 0
        while counts["kills"] < n_kills and n < N_EPOCHS:
            was_killed, last = recorded(folder, seconds=random.uniform(0, 0.6 * seconds))
            counts["kills"] += was_killed
            n = check(folder, truth, last)
            counts["went on"] += 0 < n < N_EPOCHS  # the next run does
        complete(folder, truth)
        if counts["kills"] == n_kills:
            return counts


def steps() -> Iterator[int]:
    """Numbers of a step before which to kill, until a snapshot has no more."""
    truth, _ = unbroken()
    for step in range(1, 200):
        folder = str(step)
        was_killed, last = recorded(folder, lambda epoch, step=step: epoch == 3 and kill_before(step))
        assert not was_killed or last in (2, 3)
        if not was_killed or last == 3:
            complete(folder, truth)
            return
        yield check(folder, truth, last)
        complete(folder, truth)


def kill_before(step: int) -> None:
    left, flush = [step], os.fsync

    def hook(event: str, arguments: tuple = ()) -> None:
        left[0] -= event in EVENTS
        if not left[0]:
            signal.raise_signal(signal.SIGKILL)

    sys.addaudithook(hook)
    os.fsync = lambda descriptor: hook("open") or flush(descriptor)


def main(how: str, n_kills: str = "0") -> dict[str, int]:
    warnings.simplefilter("error")
    if how == "random":
        return random_kills(int(n_kills))
    kept = [*steps()]
    return {"kills": len(kept), "lost": kept.count(3), "kept": kept.count(4)}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
