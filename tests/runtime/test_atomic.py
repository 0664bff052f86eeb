"""Files and folders appear whole, whatever the system refuses and whoever writes at once."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import shutil
import stat
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from mmphate_gpu import Embedding, InputError, Recorder, load_trace, plots, save_trace
from mmphate_gpu.cli import main
from mmphate_gpu.runtime.atomic import PathExistsError, rename, scratch, whole, whole_file, whole_folder
from mmphate_gpu.slices import SliceLayout

from .written import TRACE, names, posix

EMBEDDING = Embedding(np.random.default_rng(1).normal(size=(5000, 2)), SliceLayout.of_shape(100, 5, 10))
WRITERS = {
    "a.npy": lambda path: save_trace(path, TRACE, overwrite=True),
    "a.npz": lambda path: save_trace(path, TRACE, overwrite=True),
    "a.h5": lambda path: save_trace(path, TRACE, overwrite=True),
    "a.zarr": lambda path: save_trace(path, TRACE, overwrite=True),
    "e.npz": lambda path: EMBEDDING.save(path, overwrite=True),
    "p.png": lambda path: plots.entropy([3.0, 2.0, 1.0], path=path),
    "p.pdf": lambda path: plots.entropy([3.0, 2.0, 1.0], path=path),
}


def need(name):
    module = {".h5": "h5py", ".zarr": "zarr"}.get(Path(name).suffix)
    if module:
        pytest.importorskip(module)


# ---------------------------------------------------------------- errors of the system


@contextlib.contextmanager
def largest_file(size):
    """Have the system refuse to write more than ``size`` bytes into a file."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@posix
@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_becomes_too_large(tmp_path, name):
    need(name)
    path = tmp_path / name
    for before in (set(), {name}):
        with largest_file(4000), pytest.raises(InputError, match=rf"{name} cannot be written \(File too large\)$"):
            WRITERS[name](path)
        gc.collect()  # a file that was left open would fail again when it is collected
        assert names(tmp_path) == before
        WRITERS[name](path)


def test_a_folder_goes_though_threads_still_write_into_it(tmp_path, monkeypatch):
    """As those of zarr, which go on after an error in one of them: the folder is not empty while it is deleted."""
    delete, late = shutil.rmtree, iter("abc")

    def rmtree(item, **options):
        delete(item, **options)
        if name := next(late, None):
            item.mkdir()
            (item / name).touch()

    monkeypatch.setattr(whole.shutil, "rmtree", rmtree)
    with pytest.raises(ValueError, match="an error"), whole_folder(tmp_path / "a", overwrite=False) as folder:
        folder.mkdir()
        raise ValueError("an error")
    assert names(tmp_path) == set() and next(late, None) is None


