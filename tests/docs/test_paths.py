"""Every file and folder that a page names exists."""

from __future__ import annotations

import pkgutil
import re

import pytest

from .pages import DOCS, PAGES, ROOT, name, text

FOLDERS = ("mmphate_gpu", "csrc", "tests", "benchmarks", "examples", "docs")
PATH = re.compile(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)})/[\w./-]*")
BUILT = ("mmphate_gpu/_native",)  # made by the install
FILE = re.compile(r"`([\w/]*\w\.(?:py|cpp|cu|h))`")
ROOMS = [path.stem for path in (ROOT / "mmphate_gpu").iterdir() if path.name[0] not in "_."]
DOTTED = re.compile(rf"`((?:{'|'.join(ROOMS)})(?:\.[A-Za-z_]\w*)+)[`(]")
NAMES = {path.name for folder in FOLDERS for path in (ROOT / folder).rglob("*.*")}
TEST_FILES = sorted((ROOT / "tests").rglob("*.py"))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_paths_exist(page):
    paths = {path.rstrip("./-") for path in PATH.findall(text(page)) if not path.startswith(BUILT)}
    assert sorted(path for path in paths if not (ROOT / path).exists()) == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_exist(page):
    files = {file for file in FILE.findall(text(page)) if not file.startswith(FOLDERS)}  # these are paths, above
    assert sorted(file for file in files if file not in NAMES and not (ROOT / "mmphate_gpu" / file).exists()) == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_names_of_the_package_exist(page):
    dotted = {path for path in DOTTED.findall(text(page)) if not path.endswith((".py", ".npz", ".json"))}
    assert sorted(path for path in dotted if not exists(path)) == []


def test_tests_exist():
    tests = {path.stem for path in TEST_FILES}.union(*(re.findall(r"\bdef (\w+)", text(path)) for path in TEST_FILES))
    named = {(name(page), test) for page in PAGES for test in re.findall(r"\btest_\w*", text(page))}
    assert sorted((page, test) for page, test in named if test not in tests) == []


def test_decisions_have_a_problem_a_decision_and_evidence():
    sections = re.split(r"^##+ ", text(DOCS / "decisions.md"), flags=re.MULTILINE)[1:]
    bodies = dict(section.split("\n", 1) for section in sections if section.split("\n", 1)[1].strip())
    marks = ("*Problem.*", "*Decision.*", "*Evidence.*")
    lacking = [title for title, body in bodies.items() if not all(mark in body for mark in marks)]
    assert lacking == ["The CUDA path, item by item"]  # a table, whose columns are these


def exists(dotted: str) -> bool:
    """Whether ``room.name``, with the name of a class or a module between or without, is in the package."""
    try:
        pkgutil.resolve_name(f"mmphate_gpu.{dotted}")
    except (AttributeError, ImportError):
        return False
    return True


def test_a_stranger_finds_the_file_of_every_step():
    """README and quickstart lead to the pipeline; it has the numbered steps of the method, and names their files."""
    pipeline = "mmphate_gpu/pipeline.py"
    assert pipeline in text(ROOT / "README.md") and pipeline in text(DOCS / "quickstart.md")
    numbers = re.findall(r"^    # (\d+) ", text(ROOT / pipeline), flags=re.MULTILINE)
    steps = re.findall(r"^(\d+)\. \*\*(.*?)(?=^\d+\. \*\*|^## )", text(DOCS / "method.md"), re.MULTILINE | re.DOTALL)
    assert numbers == [number for number, _ in steps] == [str(number) for number in range(1, 15)]
    files = [re.search(r"`mmphate_gpu/([\w/.]*)`", step)[1] for _, step in steps]
    assert files[12] == "pipeline.py"
    assert [file for file in files if file != "pipeline.py" and not names(text(ROOT / pipeline), file)] == []


def names(source: str, file: str) -> bool:
    """Whether ``source`` imports from ``file``, or has its path in a comment."""
    return f"from .{file.removesuffix('.py').replace('/', '.')} import" in source or file in source


def test_pages_are_in_the_navigation():
    navigation = text(ROOT / "mkdocs.yml")
    missing = [page for page in PAGES if DOCS in page.parents and page.relative_to(DOCS).as_posix() not in navigation]
    assert missing == []
