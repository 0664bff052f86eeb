"""Working folders with a trace or with results, and checks of refusals: from Python and on the command line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import mmphate_gpu as mp
from mmphate_gpu import InputError
from mmphate_gpu.cli import main

from .reports import TRACE


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a trace of 90 nodes."""
    monkeypatch.chdir(tmp_path)
    np.save("trace.npy", np.random.default_rng(0).normal(size=(6, 5, 3, 4)).cumsum(0))
    return tmp_path


def snapshot(folder: Path) -> dict[Path, bytes | None]:
    """Every path below ``folder`` with its content."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def rejects(here: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Runs a command that must be refused: exit code 2, one line with every word, no traceback, nothing written."""

    def run(*argv: object, words: list[str]) -> None:
        before = snapshot(here)
        assert main([str(argument) for argument in argv]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        last = captured.err.splitlines()[-1]
        assert last.startswith("mmphate-gpu: error: ") and all(word in last for word in words), last
        assert "Traceback" not in captured.err and captured.err.count("mmphate-gpu:") == 1
        assert snapshot(here) == before

    return run


@pytest.fixture(scope="session")
def refused() -> Callable[..., None]:
    """Checks that a call raises a ValueError (for a wrong type a TypeError, too) of one sentence with every word."""

    def check(call: Callable[[], object], *words: str, error: type[Exception] = InputError) -> None:
        with pytest.raises(error) as caught:
            call()
        message = str(caught.value)
        assert isinstance(caught.value, ValueError)
        assert "\n" not in message and all(word in message for word in words), message

    return check


@pytest.fixture(scope="session")
def run_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace, the folder of its embedding, that of its analyses, and a folder with both."""
    root = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        states = np.random.default_rng(0).normal(size=(8, 4, 5, 6)).cumsum(0)
        mp.save_trace(TRACE, mp.as_trace(states, label=np.arange(6) % 2))
        assert main(["embed", TRACE, "--out", "run", "--device", "cpu", "--n-landmark", "60", "--seed", "3"]) == 0
        only = "entropy,phases,spread,trust"
        assert main(["analyze", "run", "--trace", TRACE, "--out", "measured", "--device", "cpu", "--only", only]) == 0
        assert main(["analyze", TRACE, "--out", "both", "--device", "cpu", "--only", "unit_entropy"]) == 0
    return root


@pytest.fixture
def results(run_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with copies of the results."""
    shutil.copytree(run_folders, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"
