"""Results that are replaced, moved or stopped while a run saves or draws its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
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


# ---------------------------------------------------------------- pictures of one run in the results of another


def test_pictures_do_not_go_into_the_results_of_another_run(quick_pictures):
    first = save(1)
    save(2)
    with pytest.warns(_results.NoPicture, match="^r: another run has replaced the results; no picture was drawn$"):
        draw(first)
    assert names("r") == {"embedding.npz", "report.json"} and report()["files"] == ["embedding.npz", "report.json"]
    draw(save(3))
    assert Path("r/panels.png").read_text() == "3.0" and report()["files"][-2:] == ["panels.png", "report.json"]


@pytest.mark.parametrize("moment", ["drawing", "listing", "moving"])
def test_a_replacement_while_pictures_are_drawn(quick_pictures, monkeypatch, moment):
    """The other run ends at each moment in which an address by name would reach its folder."""
    place, name = {"drawing": (plots, "panels"), "listing": (_results, "_write_report"), "moving": (os, "replace")}[
        moment
    ]
    plain = getattr(place, name)

    def late(*args, **options):
        monkeypatch.setattr(place, name, plain)
        save(2)
        return plain(*args, **options)

    first = save(1)
    monkeypatch.setattr(place, name, late)
    with pytest.warns(_results.NoPicture, match="another run has replaced the results"):
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


def test_a_folder_of_the_user_in_the_place_of_the_results(quick_pictures):
    first = save(1)
    shutil.rmtree("r")
    Path("r").mkdir()
    Path("r/panels.png").write_text("mine")
    with pytest.warns(_results.NoPicture, match="another run has replaced the results"):
        draw(first)
    assert names("r") == {"panels.png"} and Path("r/panels.png").read_text() == "mine"


def test_an_embedding_without_a_report_can_be_drawn(quick_pictures):
    Path("r").mkdir()
    results(4).embeddings["embedding.npz"].save("r/embedding.npz")
    assert main(["plot", "r"]) == 0 and names("r") == {"embedding.npz", "panels.png"}


# ---------------------------------------------------------------- scratch in a folder of results


@posix
@pytest.mark.parametrize("place", ["plots.panels", "os.replace"])
def test_plot_removes_what_a_killed_plot_left(quick_pictures, place):
    save(1)
    script = f"""
import os
from mmphate_gpu import cli, plots
def die(*args, **options):
    os._exit(9)
{place} = die
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
