"""`view`: the picture that it writes, and when it opens a browser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import webbrowser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmphate_gpu import Embedding, as_trace, interactive, save_trace
from mmphate_gpu.cli import main, view


def page_of(path: str, title: str, columns: Any = None) -> str:
    embedding = Embedding.load(path)
    return interactive.page(
        embedding.coordinates, embedding.layout, most_active=embedding.most_active, columns=columns, title=title
    )


@pytest.fixture
def no_display(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION", "SSH_TTY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def display(no_display, monkeypatch):
    """A display with a graphical browser; the list has the addresses that are opened."""
    opened: list[str] = []
    monkeypatch.setenv("DISPLAY", ":7")
    monkeypatch.setattr(webbrowser, "get", lambda: webbrowser.BackgroundBrowser("firefox"))
    monkeypatch.setattr(view, "_opened", lambda address: opened.append(address) or True)
    return opened


# ---------------------------------------------------------------- the picture


def test_a_recording_is_colored_by_its_metrics_and_layers(here, no_display):
    loss, layers = np.array([3, 2.5, np.nan, 2, 1.5, 1]), np.array(["first", "second", "second"])
    data = torch.from_numpy(np.load("trace.npy"))
    save_trace("trace.npz", as_trace(data, metrics={"loss": loss}, unit_layer=layers))
    assert main(["embed", "trace.npz", "--out", "run", "--device", "cpu", "--no-plots"]) == 0
    assert main(["view", "run", "--no-open"]) == 0
    columns = {"loss": ("epoch", loss), "layer": ("unit", layers)}
    assert Path("run/picture.html").read_text(encoding="utf-8") == page_of("run/embedding.npz", "run", columns)


def test_the_picture_is_in_the_folder_and_may_be_replaced(results, capsys):
    for _ in range(2):
        assert main(["view", "run", "--no-open"]) == 0
        assert capsys.readouterr() == ("run/picture.html\n", "")
    assert Path("run/picture.html").read_text(encoding="utf-8") == page_of("run/embedding.npz", "run")
    assert "picture.html" in json.loads(Path("run/report.json").read_text())["files"]
    assert main(["embed", "my trace's.npz", "--out", "run", "--force", "--device", "cpu"]) == 0
    assert not Path("run/picture.html").exists()


def test_three_components_go_before_two(results, capsys):
    flat = Embedding.load("run/embedding.npz")
    Embedding(np.c_[flat.coordinates, flat.coordinates[:, :1]], flat.layout).save("run/embedding3d.npz")
    assert main(["view", "run", "--no-open"]) == 0
    assert Path("run/picture.html").read_text(encoding="utf-8") == page_of("run/embedding3d.npz", "run")


def test_what_is_refused(results, capsys):
    for folder, words in {"none": "none is no folder", "measured": "measured has no embedding.npz"}.items():
        assert main(["view", folder]) == 2
        assert words in capsys.readouterr().err
    Path("run/picture.html").write_text("mine")
    assert main(["view", "run"]) == 2
    assert "run/picture.html exists, and report.json does not list it" in capsys.readouterr().err
    assert Path("run/picture.html").read_text() == "mine"


def test_a_picture_that_fails_leaves_the_old_one(results, capsys, monkeypatch):
    assert main(["view", "run", "--no-open"]) == 0
    old = Path("run/picture.html").read_bytes()

    def fail(*args: object, **options: object) -> str:
        raise RuntimeError("no color")

    monkeypatch.setattr("mmphate_gpu.interactive.page", fail)
    assert main(["view", "run"]) == 2
    assert "run: picture.html could not be written (RuntimeError: no color)" in capsys.readouterr().err
    assert Path("run/picture.html").read_bytes() == old


# ---------------------------------------------------------------- the browser


def test_a_graphical_browser_opens_the_file(results, capsys, display):
    assert main(["view", "run"]) == 0
    assert display == [Path("run/picture.html").resolve().as_uri()]
    assert capsys.readouterr() == ("run/picture.html\n", "")


def test_without_a_display_the_place_is_said(results, capsys, no_display):
    if not sys.platform.startswith("linux"):
        pytest.skip("other systems have a display without such a variable")
    assert main(["view", "run"]) == 0
    said = capsys.readouterr().err
    assert "there is no display; open " in said and str(Path("run/picture.html").resolve()) in said


@pytest.mark.parametrize("variable", ["SSH_CONNECTION", "SSH_TTY"])
def test_over_ssh_the_place_is_said(results, capsys, display, monkeypatch, variable):
    monkeypatch.setenv(variable, "10.0.0.1")
    assert main(["view", "run"]) == 0
    assert "this is a session over ssh; open " in capsys.readouterr().err and display == []


def test_a_browser_in_the_terminal_is_not_opened(results, capsys, display, monkeypatch):
    monkeypatch.setattr(webbrowser, "get", lambda: webbrowser.GenericBrowser("lynx"))
    assert main(["view", "run"]) == 0
    assert "there is no graphical browser; open " in capsys.readouterr().err and display == []


def test_no_browser_at_all(results, capsys, display, monkeypatch):
    def none() -> None:
        raise webbrowser.Error("could not locate runnable browser")

    monkeypatch.setattr(webbrowser, "get", none)
    assert main(["view", "run"]) == 0
    assert "there is no browser; open " in capsys.readouterr().err and display == []


def browser(path: Path, lines: str) -> str:
    """A program in the place of a browser; the value for the variable BROWSER."""
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(0o755)
    return f"{path} %s"


@pytest.mark.skipif(os.name != "posix", reason="a shell script is the browser")
def test_the_browser_gets_the_address_and_no_terminal(tmp_path, monkeypatch):
    monkeypatch.setenv("BROWSER", browser(tmp_path / "browser", f'echo "$1" > {tmp_path}/seen; cat >> {tmp_path}/seen'))
    assert view._opened("file:///picture.html")
    assert (tmp_path / "seen").read_text() == "file:///picture.html\n"  # and stdin is empty
    monkeypatch.setenv("BROWSER", browser(tmp_path / "browser", "exit 1"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert not view._opened("file:///picture.html")


@pytest.mark.skipif(os.name != "posix", reason="a shell script is the browser")
def test_a_browser_that_stays_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setenv("BROWSER", browser(tmp_path / "browser", f"echo $$ > {tmp_path}/pid; exec sleep 60"))
    monkeypatch.setattr(view, "SECONDS", 2)
    with pytest.warns(ResourceWarning, match="is still running"):
        assert view._opened("file:///picture.html")
    subprocess.run(["kill", (tmp_path / "pid").read_text().strip()], check=True)
