"""Tables from the measured JSON, so that none is typed by hand.

    python benchmarks/report.py suite                prints the tables of results/suite-MACHINE.json
    python benchmarks/report.py --write README.md    fills the places marked in a text
    python benchmarks/report.py --check              exits 1 if a marked place differs from the JSON

A marked place stands between ``<!-- bench:NAME -->`` and ``<!-- /bench -->``. NAME is a result, with its machine
(``suite-amd-epyc-2-cores``) or for all machines (``suite``); ``:stages`` behind it asks for seconds and peak of every
stage. A place whose result is not there has to be empty.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

# The results of bench_ops and of bench_scale.
OPS, SCALE = "ops", "scale"
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.rows import (  # noqa: E402
    HEAD,
    RESULTS,
    OpRow,
    Row,
    markdown_table,
    op_cells,
    read_op_rows,
    read_rows,
    scale_cells,
    slopes,
    stage_cells,
    total_cells,
    totals,
)

PLACE = re.compile(r"(<!-- bench:(?P<name>[\w.-]+)(?P<stages>:stages)? -->\n)(?P<text>.*?)(<!-- /bench -->)", re.DOTALL)


class NoResults(LookupError):
    """A name that no result file has."""


def rows_by_machine(name: str, folder: Path) -> dict[str, list[Row]]:
    """Rows of the result ``name``, by machine."""
    found: dict[str, list[Row]] = {}
    for file in sorted(folder.glob(f"{name}*.json")):
        rows = read_rows(file)
        machine = rows[0].machine if rows else ""
        if machine and file.stem in (name, f"{name}-{machine}"):
            found[machine] = rows
    if not found:
        raise NoResults(f"no result in {folder} is called {name}-MACHINE.json")
    return found


def table(name: str, folder: Path, *, stages: bool = False) -> str:
    """One markdown table a machine, with what it was measured on below it."""
    if name.partition("-")[0] == OPS:
        return "\n".join(_ops_table(read_op_rows(file)) for file in sorted(folder.glob(f"{name}*.json")))
    return "\n".join(_machine_table(name, rows, stages) for rows in rows_by_machine(name, folder).values())


def _machine_table(name: str, rows: Sequence[Row], stages: bool) -> str:
    about = f"{rows[0].machine}, {_dates(rows)}; {rows[0].versions}.\n"
    if name.partition("-")[0] == SCALE:
        return f"{markdown_table(*scale_cells(rows))}\n\n{slopes(rows)}\n\n{about}"
    head, lines = stage_cells(rows) if stages else (HEAD, [total_cells(row) for row in totals(rows)])
    return f"{markdown_table(head, lines)}\n\n{about}"


def _dates(rows: Sequence[Row]) -> str:
    when = sorted({row.date for row in rows})
    return when[0] if len(when) == 1 else f"{when[0]} to {when[-1]}"


def _ops_table(rows: Sequence[OpRow]) -> str:
    about = f"{rows[0].machine}, {rows[0].threads} threads, {rows[0].date}; {rows[0].versions}."
    return f"{markdown_table(*op_cells(rows))}\n\n{about}\n"


def filled(text: str, folder: Path) -> str:
    """``text`` with every marked place filled anew."""

    def place(match: re.Match[str]) -> str:
        try:
            new = table(match["name"], folder, stages=bool(match["stages"]))
        except NoResults:
            new = ""  # no digit without a measurement behind it
        return f"{match[1]}{new}{match[5]}"

    return PLACE.sub(place, text)


def default_texts() -> list[Path]:
    places = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [file for file in places if file.exists()]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="a result's name; with --write or --check, texts (README.md and docs)")
    parser.add_argument("--stages", action="store_true", help="seconds and peak of every stage")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--write", action="store_true", help="fill the marked places")
    action.add_argument("--check", action="store_true", help="exit 1 if a marked place differs")
    options = parser.parse_args(argv)
    try:
        if options.write or options.check:
            return _texts([Path(name) for name in options.names] or default_texts(), options)
        if not options.names:
            parser.error("give the name of a result, --write or --check")
        print("\n".join(table(name, options.results, stages=options.stages) for name in options.names), end="")
    except (NoResults, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _texts(files: Sequence[Path], options: argparse.Namespace) -> int:
    stale = []
    for file in files:
        text = file.read_text()
        new = filled(text, options.results)
        if new != text:
            stale.append(file)
            if options.write:
                file.write_text(new)
    for file in stale:
        print(f"{file}: {'written' if options.write else 'differs from the results; run report.py --write'}")
    return int(options.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
