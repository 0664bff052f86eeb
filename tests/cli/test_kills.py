"""Kills of ``embed`` at any moment: the old or the new result, whole, and nothing else after the next run."""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import mmphate_gpu as mp
from mmphate_gpu.cli import main

N_KILLS = {"anywhere": 60, "pictures": 40, "saving": 100}
OLD, NEW = 1, 2  # seeds


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX signals")
def test_killed_processes_leave_the_old_or_the_new_result(tmp_path):
    """A process with one thread imports the package once, and forks for each command, so that torch is loaded once."""
    env = os.environ | {"PYTHONPATH": str(Path(mp.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=1000)
    assert done.returncode == 0, done.stderr
    kills = json.loads(done.stdout.splitlines()[-1])
    assert {phase: kills[phase] for phase in N_KILLS} == N_KILLS
    assert kills["none"] and kills["old"] and kills["new"] and kills["swept by plot"], kills


def embed(seed: int, *options: str) -> list[str]:
    return ["embed", "small.npy", "--out", "r", "--device", "cpu", f"--seed={seed}", *options]


def start(argv: list[str]) -> int:
    """Start a command in a forked process."""
    process = os.fork()
    if process == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        os._exit(main(argv))
    return process


def complete(argv: list[str]) -> None:
    """Run a command to its end, and check that it has left no scratch in the folder of results."""
    assert os.waitstatus_to_exitcode(os.waitpid(start(argv), 0)[1]) == 0
    assert {*os.listdir("r")} <= {*json.loads(Path("r/report.json").read_text())["files"]}, os.listdir("r")


def killed(process: int, phase: str, seconds: float) -> bool:
    """Kill ``process`` at a random moment, and say whether it was still alive."""
    if phase == "saving":
        first_file()
    time.sleep(random.uniform(0, seconds))
    os.kill(process, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(process, 0)[1])


def check(seeds: set[int], coordinates: dict[int, np.ndarray]) -> int | None:
    """Check that the result is whole, and return its seed; None if there is no result."""
    assert all(name in ("small.npy", "r") or name.endswith(".partial") for name in os.listdir()), os.listdir()
    if not os.path.lexists("r"):
        return None
    report = json.loads(Path("r/report.json").read_text())
    names = {name for name in os.listdir("r") if not (name.startswith(".panels.png.") and name.endswith(".partial"))}
    assert report["seed"] in seeds and {"embedding.npz", "report.json"} <= names <= {*report["files"]}, names
    np.testing.assert_array_equal(mp.Embedding.load("r/embedding.npz").coordinates, coordinates[report["seed"]])
    for name in names:
        assert not name.endswith(".png") or Path("r", name).read_bytes()[-12:] == b"\0\0\0\0IEND\xaeB`\x82", name
    return report["seed"]


def first_file() -> None:
    """Wait until a run saves its first file."""
    until = time.monotonic() + 10
    while not list(Path().glob(".r.*.partial/r/*")) and time.monotonic() < until:
        pass


def seconds_to_save() -> float:
    """The shortest time of three runs from their first file to their end, in seconds."""
    shortest = 60.0
    for _ in range(3):
        process = start(embed(NEW, "--force", "--no-plots"))
        first_file()
        started = time.monotonic()
        os.waitpid(process, 0)
        shortest = min(shortest, time.monotonic() - started)
    return shortest


def run_all() -> dict[str, int]:
    random.seed(0)
    np.save("small.npy", np.random.default_rng(0).normal(size=(10, 5, 4, 6)).cumsum(0))
    coordinates, seconds = {}, {}
    for seed, options in ((OLD, ()), (NEW, ("--force",)), (NEW, ("--force", "--no-plots"))):
        started = time.monotonic()
        complete(embed(seed, *options))
        seconds[options] = time.monotonic() - started
        coordinates[seed] = mp.Embedding.load("r/embedding.npz").coordinates
    assert not np.array_equal(coordinates[OLD], coordinates[NEW])
    counts = dict.fromkeys(["none", "old", "new", "swept by plot", *N_KILLS], 0)
    for phase, number in N_KILLS.items():
        options = () if phase == "pictures" else ("--no-plots",)
        span = seconds_to_save() if phase == "saving" else seconds[("--force", *options)]
        while counts[phase] < number:  # a run may end before it is killed
            force = counts[phase] % 2 == 1
            if force:
                complete(embed(OLD, "--force", "--no-plots"))
            else:
                subprocess.run(["rm", "-r", "r"], check=True)
            alive = killed(start(embed(NEW, *options, *(["--force"] if force else []))), phase, span)
            seed = check({OLD, NEW}, coordinates)
            assert seed in ((OLD, NEW) if force else (None, NEW))
            counts[{None: "none", OLD: "old", NEW: "new"}[seed]] += alive
            counts[phase] += alive
            if seed is not None and phase == "pictures":
                counts["swept by plot"] += any(name.startswith(".") for name in os.listdir("r"))
                complete(["plot", "r"])
                assert check({seed}, coordinates) == seed
            complete(embed(NEW, "--force", "--no-plots"))
            assert check({NEW}, coordinates) == NEW and {*os.listdir()} == {"small.npy", "r"}, os.listdir()
    return counts


if __name__ == "__main__":
    for name in ("estimator", "trace", "plots.scatter", "plots.curve"):
        importlib.import_module(f"mmphate_gpu.{name}")
    for name in ("figure", "backends.backend_agg", "font_manager"):
        importlib.import_module(f"matplotlib.{name}")
    print(json.dumps(run_all()))
