"""`report` and what users put into its folders: names of any text, damaged and hostile files, files of their own."""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmphate_gpu import Embedding
from mmphate_gpu.cli import main
from mmphate_gpu.cli.report.html import escaped, tag
from mmphate_gpu.slices import SliceLayout

from .pages import Page
from .reports import TRACE, edit, report

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&amp; אבג\u202e \ud800 \0 \x1b[31m"
SHOWN = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&amp; אבג\u202e \\ud800 \\x00 \\x1b[31m"


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The sentence that refuses a command, which changes no file."""
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    assert main(["report", *argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and "Traceback" not in captured.err
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    return captured.err


# ---------------------------------------------------------------- any text is text


def test_names_are_text(results):
    """Whatever a file says, the page has the elements of a plain run, and the text is on it."""
    plain = [name for name, _ in report("run", "--analysis", "measured").elements]
    content = json.loads(Path("measured/analysis.json").read_text())
    content["summary"] |= {"entropy": HOSTILE}
    content["left_out"] |= {"follows": HOSTILE}
    content["warnings"] = {}
    edit("measured/analysis.json", **content)
    versions = {"python": HOSTILE}
    edit("run/report.json", input=HOSTILE, device=HOSTILE, version=HOSTILE, versions=versions)
    page = report("run", "--analysis", "measured")
    assert sorted({name for name, _ in page.elements}) == sorted(set(plain))
    assert page.count("script") == 1 and page.text.count(SHOWN) >= 5
    assert SHOWN in page.inside("bdi")


def test_the_name_of_the_folder_is_text(results):
    folder = "<b>run & 'more'"
    os.rename("run", folder)
    page = report(folder)
    assert page.inside("title") == [f"{folder}: MM-PHATE report"] and folder in page.inside("bdi")
    hint, commands = (text for text in page.inside("code") if text.startswith("mmphate-gpu"))
    assert shlex.split(hint) == ["mmphate-gpu", "analyze", folder, "--out", "ANALYSIS", f"--trace={TRACE}"]
    assert shlex.split(commands.splitlines()[-1]) == ["mmphate-gpu", "report", folder]


def test_the_name_of_a_folder_is_no_option(results, capsys):
    os.rename("run", "-run")
    page = report("./-run")
    hint, commands = (shlex.split(text) for text in page.inside("code") if text.startswith("mmphate-gpu"))
    assert "./-run" in hint and commands.count("./-run") == 2 and "-run" not in hint + commands


def test_names_of_units_are_text(results):
    embedding = Embedding.load("run/embedding.npz")
    units = np.array([HOSTILE, "b", "c", "d", "e"])
    layout = SliceLayout(embedding.layout.epoch, embedding.layout.timestep, units)
    Embedding(embedding.coordinates, layout).save("run/embedding.npz", overwrite=True)
    page = report("run")
    assert page.count("script") == 1 and "<img" not in page.all("iframe")[0]["srcdoc"]


def test_text_is_escaped_once():
    assert str(tag("p", tag("b", "&"), title='"<')) == '<p title="&quot;&lt;"><b>&amp;</b></p>'
    assert str(escaped("a\tb\nc\rd\u2028e")) == "a\tb\nc\\rd\\u2028e"


# ---------------------------------------------------------------- damaged and foreign files


DAMAGED = ["", "{", "[]", '{"program": "other"}', "[" * 100_000, '{"x": ' + "9" * 5000 + "}", "\xff"]
DAMAGED += ['{"program": "mmphate-gpu", "warnings": ' + "[" * 700 + "]" * 700 + "}"]


@pytest.mark.parametrize("content", DAMAGED)
@pytest.mark.parametrize("name", ["report.json", "analysis.json"])
def test_damaged_and_foreign_files_are_named(results, capsys, name, content):
    Path("both", name).write_bytes(content.encode("latin-1"))
    assert f"both/{name}" in refused(capsys, "both")


def test_a_folder_without_results(results, capsys):
    assert "nothing is no folder" in refused(capsys, "nothing")
    assert "File name too long" in refused(capsys, "a" * 300)
    Path("empty").mkdir()
    assert "empty has neither embedding.npz nor analysis.json" in refused(capsys, "empty")
    assert "--analysis empty has no analysis.json" in refused(capsys, "run", "--analysis", "empty")
    Path("run/embedding.npz").write_bytes(b"damaged")
    assert "run/embedding.npz" in refused(capsys, "run")


def test_analyses_of_other_results_are_refused(results, capsys):
    embedding = Embedding.load("run/embedding.npz")
    Embedding(embedding.coordinates * 2, embedding.layout).save("run/embedding.npz", overwrite=True)
    words = refused(capsys, "run", "--analysis", "measured")
    assert "--analysis measured is of other results" in words and "'mmphate-gpu analyze run' wrote" in words


def test_a_folder_with_an_embedding_only(results):
    for path in Path("run").iterdir():
        if path.name != "embedding.npz":
            path.unlink()
    page = report("run")
    assert "report.json is missing" in page.text and page.count("iframe") == 1 and page.count("img") == 2
    assert "does not say what the checks of the fit were" in page.text


NUMBERS = [True, -1, 0, 10**400, -(10**18), 1e308, float("nan"), float("inf")]
VALUES = [*NUMBERS, None, "", "x" * 10_000, [], {}, [[[]]], {"a": {}}]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The addresses of all entries of a JSON value, down to the third level."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    return [path + (key,) for key, _ in items] + [
        place for key, item in items if len(path) < 3 for place in places(item, (*path, key))
    ]


def damaged(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    """A copy of ``content`` with ``value`` at ``place``, or without it for an Ellipsis."""
    content = json.loads(json.dumps(content))
    parent = content
    for key in place[:-1]:
        parent = parent[key]
    if value is ...:
        parent.pop(place[-1])
    else:
        parent[place[-1]] = value
    return content


@pytest.mark.parametrize("name", ["report.json", "analysis.json"])
@pytest.mark.parametrize("edits", [12, pytest.param(1000, marks=pytest.mark.slow)])
def test_no_edit_of_the_files_ends_in_a_fault(results, capsys, monkeypatch, name, edits):
    """An entry gets a wrong value or is deleted. The page is written, or a sentence names the file."""
    monkeypatch.setattr("mmphate_gpu.interactive.page", lambda *args, **options: "<p>picture</p>")
    plain, chance = json.loads(Path("both", name).read_text()), random.Random(0)
    choices = [(place, value) for place in places(plain) for value in (..., *VALUES)]
    for place, value in chance.sample(choices, min(edits, len(choices))):
        Path("both", name).write_text(json.dumps(damaged(plain, place, value)))
        code, said = main(["report", "both", "--out", "page.html", "--force"]), capsys.readouterr().err
        assert code in (0, 2) and "Traceback" not in said, (place, value, said)
        assert code == 0 or f"both/{name}" in said, (place, value, said)
    Page(Path("page.html").read_text())


# ---------------------------------------------------------------- where the page is written


def test_the_page_is_a_file_of_the_results(results, capsys):
    """So `embed --force` may replace the folder."""
    report("run")
    listed = json.loads(Path("run/report.json").read_text())["files"]
    assert "report.html" in listed and listed == sorted(listed)
    report("run")
    assert main(["embed", "my trace's.npz", "--out", "run", "--force", "--device", "cpu"]) == 0
    assert not Path("run/report.html").exists()


def test_a_file_of_the_user_is_kept(results, capsys):
    Path("run/report.html").write_text("mine")
    assert "run/report.html exists, and report.json does not list it" in refused(capsys, "run")
    assert report("run", "--force").count("h1") == 1


def test_another_place(results, capsys):
    assert main(["report", "run", "--out", "page.html"]) == 0 and not Path("run/report.html").exists()
    capsys.readouterr()
    assert "--out page.html exists" in refused(capsys, "run", "--out", "page.html")
    assert main(["report", "run", "--out", "page.html", "--force"]) == 0
    capsys.readouterr()
    assert "ends in '.pdf'; accepted: '.html'" in refused(capsys, "run", "--out", "page.pdf")
    assert "folder that does not exist" in refused(capsys, "run", "--out", "none/page.html")
    assert "File name too long" in refused(capsys, "run", "--out", "a" * 300 + ".html")
    for name in ("report.html", "mine.html"):
        assert "is in the folder of results run" in refused(capsys, "run", "--out", f"run/{name}", "--force")
    assert "report.html" not in json.loads(Path("run/report.json").read_text())["files"]


def test_an_old_page_stays_if_the_new_one_cannot_be_written(results, capsys, monkeypatch):
    report("run")
    old = Path("run/report.html").read_bytes()
    capsys.readouterr()

    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert "run: report.html could not be written (OSError: [Errno 28] No space left" in refused(capsys, "run")
    assert Path("run/report.html").read_bytes() == old and not list(Path("run").glob(".*"))


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("argv", [["run"], ["run", "--out", "page.html"]])
def test_a_request_to_stop_leaves_nothing(results, capsys, monkeypatch, argv):
    def stop(*args: object, **options: object) -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal did not arrive")

    before = sorted(Path().rglob("*"))
    monkeypatch.setattr("mmphate_gpu.interactive.page", stop)
    assert main(["report", *argv]) == 128 + signal.SIGTERM
    assert "interrupted; nothing was written" in capsys.readouterr().err and sorted(Path().rglob("*")) == before


def test_a_folder_that_cannot_be_written(results, capsys):
    if os.getuid() == 0:
        pytest.skip("root writes everywhere")
    Path("run").chmod(0o500)
    assert "run" in refused(capsys, "run")
    Path("run").chmod(0o700)


def test_results_that_are_replaced_meanwhile_get_no_page(results, capsys, monkeypatch):
    def late(*args: object, **options: object) -> str:
        shutil.rmtree("run")
        shutil.copytree("both", "run")
        return "<p>picture</p>"

    monkeypatch.setattr("mmphate_gpu.interactive.page", late)
    assert main(["report", "run"]) == 2 and "another run has replaced the results" in capsys.readouterr().err
    assert not Path("run/report.html").exists()
