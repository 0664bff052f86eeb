"""--force replaces what a run wrote, and keeps the files of the user."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from mmphate_gpu import Embedding, InputError
from mmphate_gpu.cli import main, result_folder
from mmphate_gpu.runtime.atomic import whole

from .written import abandoned, names, posix


def result():
    """Write a folder of results as `embed --force` does."""
    return result_folder.result_folder(Path("out"), force=True)


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
