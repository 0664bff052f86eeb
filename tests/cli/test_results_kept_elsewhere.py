"""Computed results are kept in another folder if they cannot be saved in the requested one."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import numpy as np
import pytest

import mmphate_gpu as mp
from mmphate_gpu.cli import demo, main, result_folder
from mmphate_gpu.cli.analyses import ANALYSES
from mmphate_gpu.embedding import Embedding


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working folder, with a trace; the system's folder for temporary files lies beside it."""
    for name in ("work", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    np.save("trace.npy", np.random.default_rng(0).normal(size=(6, 5, 3, 4)).cumsum(0))
    return tmp_path / "work"


def embed(*options: str) -> int:
    return main(["embed", "trace.npy", "--out", "out", "--device=cpu", "--no-plots", *options])


def once_computed(monkeypatch, act) -> None:
    """Call ``act`` between the computation and the saving."""
    plain = result_folder.Results.write

    def write(self, folder):
        if folder.name == "out":
            act()
        plain(self, folder)

    monkeypatch.setattr(result_folder.Results, "write", write)


def kept_in(message: str) -> Path:
    return Path(re.search(r"; the results are kept in (\S+)$", message)[1])


def no_space():
    raise mp.InputError("out cannot be written (No space left on device)")


def test_a_disk_that_is_full_once_the_result_is_there(here, monkeypatch, capsys):
    once_computed(monkeypatch, no_space)
    assert embed() == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "cannot be written (No space left on device); the results" in last and "Traceback" not in last
    kept = kept_in(last)
    assert kept.parent == Path() and {item.name for item in kept.iterdir()} == {"embedding.npz", "report.json"}
    assert Embedding.load(kept / "embedding.npz").n_nodes == 90
    assert main(["plot", str(kept)]) == 0 and embed("--force") == 2  # a folder of results like any other


def test_a_file_system_that_takes_nothing_any_more(here, monkeypatch, capsys):
    plain = Path.mkdir

    def full(self, *args, **kwargs):
        if here in self.absolute().parents and self.name != "out":
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(self, *args, **kwargs)

    once_computed(monkeypatch, no_space)
    monkeypatch.setattr(Path, "mkdir", full)
    assert embed() == 2
    kept = kept_in(capsys.readouterr().err.splitlines()[-1])
    assert kept.parent == here.parent / "temporary" and Embedding.load(kept / "embedding.npz").n_nodes == 90
    assert {item.name for item in here.iterdir()} == {"trace.npy"}


def test_a_name_that_another_takes_meanwhile(here, monkeypatch, capsys):
    once_computed(monkeypatch, lambda: Path("out").mkdir())
    assert embed() == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "--out out exists" in message and Embedding.load(kept_in(message) / "embedding.npz").n_nodes == 90
    assert list(Path("out").iterdir()) == []


def test_a_file_added_meanwhile_is_kept(here, monkeypatch, capsys):
    assert embed() == 0
    once_computed(monkeypatch, lambda: Path("out", "notes.txt").write_text("mine"))
    assert embed("--force", "--n-components=3") == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "notes.txt" in message and Embedding.load(kept_in(message) / "embedding.npz").n_components == 3
    assert Path("out", "notes.txt").read_text() == "mine" and Embedding.load("out/embedding.npz").n_components == 2


def test_a_run_that_fails_keeps_nothing(here, capsys):
    assert embed("--n-components=1000") == 2
    assert "kept" not in capsys.readouterr().err and {item.name for item in here.iterdir()} == {"trace.npy"}


def test_the_demo_keeps_its_trace_too(here, monkeypatch):
    once_computed(monkeypatch, no_space)
    monkeypatch.setattr(demo, "chosen", lambda *args: dict.fromkeys(ANALYSES, "this test needs none"))
    with pytest.raises(mp.InputError, match="the results are kept in") as caught:
        demo.demo(Path("out"), epochs=3, device="cpu", verbose=False)
    names = {item.name for item in kept_in(str(caught.value)).iterdir()}
    assert names == {"embedding.npz", "embedding3d.npz", "trace.npz", "analysis.json", "report.json"}
