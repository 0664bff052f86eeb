"""Scratch folders of dead processes are deleted, and no others."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mmphate_gpu as mp
from mmphate_gpu import load_trace, save_trace
from mmphate_gpu.runtime.atomic import scratch, whole, whole_file, whole_folder

from .written import TRACE, abandoned, names, posix


def test_scratch_folders_of_dead_processes_are_deleted(tmp_path):
    for name in ("a.npz", "a" * 240 + ".npz"):
        (abandoned(tmp_path / name) / name).write_bytes(b"half")
        abandoned(tmp_path / name).joinpath(
            scratch._lock_name()
        ).unlink()  # as of a process that ended before it made the lock
        abandoned(tmp_path / name, new="half")
        save_trace(tmp_path / name, TRACE[:3])
        assert names(tmp_path) == {name}
        (tmp_path / name).unlink()


def test_scratch_of_the_living_stays(tmp_path):
    with whole_file(tmp_path / "a.npz", overwrite=True) as outer:
        save_trace(tmp_path / "a.npz", TRACE[:3])
        assert names(tmp_path) == {"a.npz", outer.parent.name}
        save_trace(outer, TRACE)
    assert load_trace(tmp_path / "a.npz").n_epochs == 30 and names(tmp_path) == {"a.npz"}


@posix
def test_scratch_of_a_living_process_stays_whatever_its_number(tmp_path):
    """Another process that is alive holds the lock; its process number is not used."""
    script = (
        "import sys; from pathlib import Path; from mmphate_gpu.runtime.atomic import scratch; "
        "print(scratch.new_scratch(Path(sys.argv[1]))[0], flush=True); input()"
    )
    env = os.environ | {"PYTHONPATH": str(Path(mp.__file__).parents[1])}
    command = [sys.executable, "-c", script, str(tmp_path / "a.npz")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
        folder = Path(process.stdout.readline().strip())
        save_trace(tmp_path / "a.npz", TRACE)
        assert folder.is_dir()
        process.kill()
        process.wait()
        save_trace(tmp_path / "a.npz", TRACE, overwrite=True)
        assert names(tmp_path) == {"a.npz"}


def elsewhere(folder):
    lock = folder / scratch._lock_name()
    lock.rename(folder / "mmphate-gpu.another_host.0123.lock")


def without_lock(folder):
    (folder / scratch._lock_name()).unlink()
    (folder / "a.npz").write_bytes(b"half")


NOT_SWEPT = {
    "of another host": elsewhere,
    "without a lock": without_lock,
    "with a file of the user": lambda folder: (folder / "notes.txt").write_text("mine"),
    "with two locks": lambda folder: (folder / "mmphate-gpu.b.c.lock").touch(),
    "of another file": lambda folder: folder.rename(folder.with_name(folder.name.replace(".a.npz", ".b.npz"))),
    "of another kind": lambda folder: folder.rename(folder.with_name(folder.name + "s")),
}


@pytest.mark.parametrize("case", NOT_SWEPT)
def test_what_is_not_ours_or_not_surely_dead_stays(tmp_path, case):
    NOT_SWEPT[case](abandoned(tmp_path / "a.npz"))
    before = {(path.relative_to(tmp_path), path.is_dir()) for path in tmp_path.rglob("*")}
    save_trace(tmp_path / "a.npz", TRACE)
    after = {(path.relative_to(tmp_path), path.is_dir()) for path in tmp_path.rglob("*")}
    assert after == {*before, (Path("a.npz"), False)}


def test_a_container_on_the_same_kernel_has_another_host_name(tmp_path, monkeypatch):
    if not scratch._boot():
        pytest.skip("a kernel that names its run")
    abandoned(tmp_path / "a.npz")
    monkeypatch.setattr(scratch.platform, "node", lambda: "another-container")
    save_trace(tmp_path / "a.npz", TRACE)
    assert names(tmp_path) == {"a.npz"}


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def refuse(lock):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    abandoned(tmp_path / "b.npz")
    monkeypatch.setattr(scratch, "take", refuse)
    for name in ("a.npz", "b.npz"):
        with whole_file(tmp_path / name, overwrite=False) as new:
            assert names(new.parent) == {scratch._lock_name()}
            new.write_text("whole")
    assert (tmp_path / "a.npz").read_text() == "whole" and len(names(tmp_path)) == 3


def test_a_maker_whose_folder_is_swept_makes_another(tmp_path, monkeypatch):
    take, made = scratch.take, []

    def late(lock):
        """Another process deletes the folder as abandoned before the process that made it has locked it."""
        made.append(lock)
        if len(made) == 1:
            (folder,) = tmp_path.glob(".a.*.partial")
            whole._clear(folder, scratch._lock_of_dead(folder), tmp_path / "a", whole.nothing)
        return take(lock)

    monkeypatch.setattr(scratch, "take", late)
    with whole_file(tmp_path / "a", overwrite=False) as new:
        new.write_text("whole")
    assert len(made) == 3 and names(tmp_path) == {"a"}


@posix
def test_the_old_folder_returns_after_a_kill_between_two_renames(tmp_path, monkeypatch):
    """Where the system cannot exchange names, the next write puts the old folder back."""
    script = """
import os, sys
from pathlib import Path
from mmphate_gpu.runtime.atomic import rename, whole
rename._system_call = lambda how: None
move, calls = whole.move, []
def dies(source, target):
    calls.append(target)
    if len(calls) == 2:
        os._exit(9)
    move(source, target)
whole.move = dies
with whole.whole_folder(Path(sys.argv[1]), overwrite=True) as new:
    new.mkdir()
    (new / "text").write_text("new")
"""
    path = tmp_path / "a"
    path.mkdir()
    (path / "text").write_text("old")
    env = os.environ | {"PYTHONPATH": str(Path(mp.__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", script, str(path)], env=env).returncode == 9
    assert not path.exists()
    with pytest.raises(RuntimeError, match="stop"), whole_folder(path, overwrite=True):
        raise RuntimeError("stop")
    assert (path / "text").read_text() == "old" and names(tmp_path) == {"a"}


def test_an_old_folder_is_put_back_only_if_the_new_one_did_not_arrive(tmp_path):
    path = tmp_path / "a"
    for contents, result in (
        ({"old": "1", "ready": "2"}, "1"),
        ({"old": "1"}, "new"),  # the new folder was in place, and the user has moved it away
        ({"ready": "2"}, "new"),
        ({"new": "half", "old": "1"}, "new"),
    ):
        abandoned(path, **contents)
        with contextlib.suppress(RuntimeError), whole_folder(path, overwrite=True) as new:
            if path.exists():
                raise RuntimeError("there again")
            new.mkdir()
            (new / "text").write_text("new")
        assert (path / "text").read_text() == result and names(tmp_path) == {"a"}
        (path / "text").unlink()
        path.rmdir()
