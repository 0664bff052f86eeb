"""The code on the pages runs as it stands: Python in one namespace a page, and the commands of mmphate-gpu."""

from __future__ import annotations

import contextlib
import re
import shlex

import matplotlib
import numpy as np
import pytest
import torch

from mmphate_gpu.cli import main

from .pages import DOCS, PAGES, ROOT, blocks, name

LANGUAGES = {"python", "bash", "sh", ""}
ELSEWHERE = DOCS / "m_phate.md"  # the tests of M_PHATE run it, and look at what it computes
PYTHON = [page for page in PAGES if page != ELSEWHERE and any(block.language == "python" for block in blocks(page))]
COMMANDS = {
    page: lines
    for page in PAGES
    if (lines := re.findall(r"^mmphate-gpu .*$", "\n".join(b.text for b in blocks(page) if b.language), re.MULTILINE))
}
LONG = ("demo", "bench")  # these take minutes; their options are looked up in the help


@pytest.fixture(autouse=True)
def working_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    with matplotlib.rc_context({"backend": "agg"}):
        yield


@pytest.mark.parametrize("page", PYTHON, ids=name)
def test_python_blocks_run(page):
    namespace: dict[str, object] = {"__name__": name(page)}
    for block in blocks(page):
        if block.language == "python":
            exec(compile(block.text, name(page), "exec"), namespace)


@pytest.mark.parametrize("page", COMMANDS, ids=name)
def test_commands_run(page, capsys, monkeypatch):
    monkeypatch.setattr("mmphate_gpu.cli.view.show", lambda path: None)  # opens no browser
    trace = np.random.default_rng(0).normal(size=(6, 6, 3, 5)).cumsum(0)
    np.save("trace.npy", trace)
    np.savez("trace.npz", data=trace)
    for line in COMMANDS[page]:
        _, *arguments = shlex.split(line, comments=True)
        if arguments[0] not in LONG:
            assert main(arguments) == 0, line
    capsys.readouterr()


def test_options_of_long_commands_exist(capsys):
    for line in (line for lines in COMMANDS.values() for line in lines):
        _, command, *arguments = shlex.split(line, comments=True)
        if command in LONG:
            with contextlib.suppress(SystemExit):  # of the parser of the benchmarks
                main([command, "--help"])
            known = capsys.readouterr().out
            assert [option for option in arguments if option.startswith("--") and option not in known] == [], line


def test_every_block_has_a_language_that_is_tested():
    assert {block.language for page in PAGES for block in blocks(page)} <= LANGUAGES
    assert {ROOT / "README.md", DOCS / "quickstart.md"} <= set(PYTHON)
    assert len(PYTHON) > 6
