"""Pages that promise something name the test that shows it."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = CHECKOUT / "docs" / "what_happens_when.md"
ROWS = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if re.match(r"\| (?!What)", line)]


@functools.cache
def functions(file: str) -> set[str]:
    tree = ast.parse((CHECKOUT / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:60])
def test_each_row_names_tests_that_exist(row):
    cells = [cell.strip() for cell in row.strip("|").split(" | ")]
    assert len(cells) == 3, "a situation, what follows, and its tests"
    names = re.findall(r"`(tests/\S+?\.py)::(\w+)`", cells[2])
    assert names and len(names) == cells[2].count("::"), cells[2]
    for file, name in names:
        assert name in functions(file), f"{file}::{name}"


def test_there_are_rows():
    assert len(ROWS) > 10