@pytest.mark.parametrize("number", [errno.EROFS, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("call", ["mkdtemp", "_locked", "fsync"])
@pytest.mark.parametrize("name", ["a.npy", "a.zarr"])
def test_errors_of_the_system(tmp_path, monkeypatch, name, call, number):
    need(name)
    save_trace(tmp_path / name, TRACE[:4])

    def fail(*args, **options):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr({"mkdtemp": tempfile, "_locked": scratch, "fsync": os}[call], call, fail)
        with pytest.raises(InputError, match=rf"^\S*{name} cannot be written \({os.strerror(number)}\)$"):
            WRITERS[name](tmp_path / name)
    assert names(tmp_path) == {name} and load_trace(tmp_path / name).n_epochs == 4


@posix
@pytest.mark.parametrize("name", ["a.npz", "a.zarr"])
def test_a_mount_point_is_busy(tmp_path, name, system, monkeypatch):
    need(name)
    save_trace(tmp_path / name, TRACE[:4])

    def busy(*args):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", busy)
        patch.setattr(os, "rename", busy)
        if system == "exchange":
            patch.setattr(whole, "renamed", busy)
        with pytest.raises(InputError, match=r"cannot be written \(Device or resource busy\)$"):
            WRITERS[name](tmp_path / name)
    assert names(tmp_path) == {name} and load_trace(tmp_path / name).n_epochs == 4


@posix
def test_embed_on_a_full_disk(tmp_path, quick_pictures, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("trace.npy", np.random.default_rng(0).normal(size=(6, 5, 3, 4)).cumsum(0))
    argv = ["embed", "trace.npy", "--out", "out", "--device", "cpu"]
    with largest_file(1500):
        assert main(argv) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    sentence = f"{Path('out', 'embedding.npz')} cannot be written (File too large)"
    assert last.endswith(f"{sentence}; they could not be kept elsewhere")
    assert names(tmp_path) == {"trace.npy"}
    with largest_file(15_000):  # the results fit, the pictures do not
        assert main(argv) == 0
    assert "no picture could be drawn" in capsys.readouterr().err and names("out") == {"embedding.npz", "report.json"}


@posix
def test_a_recorder_on_a_full_disk_keeps_its_snapshots(tmp_path):
    model = torch.nn.GRU(2, 30, batch_first=True)
    with Recorder(model, "", torch.zeros(6, 10, 2), path=tmp_path / "run", on_error="raise") as recorder:
        for epoch in range(3):
            recorder.snapshot(epoch)
        sentence = r"snapshot_000003.npy cannot be written \(File too large\); the snapshots so far \(3\) are kept$"
        with largest_file(5000), pytest.raises(InputError, match=sentence):
            recorder.snapshot(3)
        assert load_trace(tmp_path / "run").epoch.tolist() == [0, 1, 2]
        recorder.snapshot(3)
    assert load_trace(tmp_path / "run").n_epochs == 4
    assert [name for name in names(tmp_path / "run") if name.startswith(".")] == [".lock"]


def test_a_recorder_in_a_folder_that_cannot_be(tmp_path):
    recorder = Recorder(torch.nn.GRU(2, 3), "", torch.zeros(6, 10, 2), path=tmp_path / ("a" * 300))
    with pytest.raises(InputError, match="cannot be written"), recorder:
        pass


@pytest.mark.parametrize("name", ["a" * 100 + ".npz", "a" * 251 + ".npz", "\U0001f600" * 60 + ".npz"])
def test_a_long_name_that_the_file_system_takes(tmp_path, name):
    save_trace(tmp_path / name, TRACE)
    save_trace(tmp_path / name, TRACE[:3], overwrite=True)
    assert names(tmp_path) == {name} and load_trace(tmp_path / name).n_epochs == 3


# ---------------------------------------------------------------- what the path already holds


@posix
def test_a_link_is_replaced_and_its_file_stays(tmp_path):
    (tmp_path / "precious").write_text("mine")
    for target in ("precious", "nothing"):
        link = tmp_path / "a.npz"
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        with pytest.raises(PathExistsError, match="a.npz exists; accepted: a new path, or overwrite=True"):
            save_trace(link, TRACE)
        save_trace(link, TRACE, overwrite=True)
        assert not link.is_symlink() and load_trace(link).n_epochs == 30
    assert (tmp_path / "precious").read_text() == "mine" and names(tmp_path) == {"a.npz", "precious"}


@posix
@pytest.mark.parametrize(("name", "mode"), [("a.npz", 0o600), ("a.zarr", 0o700)])
def test_modes(tmp_path, name, mode):
    need(name)
    before = os.umask(0o027)
    try:
        save_trace(tmp_path / name, TRACE[:3])
    finally:
        os.umask(before)
    # `open` and `mkdir` give the modes 0o666 and 0o777 without the bits of the umask.
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == (0o640 if name == "a.npz" else 0o750)
    (tmp_path / name).chmod(mode)
    save_trace(tmp_path / name, TRACE, overwrite=True)
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode


def test_a_zarr_folder_with_other_things_is_not_replaced(tmp_path, system):
    need("a.zarr")
    path = tmp_path / "a.zarr"
    path.mkdir()
    save_trace(path, TRACE, overwrite=True)  # an empty folder
    save_trace(path, TRACE[:5], overwrite=True)
    assert load_trace(path).n_epochs == 5
    (path / "notes.txt").write_text("mine")
    (path / "figures").mkdir()
    before = names(path)
    with pytest.raises(InputError, match=r"a\.zarr holds figures, notes\.txt, which would be deleted"):
        save_trace(path, TRACE, overwrite=True)
    assert names(path) == before and names(tmp_path) == {"a.zarr"}
    (tmp_path / "b.zarr").write_text("mine")
    with pytest.raises(InputError, match=r"b\.zarr holds a file"):
        save_trace(tmp_path / "b.zarr", TRACE, overwrite=True)
    assert (tmp_path / "b.zarr").read_text() == "mine"


def test_nothing_follows_planted_names(tmp_path):
    """Names that older versions used, and the names of scratch folders, as links to another file."""
    (tmp_path / "precious").write_text("mine")
    planted = {f".a.npz.{os.getpid()}.tmp", ".a.npz.abcdefgh.partial", ".a.npz.partial", "a.npz.tmp"}
    for name in planted:
        (tmp_path / name).symlink_to("precious")
    save_trace(tmp_path / "a.npz", TRACE)
    EMBEDDING.save(tmp_path / "a.npz", overwrite=True)
    assert (tmp_path / "precious").read_text() == "mine" and names(tmp_path) == {"a.npz", "precious", *planted}


@posix
def test_scratch_is_closed_to_others_and_not_guessed(tmp_path):
    folders = set()
    for _ in range(3):
        with whole_file(tmp_path / "a", overwrite=True) as new:
            folders.add(new.parent.name)
            assert new.parent.parent == tmp_path and stat.S_IMODE(new.parent.stat().st_mode) == 0o700
            new.write_text("")
    assert len(folders) == 3


# ---------------------------------------------------------------- several writers at once


@pytest.mark.parametrize("name", ["a.npz", "a.zarr"])
def test_threads_that_save_to_one_path(tmp_path, name, system):
    need(name)
    traces = [np.random.default_rng(i).normal(size=(3, 2, 4, 5)) for i in range(16)]
    outcomes = []

    def work(i, overwrite):
        for _ in range(10 if name == "a.npz" else 1):
            try:
                save_trace(tmp_path / name, traces[i], overwrite=overwrite)
                outcomes.append("saved")
            except PathExistsError:
                outcomes.append("exists")
            except BaseException as error:
                outcomes.append(repr(error))

    for overwrite in (False, True):
        outcomes.clear()
        threads = [threading.Thread(target=work, args=(i, overwrite)) for i in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        saved = len(outcomes) if overwrite else 1
        assert sorted(outcomes) == ["exists"] * (len(outcomes) - saved) + ["saved"] * saved
        stored = load_trace(tmp_path / name).data.numpy()
        assert any(np.array_equal(stored, trace) for trace in traces) and names(tmp_path) == {name}


def test_a_file_that_appears_meanwhile_stays(tmp_path, system):
    with pytest.raises(PathExistsError), whole_file(tmp_path / "a", overwrite=False) as new:
        new.write_text("ours")
        (tmp_path / "a").write_text("theirs")
    with pytest.raises(InputError, match="cannot be written"), whole_file(tmp_path / "b", overwrite=True) as new:
        new.write_text("ours")
        (tmp_path / "b").mkdir()
    assert (tmp_path / "a").read_text() == "theirs" and names(tmp_path) == {"a", "b"}


def test_a_file_system_without_links(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(rename, "_system_call", lambda how: None)
    monkeypatch.setattr(os, "link", refuse)
    save_trace(tmp_path / "a.npz", TRACE)
    with pytest.raises(PathExistsError):
        save_trace(tmp_path / "a.npz", TRACE)
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(InputError, match="cannot be written"):
        save_trace(tmp_path / "b.npz", TRACE)
    assert names(tmp_path) == {"a.npz"}


def test_a_system_that_lacks_the_calls(tmp_path, monkeypatch):
    """An older kernel, or a file system such as NFS, refuses the flags with EINVAL."""
    calls = []

    def refuse(source, target):
        calls.append(target)
        rename.ctypes.set_errno(errno.EINVAL)
        return -1

    monkeypatch.setattr(rename, "_system_call", lambda how: refuse)
    for text in ("one", "two"):
        with whole_folder(tmp_path / "a", overwrite=True) as new:
            new.mkdir()
            (new / "text").write_text(text)
    assert (tmp_path / "a" / "text").read_text() == "two" and names(tmp_path) == {"a"} and calls


def test_a_folder_that_is_replaced_always_exists(tmp_path):
    if not (sys.platform == "linux" and rename._system_call(rename.EXCHANGE)):
        pytest.skip("an exchange of two names")
    path, missing, done = tmp_path / "a", [], threading.Event()

    def look():
        while not done.is_set():
            missing.append(not os.path.exists(path / "text"))

    def write():
        with whole_folder(path, overwrite=True) as new:
            new.mkdir()
            (new / "text").write_text("")

    write()
    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(30):
        write()
    done.set()
    thread.join()
    assert len(missing) > 100 and not any(missing)
