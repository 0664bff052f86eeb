"""One alphabet for shapes, and names that say what a thing is."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sorted(
    path for room in ("mmphate_gpu", "benchmarks", "tests", "examples") for path in (ROOT / room).rglob("*.py")
)
NATIVE = sorted(path for path in (ROOT / "csrc").rglob("*") if path.suffix in {".h", ".cpp", ".cu"})

# E, T epochs, time steps; S = E T slices; M units; P samples; D features after PCA; N = S M nodes; L landmarks;
# C columns or components; B sets of points, each of n points with p coordinates. Other small letters are local.
ALPHABET = set("ETSMPDNLCB")
BANNED = {"found", "told", "there", "given", "own", "kind", "one", "about"}
# A tuple of sizes: words, numbers, products and sums of them, separated by commas.
SHAPE = re.compile(r"\((?:\.\.\., )?[\w* +/-]+(?:, [\w* +/-]+)*,?\)")


def wrong_letters(text: str) -> list[str]:
    """The shapes in ``text`` that are not written in the alphabet."""
    shapes = [shape for shape in SHAPE.findall(text) if "," in shape]
    return [shape for shape in shapes if _foreign(shape) or _mixed(shape)]


def _foreign(shape: str) -> set[str]:
    """Capital letters of ``shape`` that are not in the alphabet. Letters within words, as in TILE, do not count."""
    return set(re.findall(r"\b[A-Z]\b", shape)) - ALPHABET


def _mixed(shape: str) -> bool:
    """Whether S is beside epochs, time steps or landmarks, which means that S are samples, or L slices."""
    axes = set(shape.strip("()").split(", "))
    return "S" in axes and ({"E", "T"} <= axes or "M" in axes and bool({"E", "T", "L"} & axes))


def shape_texts(source: str) -> Iterator[str]:
    """The comments behind code or on lines of shapes, and the docstrings, of a Python ``source``."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and token.string.startswith("# ("):
            yield token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            yield ast.get_docstring(node) or ""


def names(source: str) -> Iterator[tuple[int, str]]:
    """The line and the name of every variable, argument, attribute, function and class that ``source`` defines."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.lineno, node.name


def by_file(paths: list[Path], wrong: Callable[[str], list[str]]) -> dict[str, list[str]]:
    """The results of ``wrong`` for the files of ``paths``, without empty results."""
    results = {str(path.relative_to(ROOT)): wrong(path.read_text(encoding="utf-8")) for path in paths}
    return {name: result for name, result in results.items() if result}


def test_shapes_are_written_in_the_alphabet():
    assert (
        by_file(PYTHON, lambda source: [shape for text in shape_texts(source) for shape in wrong_letters(text)]) == {}
    )


def test_shapes_in_csrc_are_written_in_the_alphabet():
    comments = re.compile(r"//.*")
    wrong = by_file(
        NATIVE, lambda source: [shape for text in comments.findall(source) for shape in wrong_letters(text)]
    )
    assert wrong == {}


def test_names_say_what_a_thing_is():
    def banned(source: str) -> list[str]:
        return [f"line {line}: {name}" for line, name in names(source) if name.lower() in BANNED]

    assert by_file(PYTHON, banned) == {}


def test_the_checks_can_fail():
    assert wrong_letters("(E, T, M, S) and (L, M, S), (J, J)") == ["(E, T, M, S)", "(L, M, S)", "(J, J)"]
    assert wrong_letters("(S, M, D) float64 -> (S M, L), (B, n, p), (TILE, k), f(x), (see step 3)") == []
    assert list(shape_texts("def f(x):  # (Q, n)\n    'A shape (W, 2).'")) == ["# (Q, n)", "", "A shape (W, 2)."]
    assert {name for _, name in names("def f(kind):\n    self.own = found = kind")} == {"f", "kind", "own", "found"}
