"""The suites: what is measured.

A suite is a module with

- ``tasks(device, quick, only=()) -> list[Task]``: its tasks, or those of the parts named in ``only``;
- ``PARTS``: the names that ``only`` accepts;
- ``tables(rows, which="") -> list[Table]``: all tables, or the one named ``which``;
- ``missed_goals(rows) -> list[str]``, if it has goals: a sentence for each goal that the rows miss.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.measure.rows import Row

# In the order of a full run: the rates of the machine first, what takes longest last.
NAMES = ("floors", "ops", "pipeline", "against", "ablations", "analyses", "recipes", "scale")


def suite(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")


def missed_goals(rows: Sequence[Row]) -> list[str]:
    """A sentence for each goal of any suite that ``rows`` miss."""
    missed: list[str] = []
    for name in dict.fromkeys(row.suite for row in rows):
        of_suite = getattr(suite(name), "missed_goals", lambda rows: [])
        missed += of_suite([row for row in rows if row.suite == name and not row.skipped])
    return missed
