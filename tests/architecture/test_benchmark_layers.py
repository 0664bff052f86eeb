"""Every import of the benchmarks points to a lower level, also imports inside functions and for type checkers."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# A module imports from its room and from rooms on lines above. Rooms on the same line do not import one another.
LEVELS = [
    {"measure"},
    {"networks"},
    {"cases", "peers"},
    {"suites"},
    {"run"},
    {"report", "guard", "gpu", "studies"},
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "benchmarks").rglob("*.py"))
}


def imports_of(source: str) -> Iterator[str]:
    """The modules of the benchmarks that ``source`` imports."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            full = (f"{node.module}.{alias.name}" for alias in node.names)
            names = [name if name in MODULES else node.module for name in full]
        yield from (name for name in names if name in MODULES)


def upward(module: str, source: str) -> list[str]:
    """The faults of the imports of a module."""
    room = module.split(".")[1]
    others = [name for name in imports_of(source) if name != "benchmarks" and name.split(".")[1] != room]
    return [f"{module} imports {name}" for name in others if LEVEL[name.split(".")[1]] >= LEVEL[room]]


SOURCES = {module: path.read_text(encoding="utf-8") for module, path in MODULES.items() if module != "benchmarks"}


def test_every_room_has_a_level():
    assert {module.split(".")[1] for module in SOURCES} == LEVEL.keys()


def test_imports_point_to_lower_levels():
    assert [sentence for module, source in SOURCES.items() for sentence in upward(module, source)] == []


def test_no_modules_import_one_another_in_a_circle():
    graph = {module: set(imports_of(source)) - {module} for module, source in SOURCES.items()}
    TopologicalSorter(graph).prepare()
    graph["benchmarks.measure.rows"] = {"benchmarks.measure.tasks"}
    with pytest.raises(CycleError):  # the check can fail
        TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("benchmarks.measure.rows", "from benchmarks import cases"),
        ("benchmarks.suites.ops", "def late():\n    from benchmarks.report import plots"),
        ("benchmarks.report.story", "from benchmarks.gpu.expected import expected"),
        ("benchmarks.cases", "import benchmarks.suites.ops"),
    ],
)
def test_upward_imports_are_reported(module, source):
    assert upward(module, source)
