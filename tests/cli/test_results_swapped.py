"""Results that are replaced, moved or stopped while a run saves or draws, and what killed runs leave in them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import mmphate_gpu as mp
from mmphate_gpu import Embedding, plots
from mmphate_gpu.cli import main, pictures, result_folder
from mmphate_gpu.runtime.atomic import rename, scratch, whole
from mmphate_gpu.slices import SliceLayout

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX")
ENV = os.environ | {"PYTHONPATH": str(Path(mp.__file__).parents[1])}
LAYOUT = SliceLayout.of_shape(2, 1, 2)


def results(seed):
    """Results of a run whose coordinates all equal ``seed``."""
    return result_folder.Results(
        {"program": "mmphate-gpu", "seed": seed}, {"embedding.npz": Embedding(np.full((4, 2), float(seed)), LAYOUT)}
    )


def save(seed):
    return result_folder.saved(Path("r"), lambda: results(seed), force=True)


def draw(run):
    pictures.draw_results(Path("r"), run)


def report():
    return json.loads(Path("r/report.json").read_text())


def names(folder="."):
    return {item.name for item in Path(folder).iterdir()}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def quick_pictures(monkeypatch):
    """Each picture is a file with the first coordinate of its embedding as text."""

    def panels(embedding, path):
        path.write_text(str(embedding.coordinates[0, 0]))

    monkeypatch.setattr(plots, "panels", panels)


# ---------------------------------------------------------------- pictures of one run in the results of another


def test_pictures_do_not_go_into_the_results_of_another_run(quick_pictures):
    first = save(1)
    save(2)
    with pytest.warns(pictures.NoPicture, match="^r: another run has replaced the results; no picture was drawn$"):
        draw(first)
    assert names("r") == {"embedding.npz", "report.json"} and report()["files"] == ["embedding.npz", "report.json"]
    draw(save(3))
    assert Path("r/panels.png").read_text() == "3.0" and report()["files"][-2:] == ["panels.png", "report.json"]


@pytest.mark.parametrize("moment", ["drawing", "listing", "moving"])
def test_a_replacement_while_pictures_are_drawn(quick_pictures, monkeypatch, moment):
    """The other run ends at each moment in which an address by name would reach its folder."""
    place, name = {
        "drawing": (plots, "panels"),
        "listing": (pictures, "write_listed_report"),
        "moving": (os, "replace"),
    }[moment]
    plain = getattr(place, name)

    def late(*args, **options):
        monkeypatch.setattr(place, name, plain)
        save(2)
        return plain(*args, **options)

    first = save(1)
    monkeypatch.setattr(place, name, late)
    with pytest.warns(pictures.NoPicture, match="another run has replaced the results"):
        draw(first)
    assert report() == {"program": "mmphate-gpu", "seed": 2, "files": ["embedding.npz", "report.json"]}
    assert names("r") == {"embedding.npz", "report.json"} and names() == {"r"}


def test_plot_notices_a_replacement_after_it_has_read_the_embedding(quick_pictures, monkeypatch, capsys):
    save(1)
    load = Embedding.load

    def late(path):
        embedding = load(path)
        save(2)
        return embedding

    monkeypatch.setattr(Embedding, "load", late)
    assert main(["plot", "r"]) == 2 and "another run has replaced the results" in capsys.readouterr().err
    assert names("r") == {"embedding.npz", "report.json"}


def test_force_does_not_mix_the_names_of_one_folder_with_the_report_of_another(quick_pictures, monkeypatch):
    draw(save(1))
    read = result_folder.read_report

    def late(folder):  # after the names, among them that of the picture
        monkeypatch.setattr(result_folder, "read_report", read)
        save(2)
        return read(folder)

    monkeypatch.setattr(result_folder, "read_report", late)
    result_folder.check_folder(Path("r"), force=True)
    assert report()["seed"] == 2


def test_a_folder_of_the_user_in_the_place_of_the_results(quick_pictures):
    first = save(1)
    shutil.rmtree("r")
    Path("r").mkdir()
    Path("r/panels.png").write_text("mine")
    with pytest.warns(pictures.NoPicture, match="another run has replaced the results"):
        draw(first)
    assert names("r") == {"panels.png"} and Path("r/panels.png").read_text() == "mine"


def test_an_embedding_without_a_report_can_be_drawn(quick_pictures):
    Path("r").mkdir()
    results(4).embeddings["embedding.npz"].save("r/embedding.npz")
    assert main(["plot", "r"]) == 0 and names("r") == {"embedding.npz", "panels.png"}


# ---------------------------------------------------------------- a working folder that is replaced or left


def make_trace(here):
    np.save("trace.npy", np.random.default_rng(0).normal(size=(6, 5, 3, 4)).cumsum(0))
    return ["embed", f"{here}/trace.npy", "--device=cpu", "--no-plots"]


@posix
@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize(
    ("inside", "out"), [("r", "../r"), ("scratch", "../../r"), ("r", "../../{}/r"), ("link", "../r")]
)
def test_the_working_folder_is_replaced(here, quick_pictures, monkeypatch, capsys, inside, out, exchange):
    argv = make_trace(here)[:-1]
    save(1)
    Path("link").symlink_to("r")
    if not exchange:
        monkeypatch.setattr(rename, "_system_call", lambda how: None)
    if inside == "scratch":  # --force refuses any other folder in the results
        inside = "r/.panels.png.abcdefgh.partial"
        Path(inside).mkdir()
    monkeypatch.chdir(inside)
    monkeypatch.setattr(plots, "entropy", lambda embedding, path: path.write_text("entropy"))
    assert main([*argv, "--out", out.format(here.name), "--force"]) == 0
    captured = capsys.readouterr()
    assert "warning" not in captured.err and captured.out.startswith(f"{here / 'r'}: 90 nodes")
    monkeypatch.chdir(here)
    assert names("r") == {"embedding.npz", "report.json", "panels.png", "entropy.png"}
    assert names() == {"trace.npy", "r", "link"}


# ---------------------------------------------------------------- what is computed is kept


@pytest.mark.parametrize("error", [MemoryError("no memory"), RuntimeError("can't allocate memory"), OSError(5, "I/O")])
def test_any_error_of_saving_keeps_the_results(monkeypatch, error):
    write = result_folder.Results.write

    def fail(self, folder):
        if folder.name == "r":
            raise error
        write(self, folder)

    monkeypatch.setattr(result_folder.Results, "write", fail)
    with pytest.raises(mp.InputError, match="the results are kept in ") as caught:
        save(5)
    kept = Path(str(caught.value).rpartition(" kept in ")[2])
    assert Embedding.load(kept / "embedding.npz").coordinates[0, 0] == 5 and names() == {kept.name}


def test_the_scratch_folder_is_deleted_by_somebody(monkeypatch):
    write = result_folder.Results.write

    def delete(self, folder):
        write(self, folder)
        if folder.name == "r":
            shutil.rmtree(folder.parent)

    monkeypatch.setattr(result_folder.Results, "write", delete)
    with pytest.raises(mp.InputError, match=r"^r cannot be written \(.*the results are kept in "):
        save(5)


@posix
@pytest.mark.parametrize("name", ["L" * 250, "\U0001f600" * 60])
def test_a_long_name_can_be_kept_elsewhere(name):
    def compute():
        Path(name).mkdir()
        return results(6)

    with pytest.raises(mp.InputError, match="the results are kept in ") as caught:
        result_folder.saved(Path(name), compute)
    kept = Path(str(caught.value).rpartition(" kept in ")[2])
    assert names(kept) == {"embedding.npz", "report.json"} and kept.stat().st_mode & 0o777 == 0o700


@posix
@pytest.mark.parametrize("step", ["mkdir", "rename"])
def test_ctrl_c_between_the_two_steps_leaves_nothing(monkeypatch, step):
    plain = getattr(os, step)

    def stop(path, *args, **options):
        target = Path(path if step == "mkdir" else args[0])
        if step == "mkdir" or target != Path.cwd() / "r":
            plain(path, *args, **options)
        if target == Path.cwd() / "r":
            raise KeyboardInterrupt

    monkeypatch.setattr(rename, "_system_call", lambda how: None)
    monkeypatch.setattr(os, step, stop)
    with pytest.raises(KeyboardInterrupt):
        result_folder.saved(Path("r"), lambda: results(1))
    assert names() == set()


# ---------------------------------------------------------------- words at the end


@pytest.mark.parametrize("action", ["error", "ignore", "default"])
def test_the_name_of_a_kept_folder_is_always_said(monkeypatch, recwarn, action):
    save(1)
    keep_mode = whole._keep_mode

    def late(path, new):
        (path / "mine.txt").write_text("mine")
        keep_mode(path, new)

    with monkeypatch.context() as patch:
        write = result_folder.Results.write
        patch.setattr(
            result_folder.Results, "write", lambda *args: (write(*args), patch.setattr(whole, "_keep_mode", late))
        )
        warnings.simplefilter(action)
        save(2)
    (kept,) = names() - {"r"}
    assert report()["seed"] == 2 and Path(kept, "mine.txt").read_text() == "mine"
    assert [str(warning.message) for warning in recwarn] == [
        f"{Path.cwd() / 'r'} was replaced; the old folder is kept as {Path.cwd() / kept}, because it holds mine.txt"
    ]


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_stop_after_the_exchange_says_that_the_results_are_there(here, monkeypatch, capsys, number):
    argv, sync = make_trace(here), whole._sync
    before = signal.signal(number, signal.SIG_DFL)  # under nohup a SIGHUP would be ignored

    def stop(path):
        os.kill(os.getpid(), number) if path == here else sync(path)

    monkeypatch.setattr(whole, "_sync", stop)
    try:
        assert main([*argv, "--out", "r"]) == 128 + number
    finally:
        signal.signal(number, before)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "mmphate-gpu: interrupted; r holds the results, without pictures"
    assert names("r") == {"embedding.npz", "report.json"} and names() == {"trace.npy", "r"}


def test_a_mount_point_is_refused_before_anything_is_computed(monkeypatch):
    save(1)
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "r")
    with pytest.raises(mp.InputError, match="--out r is a mount point"):
        result_folder.check_folder(Path("r"), force=True)


def test_a_folder_that_comes_and_goes_is_no_matter_of_overwrite(monkeypatch):
    def exists(source, path):
        raise FileExistsError

    monkeypatch.setattr(whole, "move", exists)
    with (
        pytest.raises(mp.InputError, match="--out r exists; accepted: a new name, or --force"),
        result_folder.result_folder(Path("r")),
    ):
        pass


# ---------------------------------------------------------------- scratch folders in a folder of results


@posix
def test_plot_removes_what_a_killed_plot_left(quick_pictures):
    save(1)
    script = """
