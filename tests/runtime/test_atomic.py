"""Files and folders appear whole: on full disks, with planted links, several writers and killed processes."""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import mmphate_gpu as mp
from mmphate_gpu import Embedding, InputError, Recorder, load_trace, plots, save_trace
from mmphate_gpu.cli import main, result_folder
from mmphate_gpu.runtime.atomic import PathExistsError, rename, scratch, whole, whole_file, whole_folder
from mmphate_gpu.slices import SliceLayout

TRACE = np.random.default_rng(0).normal(size=(30, 3, 50, 20)).astype(np.float32)  # 360 kB
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
posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX")


@pytest.fixture(params=["exchange", "two renames"])
def system(request, monkeypatch):
    """Run the test on a system that can exchange two names and rename without replacing, and on one that cannot."""
    if request.param == "two renames":
        monkeypatch.setattr(rename, "_system_call", lambda how: None)
    return request.param


@pytest.fixture
def quick_pictures(monkeypatch):
    """Replace each plot by a function that only writes a file."""
    for name in ("panels", "entropy"):
        monkeypatch.setattr(plots, name, lambda embedding, path: path.write_bytes(bytes(20_000)) and None)


def names(folder):
    return {item.name for item in Path(folder).iterdir()}


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
        with largest_file(4000), pytest.raises(InputError, match=rf"{name}' cannot be written \(File too large\)$"):
            WRITERS[name](path)
        gc.collect()  # a file that was left open would fail again when it is collected
        assert names(tmp_path) == before
        WRITERS[name](path)


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
    with Recorder(model, "", probe=torch.zeros(6, 10, 2), path=tmp_path / "run") as recorder:
        for epoch in range(3):
            recorder.snapshot(epoch)
        sentence = r"snapshot_000003.npy' cannot be written \(File too large\); the snapshots so far \(3\) are kept$"
        with largest_file(5000), pytest.raises(InputError, match=sentence):
            recorder.snapshot(3)
        assert load_trace(tmp_path / "run").epoch.tolist() == [0, 1, 2]
        recorder.snapshot(3)
    assert load_trace(tmp_path / "run").n_epochs == 4
    assert not [name for name in names(tmp_path / "run") if name.startswith(".")]


