"""Runs before and after a change, on one machine and one evening, as a table in docs/decisions.md.

    python benchmarks/run.py --case NAME --out benchmarks/results/before    in a checkout of the commit before
    python benchmarks/report/before_after.py --write                                   fills the table; --check compares it

Both sides are rows of suite pipeline: those in benchmarks/results/before, and those of the same machine beside it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
TEXT = ROOT / "docs" / "decisions.md"
PLACE = re.compile(r"(<!-- before and after -->\n).*?(<!-- /before and after -->)", re.DOTALL)
Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true", help="fill the table")
    action.add_argument("--check", action="store_true", help="exit 1 if the table differs from the results")
    options = parser.parse_args(argv)
    text = TEXT.read_text()
    new = PLACE.sub(lambda match: match[1] + tables(RESULTS) + match[2], text)
    if options.write:
        TEXT.write_text(new)
    return int(options.check and new != text)


def tables(results: Path) -> str:
    """One table for every machine that has rows of both sides."""
    return "".join(
        _table(_totals(file), _totals(results / file.name)) for file in sorted((results / "before").glob("*.jsonl"))
    )


def _totals(file: Path) -> dict[str, Row]:
    """The rows of whole runs, by case."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return {row["case"]: row for row in rows if row.get("stage") == "total" and row.get("seconds")}


def _table(before: dict[str, Row], after: dict[str, Row]) -> str:
    head = [
        "run",
        "seconds before",
        "after",
        "times faster",
        "peak before",
        "after",
        "t",
        "kept 10 / 40 before",
        "after",
    ]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    shared = [case for case in before if case in after]
    lines += [f"| {case} | {' | '.join(_cells(before[case], after[case]))} |" for case in shared]
    old, new = before[shared[0]], after[shared[0]]
    machine = f"{new['machine']}, {new['threads']} threads; before: commit {old['commit']}, after: {new['commit']}."
    return "\n".join([*lines, "", machine, ""])


def _cells(old: Row, new: Row) -> list[str]:
    return [
        f"{old['seconds']:.1f}",
        f"{new['seconds']:.1f}",
        f"{old['seconds'] / new['seconds']:.2f}",
        f"{old['peak_bytes'] / 1e9:.2f} GB",
        f"{new['peak_bytes'] / 1e9:.2f} GB",
        f"{old['t']}, {new['t']}",
        _kept(old),
        _kept(new),
    ]


def _kept(row: Row) -> str:
    return " / ".join(f"{share:.3f}" for share in row["preservation"].values())


if __name__ == "__main__":
    sys.exit(main())
