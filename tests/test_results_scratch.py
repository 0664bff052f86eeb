"""Scratch folders in a folder of results: those of this program are removed, and those of the user stay."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mmphate_gpu as mp
from mmphate_gpu import Embedding, _results, plots
from mmphate_gpu._atomic import scratch
from mmphate_gpu.cli import main
from mmphate_gpu.slices import SliceLayout

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX")
ENV = os.environ | {"PYTHONPATH": str(Path(mp.__file__).parents[1])}
LAYOUT = SliceLayout.of_shape(2, 1, 2)


def results(seed):
    """Results of a run whose coordinates all equal ``seed``."""
    return _results.Results(
        {"program": "mmphate-gpu", "seed": seed}, {"embedding.npz": Embedding(np.full((4, 2), float(seed)), LAYOUT)}
    )


def save(seed):
    return _results.saved(Path("r"), lambda: results(seed), force=True)


def draw(run):
    _results.draw_results(Path("r"), {"panels.png": run.embeddings["embedding.npz"]}, run.report)


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
            seen.append(_results.others(Path("r")))

        return look

    for name in ("unlink", "rmdir"):
        monkeypatch.setattr(os, name, looks(getattr(os, name)))
    draw(run)
    assert len(seen) > 3 and not any(seen)


def test_scratch_that_has_been_deleted_is_no_file_of_the_user(monkeypatch):
    save(1)
    folder, lock = scratch.new_scratch(Path("r/panels.png"))
    scratch.unlock(lock)
    plain = _results._is_scratch
    monkeypatch.setattr(_results, "_is_scratch", lambda item: (shutil.rmtree(item), plain(item))[1])
    assert _results.others(Path("r")) == [] and not folder.exists()
