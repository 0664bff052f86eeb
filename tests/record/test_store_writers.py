"""One process at a time writes to a folder, and its lock ends with it."""

from __future__ import annotations

import copy
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import mmphate_gpu as mp
from mmphate_gpu import InputError, load_trace
from mmphate_gpu.record.folder import FolderStore
from mmphate_gpu.runtime import lock

from .stores import add, recorded, resumed, same

HOLD = """
import sys
from pathlib import Path
from mmphate_gpu.runtime.lock import WriterLock
WriterLock(Path(sys.argv[1], ".lock")).acquire()
print("held", flush=True)
sys.stdin.read()
"""


def holder(folder):
    """A process that holds the lock of a folder until it is killed."""
    env = os.environ | {"PYTHONPATH": str(Path(mp.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    return process


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_writer_of_the_process_is_refused(tmp_path, resume):
    first, second = (FolderStore(tmp_path / "run", resume=resume) for _ in range(2))
    first.open()
    for epochs in ((), (0, 1)):
        add(first, *epochs)
        with pytest.raises(InputError, match=rf"is being recorded by process {os.getpid()} on {platform.node()}; acc"):
            second.open()
    first.close()
    assert same(load_trace(tmp_path / "run"), 0, 1)
    resumed(tmp_path / "run").close()


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
    folder = recorded(tmp_path / "run", 0, 1)
    process = holder(folder)
    with pytest.raises(InputError, match=rf"being recorded by process {process.pid} on {platform.node()}"):
        resumed(folder)
    assert same(load_trace(folder), 0, 1)  # reading needs no lock
    process.kill()
    process.communicate()
    store = resumed(folder)
    add(store, 2)
    assert same(store.trace(), 0, 1, 2)


def test_a_store_that_was_forked_or_closed_does_not_write(tmp_path):
    store = FolderStore(tmp_path / "run", resume=False)
    store.open()
    add(store, 0)
    lock._release_all()
    with pytest.raises(InputError, match="is closed, or was opened by the process that forked this one"):
        add(store, 1)


def test_two_copies_of_one_store_do_not_mix(tmp_path):
    store = FolderStore(tmp_path / "run", resume=False)
    store.open()
    add(store, 0)
    other = copy.copy(store)
    other._listed = dict(store._listed)
    add(store, 1)
    with pytest.raises(InputError, match="holds another recorder's snapshots"):
        add(other, 1, seed=1)
    add(store, 2)
    assert same(store.trace(), 0, 1, 2)


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    """There the folder of two writers goes to the one that writes first."""

    def refuse(descriptor):
        raise OSError("no locks")

    monkeypatch.setattr(lock, "take", refuse)
    first, second = (FolderStore(tmp_path / "run", resume=False) for _ in range(2))
    first.open()
    second.open()
    add(first, 0)
    with pytest.raises(InputError, match="holds another recorder's snapshots"):
        add(second, 0)
    add(first, 1)
    assert same(first.trace(), 0, 1)
