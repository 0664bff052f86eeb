"""Few modules at the top of the package, short files, short functions."""

from __future__ import annotations

import ast
import statistics
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "mmphate_gpu"
FILES = sorted(path for room in ("mmphate_gpu", "tests") for path in (ROOT / room).rglob("*.py"))


def bodies(source: str) -> list[int]:
    """The lines of every function body, without the docstring."""
    lengths = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lengths.append(body[-1].end_lineno - body[0].lineno + 1 if body else 0)
    return lengths


def test_few_modules_lie_at_the_top():
    modules = {path.stem for path in PACKAGE.glob("*.py")}
    assert len(modules) <= 14
    assert {name for name in modules if name.startswith("_")} == {"__init__", "__main__"}


def test_no_folder_has_an_underscore():
    folders = {path.parent.name for path in PACKAGE.rglob("*.py")}
    assert not {name for name in folders if name.startswith("_")}


def test_files_have_at_most_400_lines():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_functions_are_short():
    lengths = [length for path in PACKAGE.rglob("*.py") for length in bodies(path.read_text(encoding="utf-8"))]
    assert statistics.median(lengths) <= 4
    assert statistics.quantiles(lengths, n=10)[-1] <= 13


def test_the_lines_of_a_body_are_counted():
    source = 'def f():\n    """One line.\n\n    More.\n    """\n    a = 1\n    return (\n        a\n    )\n'
    assert bodies(source) == [4] and bodies('def f():\n    """Only this."""\n') == [0]
