"""What is flushed to the disk, and how often."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

import mmphate_gpu as mp
from mmphate_gpu.runtime.atomic import scratch, whole_folder

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def flushed(monkeypatch):
    """The inodes that are flushed, in order."""
    inodes, plain = [], os.fsync

    def fsync(descriptor):
        inodes.append(os.fstat(descriptor).st_ino)
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return inodes


@posix
def test_every_file_of_a_folder_is_flushed(here, flushed):
    with whole_folder(Path("a"), overwrite=False) as new:
        for name in ("x", "x/y", "z"):
            (new / name).mkdir(parents=True)
            (new / name / "text").write_text("")
    inodes = {path.stat().st_ino for path in [here, *here.rglob("*")]}
    assert inodes == {*flushed} and len(flushed) == 8


@posix
def test_a_snapshot_costs_no_more_in_a_long_recording(here, flushed, monkeypatch):
    """Three flushes (snapshot, folder, list), and no listing of the files, which would become longer and longer."""
    model = torch.nn.GRU(2, 3, batch_first=True)
    with mp.Recorder(model, "", probe=torch.zeros(6, 10, 2), path="run") as recorder:
        recorder.snapshot(0)
        flushed.clear()
        monkeypatch.setattr(os, "listdir", None)
        recorder.snapshot(1)
        monkeypatch.undo()
    paths = ["run/snapshot_000001.npy", "run", "run/snapshots.jsonl"]
    assert flushed == [(here / path).stat().st_ino for path in paths]


def test_the_first_snapshot_removes_what_a_killed_recorder_left(here):
    for name in ("meta.json", "snapshot_000000.npy"):
        Path("run").mkdir(exist_ok=True)
        scratch.unlock(scratch.new_scratch(Path("run", name).absolute())[1])
    with mp.Recorder(torch.nn.GRU(2, 3, batch_first=True), "", probe=torch.zeros(6, 10, 2), path="run") as recorder:
        recorder.snapshot(0)
    assert {*os.listdir("run")} == {".lock", "meta.json", "snapshots.jsonl", "snapshot_000000.npy"}
