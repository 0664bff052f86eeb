"""Tables and plots from the measured rows, so that none is typed by hand.

    python benchmarks/report.py pipeline              prints the tables of results/pipeline-MACHINE.jsonl
    python benchmarks/report.py --write README.md     fills the places marked in a text
    python benchmarks/report.py --check               exits 1 if a marked place differs from the rows
    python benchmarks/report.py --draw                draws the plots of docs/images

A marked place stands between ``<!-- bench:NAME -->`` and ``<!-- /bench -->``. NAME is a suite, of all machines
(``pipeline``) or of one (``pipeline-amd-epyc-2-cores``), or ``story``, the table of the README. Behind a colon stands
which of the suite's tables: ``pipeline:stages`` has seconds and peak of every stage, ``scale:units`` one series. A
place whose rows are not there has to be empty. Rows of quick tasks, whose inputs are small, are left out.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import story  # noqa: E402
from benchmarks.harness import SUITES, suite_module  # noqa: E402
from benchmarks.records import RESULTS, read  # noqa: E402
from benchmarks.rows import (  # noqa: E402
    Row,
    by_axis,
    markdown_table,
    slopes,
)
from benchmarks.tasks import QUICK  # noqa: E402

IMAGES = ROOT / "docs" / "images"
STORY, SCALE = "story", "scale"
PLACE = re.compile(
    r"(<!-- bench:(?P<name>[\w.-]+)(?::(?P<which>[\w.-]+))? -->\n)(?P<text>.*?)(<!-- /bench -->)", re.DOTALL
)


class NoResults(LookupError):
    """A name that no result file has."""


def rows_by_machine(name: str, folder: Path) -> dict[str, list[Row]]:
    """Rows of the result ``name``, a suite or a suite and a machine, by machine."""
    suite = name.partition("-")[0]
    found: dict[str, list[Row]] = {}
    for file in sorted(folder.glob(f"{suite}-*.jsonl")):
        rows = [row for row in read(file) if not row.task.startswith(QUICK)]
        if rows and name in (suite, file.stem):
            found[rows[0].machine] = rows
    if not found:
        raise NoResults(f"no result in {folder} is called {name}-MACHINE.jsonl")
    return found


def table(name: str, folder: Path, which: str = "") -> str:
    """One markdown table a machine, with what it was measured on below it; the story has all machines in one."""
    if name == STORY:
        return _story(folder)
    found = rows_by_machine(name, folder)
    return "\n".join(f"{_suite_table(rows, which)}\n\n{about(rows)}\n" for rows in found.values())


def _suite_table(rows: Sequence[Row], which: str) -> str:
    """By the suite's module: ``table(rows, which) -> (head, lines)``; the exponents stand below a series."""
    suite = suite_module(rows[0].suite)
    if rows[0].suite != SCALE:
        return markdown_table(*suite.table(rows, which))
    series = [(own, axis) for axis, own in by_axis(rows).items() if which in ("", axis)]
    return "\n\n".join(f"{markdown_table(*suite.table(*one))}\n\n{slopes(*one)}" for one in series)


def about(rows: Sequence[Row]) -> str:
    """Where, when and with what ``rows`` were measured, in a sentence."""
    threads = {row.threads: f"{row.threads} threads" for row in rows if row.threads}
    commits = [commit for commit in dict.fromkeys(row.commit for row in rows) if commit]
    versions: dict[str, dict[str, None]] = {}
    for row in rows:
        for name, version in row.versions.items():
            versions.setdefault(name, {})[version] = None
    parts = [rows[0].machine, *threads.values(), _dates(rows), *(["commit " + ", ".join(commits)] if commits else [])]
    return f"{', '.join(parts)}; {', '.join(f'{name} ' + ' / '.join(found) for name, found in versions.items())}."


def _dates(rows: Sequence[Row]) -> str:
    when = sorted({row.date for row in rows})
    return when[0] if len(when) == 1 else f"{when[0]} to {when[-1]}"


def _story(folder: Path) -> str:
    runs = rows_by_machine("pipeline", folder)
    head, lines = story.cells(runs)
    dense = story.dense_reference(_rows_if_any("against", folder))
    told = [*([" ".join(dense)] if dense else []), *(about(rows) for rows in runs.values())]
    return "\n\n".join([markdown_table(head, lines), *told]) + "\n"


def _rows_if_any(name: str, folder: Path) -> list[Row]:
    try:
        return [row for rows in rows_by_machine(name, folder).values() for row in rows]
    except NoResults:
        return []


def filled(text: str, folder: Path) -> str:
    """``text`` with every marked place filled anew."""

    def place(match: re.Match[str]) -> str:
        try:
            new = table(match["name"], folder, match["which"] or "")
        except NoResults:
            new = ""  # no digit without a measurement behind it
        return f"{match[1]}{new}{match[5]}"

    return PLACE.sub(place, text)


def default_texts() -> list[Path]:
    places = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [file for file in places if file.exists()]


def draw(folder: Path, images: Path) -> list[Path]:
    """Plots of all results: growth, of a machine and of all; ops under roofs; what suites draw of their own."""
    from benchmarks import plots
    from benchmarks.roofline import roofline

    images.mkdir(parents=True, exist_ok=True)
    drawn = []
    scale = {machine: rows for machine, rows in _machines("scale", folder).items() if by_axis(rows)}
    for machine, rows in scale.items():
        drawn.append(plots.growth(rows, images / f"scale-{machine}.png"))
    if scale:
        drawn.append(plots.scaling(scale, _rows_if_any("against", folder), images / "scaling.png"))
    floors = _machines("floors", folder)
    for machine, rows in _machines("ops", folder).items():
        if machine in floors:
            drawn.append(roofline(rows, floors[machine], images / f"roofline-{machine}.png"))
    for suite in SUITES:
        own = getattr(suite_module(suite), "draw", None)
        for rows in _machines(suite, folder).values() if own else ():
            drawn.append(own(rows, images))
    return drawn


def _machines(name: str, folder: Path) -> dict[str, list[Row]]:
    try:
        return rows_by_machine(name, folder)
    except NoResults:
        return {}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", help="NAME or NAME:TABLE; with --write or --check texts (README.md and docs)"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--images", type=Path, default=IMAGES, metavar="DIR", help="of --draw")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--write", action="store_true", help="fill the marked places")
    action.add_argument("--check", action="store_true", help="exit 1 if a marked place differs")
    action.add_argument("--draw", action="store_true", help="draw the plots")
    options = parser.parse_args(argv)
    try:
        if options.write or options.check:
            return _texts([Path(name) for name in options.names] or default_texts(), options)
        if options.draw:
            print("\n".join(f"{path} drawn" for path in draw(options.results, options.images)))
            return 0
        if not options.names:
            parser.error("give the name of a result, --write, --check or --draw")
        print("\n".join(_named(name, options.results) for name in options.names), end="")
    except (NoResults, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _named(name: str, folder: Path) -> str:
    suite, _, which = name.partition(":")
    return table(suite, folder, which)


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
