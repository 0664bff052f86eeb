"""Runs before and after a change, on one machine on one day, as a table in docs/decisions.md.

    python benchmarks/run.py --case NAME --out benchmarks/results/before    in a checkout of the commit before
    python benchmarks/report/before_after.py --write                        fills the table; --check compares it

Both sides are rows of suite "pipeline": those in benchmarks/results/before, and those of the same machine beside it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.measure.records import RESULTS, ROOT, read
from benchmarks.measure.rows import Row, totals
from benchmarks.measure.tables import fill, markdown_table, shares_text

TEXT = ROOT / "docs" / "decisions.md"
HEAD = (
    *("run", "seconds before", "after", "times faster", "peak before", "after"),
    *("t", "kept 10 / 40 before", "after"),
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true", help="fill the table")
    action.add_argument("--check", action="store_true", help="exit 1 if the table differs from the results")
    options = parser.parse_args(argv)
    return fill(TEXT, "before and after", tables(RESULTS), write=options.write)


def tables(results: Path) -> str:
    """A table for each machine that has rows of both sides."""
    files = sorted((results / "before").glob("*.jsonl"))
    return "".join(_table(_totals(file), _totals(results / file.name)) for file in files)


def _totals(file: Path) -> dict[str, Row]:
    """The rows of whole runs, by case."""
    return {row.case: row for row in totals(read(file))}


def _table(before: dict[str, Row], after: dict[str, Row]) -> str:
    shared = [case for case in before if case in after]
    lines = [(case, *_cells(before[case], after[case])) for case in shared]
    old, new = before[shared[0]], after[shared[0]]
    machine = f"{new.machine}, {new.threads} threads; before: commit {old.commit}, after: {new.commit}."
    return f"{markdown_table(HEAD, lines)}\n\n{machine}\n"


def _cells(old: Row, new: Row) -> tuple[str, ...]:
    return (
        f"{old.seconds:.1f}",
        f"{new.seconds:.1f}",
        f"{old.seconds / new.seconds:.2f}",
        f"{old.peak_bytes / 1e9:.2f} GB",
        f"{new.peak_bytes / 1e9:.2f} GB",
        f"{old.t}, {new.t}",
        shares_text(old.preservation),
        shares_text(new.preservation),
    )


if __name__ == "__main__":
    sys.exit(main())