def test_a_recorder_in_a_folder_that_cannot_be(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        Recorder(torch.nn.GRU(2, 3), "", probe=torch.zeros(6, 10, 2), path=tmp_path / ("a" * 300))


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


# ---------------------------------------------------------------- scratch folders of dead processes


def abandoned(path, **contents):
    """A scratch folder for ``path`` whose process has ended."""
    folder, lock = scratch.new_scratch(path)
    for name, text in contents.items():
        (folder / {"ready": scratch.READY, "old": scratch.OLD}.get(name, path.name)).mkdir()
        (folder / {"ready": scratch.READY, "old": scratch.OLD}.get(name, path.name) / "text").write_text(text)
    scratch.unlock(lock)
    return folder


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
    monkeypatch.setattr(scratch, "_take", refuse)
    for name in ("a.npz", "b.npz"):
        with whole_file(tmp_path / name, overwrite=False) as new:
            assert names(new.parent) == {scratch._lock_name()}
            new.write_text("whole")
    assert (tmp_path / "a.npz").read_text() == "whole" and len(names(tmp_path)) == 3


def test_a_maker_whose_folder_is_swept_makes_another(tmp_path, monkeypatch):
    take, made = scratch._take, []

    def late(lock):
        """Another process deletes the folder as abandoned before the process that made it has locked it."""
        made.append(lock)
        if len(made) == 1:
            (folder,) = tmp_path.glob(".a.*.partial")
            whole._clear(folder, scratch._lock_of_dead(folder), tmp_path / "a", whole.nothing)
        return take(lock)

    monkeypatch.setattr(scratch, "_take", late)
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


# ---------------------------------------------------------------- --force


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("trace.npy", np.random.default_rng(0).normal(size=(6, 5, 3, 4)).cumsum(0))
    return tmp_path


def embed(*argv):
    return main(["embed", "trace.npy", "--out", "out", "--device", "cpu", "--no-plots", *argv])


def report():
    return json.loads(Path("out/report.json").read_text())


def edit(**changes):
    Path("out/report.json").write_text(json.dumps({**report(), **changes}))


def test_the_report_lists_what_is_written(here, quick_pictures):
    assert embed() == 0
    assert report()["files"] == ["embedding.npz", "report.json"]
    assert main(["plot", "out"]) == 0
    assert set(report()["files"]) == names("out") == {"embedding.npz", "report.json", "panels.png", "entropy.png"}
    assert embed("--force") == 0 and names("out") == {"embedding.npz", "report.json"}


@pytest.mark.parametrize(
    "name", ["trace.npz", "panels.png", "embedding3d.npz", "notes.txt", ".notes", "sub/panels.png"]
)
def test_force_keeps_a_file_of_the_user(here, capsys, name):
    assert embed() == 0
    (here / "out" / name).parent.mkdir(exist_ok=True)
    (here / "out" / name).write_text("mine")
    assert embed("--force") == 2
    assert f"--out out holds {name.split('/')[0]}, which mmphate-gpu did not write" in capsys.readouterr().err
    assert (here / "out" / name).read_text() == "mine" and names(here) == {"trace.npy", "out"}


def test_reports_without_a_list(here, capsys):
    assert embed() == 0
    older = {name: value for name, value in report().items() if name != "files"}
    (here / "out" / "trace.npz").write_text("mine")
    Path("out/report.json").write_text(json.dumps(older))
    assert embed("--force") == 2 and "holds trace.npz" in capsys.readouterr().err
    Path("out/report.json").write_text(json.dumps(older | {"train_accuracy": [0.1]}))  # the demo wrote it
    assert embed("--force") == 0 and names("out") == {"embedding.npz", "report.json"}
    Path("out/report.json").write_text(json.dumps(older))
    (here / "out" / "panels.png").write_text("")
    assert embed("--force") == 0 and names("out") == {"embedding.npz", "report.json"}


@pytest.mark.parametrize("files", [["thesis.txt", "embedding.npz"], "thesis.txt", None, {"thesis.txt": 1}, [["a"], 3]])
def test_a_list_that_somebody_has_edited(here, files):
    assert embed() == 0
    edit(files=files)
    (here / "out" / "thesis.txt").write_text("mine")
    assert embed("--force") == 2 and (here / "out" / "thesis.txt").read_text() == "mine"


@posix
def test_a_report_that_is_a_fifo(here, capsys):
    (here / "out").mkdir()
    os.mkfifo(here / "out" / "report.json")
    assert embed("--force") == 2 and "has no report.json of mmphate-gpu" in capsys.readouterr().err


def test_a_listed_name_that_is_a_link_or_a_folder_stays(here):
    assert embed() == 0
    edit(files=["embedding.npz", "panels.png"])
    (here / "out" / "panels.png").mkdir()
    assert embed("--force") == 2
    (here / "out" / "panels.png").rmdir()
    (here / "out" / "panels.png").symlink_to(here / "trace.npy")
    assert embed("--force") == 2 and (here / "out" / "panels.png").is_symlink()


def test_only_scratch_of_pictures_is_deleted(here):
    assert embed() == 0
    abandoned(here / "out" / "panels.png")
    assert embed("--force") == 0 and names("out") == {"embedding.npz", "report.json"}
    (here / "out" / ".plot.mine").mkdir()
    (here / "out" / ".plot.mine" / "data.csv").write_text("mine")
    assert embed("--force") == 2 and (here / "out" / ".plot.mine" / "data.csv").read_text() == "mine"


def result():
    """Write a folder of results as `embed --force` does."""
    return result_folder.result_folder(Path("out"), force=True)


def test_a_file_added_before_the_exchange_is_kept(here):
    assert embed() == 0
    with pytest.raises(InputError, match="holds notes.txt"), result() as folder:
        result_folder.write_report(folder, {"program": "mmphate-gpu"})
        (here / "out" / "notes.txt").write_text("mine")
    assert names("out") == {"embedding.npz", "report.json", "notes.txt"} and names(here) == {"trace.npy", "out"}


def test_a_file_added_during_the_exchange_is_kept(here, monkeypatch, system):
    assert embed() == 0
    keep_mode = whole._keep_mode

    def late(path, new):  # after the last check
        (path / "notes.txt").write_text("mine")
        keep_mode(path, new)

    with (
        pytest.warns(UserWarning, match=r"the old folder is kept as \S*/out\..*, because it holds notes.txt"),
        result() as out,
    ):
        result_folder.write_report(out, {"program": "mmphate-gpu"})
        monkeypatch.setattr(whole, "_keep_mode", late)
    (kept,) = names(here) - {"trace.npy", "out"}
    assert names("out") == {"report.json"} and names(kept) == {"embedding.npz", "report.json", "notes.txt"}


def test_ctrl_c_after_the_exchange_says_that_the_results_are_there(here, monkeypatch, capsys, system):
    assert embed() == 0

    def stop(path):
        if path == here:  # the parent of "out"
            raise KeyboardInterrupt

    monkeypatch.setattr(whole, "_sync", stop)
    assert embed("--force", "--n-components=3") == 130
    assert capsys.readouterr().err.splitlines()[-1].endswith("interrupted; out holds the results, without pictures")
    assert Embedding.load("out/embedding.npz").n_components == 3 and names(here) == {"trace.npy", "out"}


def test_ctrl_c_before_the_exchange_leaves_the_old_result(here, monkeypatch, capsys, system):
    assert embed() == 0

    def stop(path, new):
        raise KeyboardInterrupt

    monkeypatch.setattr(whole, "_keep_mode", stop)
    assert embed("--force", "--n-components=3") == 130
    assert capsys.readouterr().err.splitlines()[-1].endswith("interrupted; nothing was written")
    assert Embedding.load("out/embedding.npz").n_components == 2 and names(here) == {"trace.npy", "out"}


def test_two_runs_without_force(here, system):
    sentence = "--out out exists; accepted: a new name, or --force"
    with pytest.raises(InputError, match=sentence), result_folder.result_folder(Path("out")) as folder:
        result_folder.write_report(folder, {"program": "mmphate-gpu"})
        assert embed() == 0
    assert "embedding.npz" in names("out") and names(here) == {"trace.npy", "out"}
