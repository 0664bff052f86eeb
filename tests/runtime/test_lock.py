"""The lock of a folder: an error names the process that holds it, and a forked child does not keep it."""

from __future__ import annotations

import os
import sys

import pytest

from mmphate_gpu import InputError
from mmphate_gpu.runtime import lock
from mmphate_gpu.runtime.lock import WriterLock

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX")


def test_a_lock_is_given_back(tmp_path):
    first, second = WriterLock(tmp_path / ".lock"), WriterLock(tmp_path / ".lock")
    first.acquire()
    assert first.held
    with pytest.raises(InputError, match=rf"{tmp_path.name} is being recorded by process {os.getpid()} on "):
        second.acquire()
    assert not second.held
    for _ in range(2):
        first.release()
    second.acquire()
    assert second.held and not first.held


@posix
def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    """A data loader's workers are such children, and may live on when the training has ended."""
    held = WriterLock(tmp_path / ".lock")
    held.acquire()
    copied = os.dup(held._descriptor)  # what a child has of it
    lock._release_all()  # what the child does
    assert not held.held
    with pytest.raises(InputError, match="is being recorded"):  # by the parent
        WriterLock(tmp_path / ".lock").acquire()
    os.close(copied)
    WriterLock(tmp_path / ".lock").acquire()


@posix
def test_a_lock_of_an_unknown_holder(tmp_path):
    held = WriterLock(tmp_path / ".lock")
    held.acquire()
    (tmp_path / ".lock").write_bytes(b"")
    with pytest.raises(InputError, match="is being recorded by another process"):
        WriterLock(tmp_path / ".lock").acquire()