import os
from mmphate_gpu import cli, plots
def die(*args, **options):
    os._exit(9)
plots.panels = die
cli.main(["plot", "r"])
"""
    assert subprocess.run([sys.executable, "-c", script], env=ENV).returncode == 9
    assert [name for name in names("r") if name.startswith(".")]
    assert main(["plot", "r"]) == 0 and names("r") == {"embedding.npz", "report.json", "panels.png"}


@pytest.mark.parametrize(
    "name",
    [
        ".plot.user/panels.png",
        ".plot.abcdefgh/report.json",
        ".embedding.npz.abcdefgh.partial/embedding.npz",
        ".panels.png.abcdefgh.partial/panels.png/a.csv",
        ".report.json.backup.partial/report.json",
        ".report.json.ABCDEFGH.partial/.old",
        ".panels.png.partial/panels.png",
    ],
)
def test_force_keeps_folders_that_only_look_like_scratch(name):
    save(1)
    path = Path("r", name)
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(mp.InputError, match="which mmphate-gpu did not write"):
        save(2)
    assert path.read_text() == "mine" and report()["seed"] == 1


def test_force_replaces_what_a_killed_process_left():
    save(1)
    folder, lock = scratch.new_scratch(Path("r/panels.png"))
    (folder / "panels.png").mkdir()
    (folder / "panels.png" / "entropy.png").write_text("half")
    scratch.unlock(lock)
    Path("r/.embedding.npz.abcd_f12.partial").mkdir()  # its process was killed before it made the lock
    save(2)
    assert names("r") == {"embedding.npz", "report.json"} and report()["seed"] == 2


def test_scratch_that_is_being_deleted_is_no_file_of_the_user(quick_pictures, monkeypatch):
    """Whoever looks while pictures are drawn, at each step of the deletion, sees no file of the user."""
    run, seen = save(1), []

    def looks(plain):
        def look(*args, **options):
            plain(*args, **options)
            seen.append(result_folder.others(Path("r")))

        return look

    for name in ("unlink", "rmdir"):
        monkeypatch.setattr(os, name, looks(getattr(os, name)))
    draw(run)
    assert len(seen) > 3 and not any(seen)


def test_scratch_that_has_been_deleted_is_no_file_of_the_user(monkeypatch):
    save(1)
    folder, lock = scratch.new_scratch(Path("r/panels.png"))
    scratch.unlock(lock)
    plain = result_folder._is_scratch
    monkeypatch.setattr(result_folder, "_is_scratch", lambda item: (shutil.rmtree(item), plain(item))[1])
    assert result_folder.others(Path("r")) == [] and not folder.exists()
