"""Each damaged or hostile file is read, or refused with an `InputError` in one sentence, soon and in little memory.

A fault comes with a number. ``python tests/fuzz/worker.py FORMAT NUMBER`` shows what that file does.
"""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from . import pool
from .documents import CANARY, PICKLE
from .seeds import seeds_of

# The 20,000 mutations by format; readers with more code have more of them.
COUNTS = {"npy": 3000, "npz": 4000, "zarr": 4500, "h5": 4500, "recording": 2500, "embedding": 1500}
QUICK = 40
# Valid files that the package refuses on purpose: booleans as data, and values in other files.
REFUSED = {("npy", "bool"), ("h5", "links to other files, virtual")}


@pytest.fixture(scope="module")
def worker():
    pytest.importorskip("zarr")
    pytest.importorskip("h5py")
    with pool.Worker() as worker:
        yield worker


@pytest.mark.parametrize("format_name", COUNTS)
def test_honest_files_are_read(worker, format_name):
    for number, seed in enumerate(seeds_of(format_name), start=1):
        # The package zarr 2 reads no stores of version 3.
        newer = seed.name.startswith("version 3") and not hasattr(pytest.importorskip("zarr").Group, "create_array")
        for outcome in worker.ask(format_name, -number, pool.READERS.get(format_name, pool.BOTH)):
            refused = newer or (format_name, seed.name) in REFUSED or "cannot be read block by block" in outcome.detail
            assert outcome.outcome == ("refused" if refused else "ok"), outcome


@pytest.mark.parametrize("format_name", COUNTS)
def test_a_few_mutations(worker, format_name):
    readers = pool.READERS.get(format_name, pool.BOTH)
    outcomes = [outcome for number in range(QUICK) for outcome in worker.ask(format_name, number, readers)]
    assert len(outcomes) == QUICK * len(readers)
    assert not any(outcome.is_fault for outcome in outcomes), pool.summary(outcomes)
    assert any(outcome.outcome == "refused" for outcome in outcomes)


@pytest.mark.slow
@pytest.mark.parametrize("format_name", COUNTS)
def test_mutations(format_name):
    pytest.importorskip("zarr")
    pytest.importorskip("h5py")
    outcomes = pool.run(format_name, range(COUNTS[format_name]), n_workers=2)
    assert len(outcomes) == COUNTS[format_name] * len(pool.READERS.get(format_name, pool.BOTH))
    assert not any(outcome.is_fault for outcome in outcomes), pool.summary(outcomes)


def test_faulty_readers_are_caught():
    readers = ["wrong exception", "code run", "message", "hang", "blocked", "death"]
    if sys.platform == "linux":  # only Linux has the peak of the memory
        readers.insert(0, "memory")
    with pool.Worker(hang=2, longest=30) as worker:  # 2 GB may take a second of CPU time
        outcomes = worker.ask("npy", 0, [f"faulty: {reader}" for reader in readers])
    assert [outcome.outcome for outcome in outcomes] == [name.replace("blocked", "hang") for name in readers]
    assert all(outcome.is_fault for outcome in outcomes)
    summary = pool.summary(outcomes)
    assert "death x 1, npy 0 (faulty: death): exit code 3" in summary
    assert "wrong exception x 1, npy 0 (faulty: wrong exception): KeyError" in summary


def test_ways_of_reading_must_agree():
    memory = pool.Outcome("npy", 0, "memory", "ok", "", digest="a")
    parts = memory._replace(reader="parts")
    refused = {"outcome": "refused", "digest": ""}
    assert pool.held_together([memory, parts]) == [memory, parts]
    assert pool.held_together([memory, parts._replace(digest="b")])[1].is_fault
    assert pool.held_together([memory._replace(**refused, detail="broken"), parts])[1].is_fault
    assert pool.held_together([memory, parts._replace(**refused, detail="broken")])[1].is_fault
    assert not pool.held_together([memory, parts._replace(**refused, detail="cannot be read block by block")])[
        1
    ].is_fault


def test_a_planted_pickle_leaves_its_mark_once_it_is_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(PICKLE).close()
    assert [path.name for path in tmp_path.iterdir()] == [CANARY]


def test_the_program_shows_one_file(tmp_path):
    command = [sys.executable, str(pool.PROGRAM), "npy", "3", "--keep", str(tmp_path)]
    shown = subprocess.run(command, capture_output=True, text=True, env=pool.environment())
    assert shown.returncode == 0, shown.stderr
    assert "number 3 of npy, seed 'float64, 3 axes'" in shown.stdout
    assert "'outcome': 'refused'" in shown.stdout
    # The number always makes the same file, here of a version that .npy does not have.
    assert (tmp_path / "mutated-trace.npy").read_bytes()[:8] == b"\x93NUMPY\x04\x00"
