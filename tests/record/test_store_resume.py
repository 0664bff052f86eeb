"""``resume=True`` continues a recording, also after a crash, and refuses what does not fit it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmphate_gpu import InputError, Recorder, join_traces, load_trace
from mmphate_gpu.record.folder import FolderStore
from mmphate_gpu.runtime.atomic import scratch
from mmphate_gpu.trace.formats import recording

from .stores import M, P, T, add, recorded, resumed, same


def test_a_recording_continues(tmp_path):
    folder = recorded(tmp_path / "run", 0, 1)
    for epoch in (2, 3):
        store = resumed(folder)
        assert store.epochs == [*range(epoch)]
        add(store, epoch)
        store.close()
    assert same(load_trace(folder), 0, 1, 2, 3) and same(store.trace(), 0, 1, 2, 3)


@pytest.mark.parametrize("stream", [False, True])
def test_two_folders_of_one_run_are_joined(tmp_path, stream):
    folders = recorded(tmp_path / "first", 0, 1, 2), recorded(tmp_path / "second", 3, 4)
    assert same(join_traces([load_trace(folder, stream=stream) for folder in folders]), 0, 1, 2, 3, 4)


def test_a_folder_that_is_new_or_empty_is_begun(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new/deeper"):
        store = resumed(tmp_path / name)
        assert store.epochs == []
        add(store, 0, 1)
        assert same(store.trace(), 0, 1)


@pytest.mark.parametrize("rest", [b"{", b'{"epoch": 2, "file"', b"\0" * 300])
def test_part_of_a_line_that_a_crash_has_left(tmp_path, rest):
    folder = recorded(tmp_path / "run", 0, 1)
    with (folder / recording.LIST).open("ab") as file:
        file.write(rest)
    assert same(load_trace(folder), 0, 1)
    store = resumed(folder)
    add(store, 2)
    assert same(store.trace(), 0, 1, 2)


def test_a_snapshot_whose_line_a_crash_has_prevented_is_written_again(tmp_path):
    folder = recorded(tmp_path / "run", 0, 1)
    (folder / "snapshot_000002.npy").write_bytes(b"of an epoch that nobody knows")
    assert same(load_trace(folder), 0, 1)
    store = resumed(folder)
    add(store, 2)
    assert same(store.trace(), 0, 1, 2)


def test_a_crash_before_the_first_snapshot(tmp_path):
    folder = recorded(tmp_path / "run", 0)
    (folder / recording.LIST).unlink()
    for left in ({"meta.json", "snapshot_000000.npy"}, {"meta.json"}, set()):
        for item in folder.iterdir():
            if item.name not in left:
                item.unlink()
        store = resumed(folder)
        assert store.epochs == []
        store.close()
    add_again = resumed(folder)
    add(add_again, 0, 1)
    assert same(add_again.trace(), 0, 1)


def test_scratch_of_a_killed_process_is_removed(tmp_path):
    folder = recorded(tmp_path / "run", 0)
    scratch.unlock(scratch.new_scratch(folder / "snapshot_000001.npy")[1])
    store = resumed(folder)
    add(store, 1, 2)
    assert same(store.trace(), 0, 1, 2) and not [*folder.glob("*.partial")]


# What differs, as the sentence has it.
OTHERS = {
    "layers": ({"layers": ("encoder",)}, "layers=['encoder', 'decoder'], and this snapshot has ['encoder']"),
    "dtype": ({"dtype": np.float16}, "dtype='float32', and this snapshot has 'float16'"),
    "timestep": ({"timestep": np.arange(T)}, "timestep=[0, 3, 6, 9], and this snapshot has [0, 1, 2, 3]"),
    "unit": ({"unit": np.arange(M) + 1}, "unit=[0, 1, 2, 3, 4], and this snapshot has [1, 2, 3, 4, 5]"),
    "unit_layer": ({"unit_layer": np.array(["decoder"] * M)}, "unit_layer=[['encoder', 3], ['decoder', 2]], and this"),
    "mask": ({"mask": None}, "and this snapshot has None; accepted: the same mask, or another folder"),
    "label": ({"label": np.arange(P)}, "label=[0, 1, 0, 1, 0, 1], and this snapshot has [0, 1, 2, 3, 4, 5]"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_does_not_fit_is_named(tmp_path, name):
    changes, sentence = OTHERS[name]
    folder = recorded(tmp_path / "run", 0, 1)
    store = resumed(folder)
    with pytest.raises(InputError) as caught:
        add(store, 2, **changes)
    message = str(caught.value)
    assert f"{folder} was recorded with {name}=" in message and sentence in message
    assert message.endswith("; the snapshots so far (2) are kept")
    add(store, 2)
    assert same(store.trace(), 0, 1, 2)


def test_another_shape_is_named(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(2, 3, batch_first=True)

        def forward(self, x):
            return self.rnn(x)[0]

    with Recorder(Net(), "rnn", torch.zeros(4, 5, 2), path=tmp_path / "run") as recorder:
        recorder.snapshot(0)
    with (
        Recorder(Net(), "rnn", torch.zeros(4, 6, 2), path=tmp_path / "run", resume=True) as recorder,
        pytest.raises(InputError, match=r"was recorded with shape=\[5, 3, 4\], and this snapshot has \[6, 3, 4\]"),
    ):
        recorder.snapshot(1)


def test_a_recorder_leaves_out_what_the_folder_has(tmp_path):
    torch.manual_seed(0)
    model, x = nn.GRU(2, 3, batch_first=True), torch.randn(4, 5, 2)
    for first, last in ((0, 3), (1, 6)):
        with Recorder(model, "", x, path=tmp_path / "run", resume=True) as recorder:
            taken = [recorder.snapshot(epoch, loss=0.5) for epoch in range(first, last)]
    assert taken == [False, False, True, True, True] and recorder.epochs == [0, 1, 2, 3, 4, 5]
    assert load_trace(tmp_path / "run").epoch.tolist() == [0, 1, 2, 3, 4, 5]


# ---------------------------------------------------------------- version 1


@pytest.fixture
def version_1(tmp_path):
    """A folder as the first version wrote it: no list, no checksums, the mask and the labels in files."""
    folder = tmp_path / "run"
    folder.mkdir()
    states = np.random.default_rng(0).normal(size=(3, T, M, P)).astype(np.float32)
    arrays = {f"snapshot_{number:06d}": snapshot for number, snapshot in enumerate(states)}
    arrays |= {"mask": np.arange(T)[:, None] <= np.arange(P)[None, :], "label": np.arange(P)}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    meta = {"format": "mmphate-gpu recording", "version": 1, "layer": "rnn", "recorder": "0123456789abcdef" * 2}
    meta |= {"epoch": [0, 5, 7.5], "files": [f"snapshot_{number:06d}.npy" for number in range(3)]}
    (folder / "meta.json").write_text(json.dumps(meta | {"extra": ["label", "mask"]}, indent=1))
    return folder, states


@pytest.mark.parametrize("stream", [False, True])
def test_a_folder_of_version_1_loads(version_1, stream):
    folder, states = version_1
    trace = load_trace(folder, stream=stream)
    assert np.array_equal(np.asarray(trace.data), states) and trace.epoch.tolist() == [0, 5, 7.5]
    assert trace.label.tolist() == [*range(P)] and np.asarray(trace.mask)[0, :, 0].sum() == 18
    assert trace.unit_layer is None and not trace.metrics
    (folder / "snapshot_000001.npy").unlink()
    with pytest.raises(InputError, match=r"that of epoch 5 \(snapshot_000001\.npy is missing\)"):
        load_trace(folder, stream=stream)
    with pytest.warns(RuntimeWarning, match=r"that of epoch 5 \(snapshot_000001\.npy is missing\)"):
        assert load_trace(folder, stream=stream, damaged="skip").epoch.tolist() == [0, 7.5]


def test_a_folder_of_version_1_cannot_be_resumed(version_1):
    folder, _ = version_1
    with pytest.raises(InputError, match="is a recording of version 1, which cannot be continued; .*version 2"):
        resumed(folder)
    assert {item.name for item in folder.iterdir()} >= {"meta.json", "mask.npy"}
    FolderStore(folder.with_name("next"), resume=True).open()


# ---------------------------------------------------------------- disks that take no more


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 kB, in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if os.name != "posix" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_keeps_the_snapshots_so_far(small_disk):
    store = resumed(small_disk / "run")
    add(store, 0, 1)
    rest = small_disk / "rest"
    rest.write_bytes(b"0" * 2**17)
    kept = 2
    with pytest.raises(
        InputError, match=r"cannot be written \(No space left on device\); the snapshots so far \(\d+\)"
    ):
        for epoch in range(2, 100):
            add(store, epoch)
            kept += 1
    assert same(load_trace(small_disk / "run"), *range(kept))
    rest.unlink()
    add(store, kept)
    assert same(store.trace(), *range(kept + 1))
    store.close()
    assert same(resumed(small_disk / "run").trace(), *range(kept + 1))


def test_a_folder_that_may_only_be_read(small_disk):
    folder = recorded(small_disk / "run", 0, 1)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for path in (folder, small_disk / "new"):
        with pytest.raises(InputError, match=r"cannot be written \(Read-only file system\)"):
            resumed(path)
    assert same(load_trace(folder), 0, 1) and not Path(small_disk, "new").exists()


def test_a_list_that_cannot_grow_stays_whole(tmp_path, monkeypatch):
    """The disk is full in the middle of a line, or its flush fails."""
    store = resumed(tmp_path / "run")
    add(store, 0, 1)
    before = (tmp_path / "run" / recording.LIST).read_bytes()
    flush, inode = os.fsync, (tmp_path / "run" / recording.LIST).stat().st_ino

    def fail(descriptor):
        if os.fstat(descriptor).st_ino == inode:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(descriptor)

    for failing in range(2):
        with monkeypatch.context() as patch, pytest.raises(InputError, match=r"snapshots\.jsonl cannot be written"):
            patch.setattr(os, "fsync", fail)
            add(store, 2)
        assert (tmp_path / "run" / recording.LIST).read_bytes() == before, failing
    add(store, 2)
    assert same(store.trace(), 0, 1, 2)
