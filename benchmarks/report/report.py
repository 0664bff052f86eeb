"""Tables and plots from the measured rows, so that none is typed by hand.

    python benchmarks/report/report.py pipeline              prints the tables of results/pipeline-MACHINE.jsonl
    python benchmarks/report/report.py --write README.md     fills the places marked in a text
    python benchmarks/report/report.py --check               exits 1 if a marked place or a plot differs from the rows
    python benchmarks/report/report.py --draw                draws the plots of docs/images

A marked place stands between ``<!-- bench:NAME -->`` and ``<!-- /bench -->``. NAME is a suite, of all machines
(``pipeline``) or of one (``pipeline-amd-epyc-2-cores``), or ``story``, the table of the README. Behind a colon stands
which of the suite's tables: ``pipeline:stages`` has seconds and peak of every stage, ``scale:units`` one series. A
place whose rows are not there has to be empty. Rows stand there of the tasks that a full run has now, and of no other:
not of quick tasks, whose inputs are small, nor of settings given by hand. A plot holds a hash of the rows it was drawn
from.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.measure.records import RESULTS, read  # noqa: E402
from benchmarks.measure.rows import (  # noqa: E402
    Row,
    by_axis,
    bytes_text,
    markdown_table,
    not_measured,
    slopes,
)
from benchmarks.measure.tasks import QUICK  # noqa: E402
from benchmarks.report import story  # noqa: E402
from benchmarks.run import SUITES, suite_module  # noqa: E402

IMAGES = ROOT / "docs" / "images"
STORY, SCALE = "story", "scale"
STAMP = "Rows"  # of the text in a plot that holds the hash of its rows
PLACE = re.compile(
    r"(<!-- bench:(?P<name>[\w.-]+)(?::(?P<which>[\w.-]+))? -->\n)(?P<text>.*?)(<!-- /bench -->)", re.DOTALL
)


class NoResults(LookupError):
    """A name that no result file has."""


class Result(NamedTuple):
    """The rows of one file that are shown, and how many are not: of tasks that a full run does not have."""

    rows: list[Row]
    left_out: int


def results(name: str, folder: Path) -> dict[str, Result]:
    """Those of ``name``, a suite or a suite and a machine, by machine."""
    suite = name.partition("-")[0]
    found: dict[str, Result] = {}
    for file in sorted(folder.glob(f"{suite}-*.jsonl")):
        rows = [row for row in read(file) if not row.task.startswith(QUICK)] if name in (suite, file.stem) else []
        shown = [row for row in rows if row.task in full_tasks(row.suite, row.device)]
        if shown:
            found[shown[0].machine] = Result(shown, len(rows) - len(shown))
    if not found:
        raise NoResults(f"no result in {folder} is called {name}-MACHINE.jsonl")
    return found


@functools.cache
def full_tasks(suite: str, device: str) -> frozenset[str]:
    """The keys of the tasks of a full run."""
    return frozenset(task.key for task in suite_module(suite).tasks(device, False))


def rows_by_machine(name: str, folder: Path) -> dict[str, list[Row]]:
    """The rows of `results` alone; none where there is no such result."""
    try:
        return {machine: found.rows for machine, found in results(name, folder).items()}
    except NoResults:
        return {}


def table(name: str, folder: Path, which: str = "") -> str:
    """One markdown table a machine, with what it was measured on below it; the story has all machines in one."""
    if name == STORY:
        return _story(folder)
    found = results(name, folder)
    shown = [(body, one) for one in found.values() if (body := _suite_table(one.rows, which))]
    return "\n".join(f"{body}\n\n{about(*one)}\n" for body, one in shown)


def _suite_table(rows: Sequence[Row], which: str) -> str:
    """By the suite's module: ``table(rows, which) -> (head, lines)``; below it the exponents of a series, and what was
    not measured."""
    suite = suite_module(rows[0].suite)
    if rows[0].suite == SCALE:
        series = [(own, axis) for axis, own in by_axis(rows).items() if which in ("", axis)]
        tables = [part for one in series for part in (markdown_table(*suite.table(*one)), slopes(*one))]
        return "\n\n".join([*tables, *not_measured(_of_table(rows, which))])
    head, lines = suite.table(rows, which)
    return "\n\n".join([*[markdown_table(head, lines)] * bool(lines), *not_measured(_of_table(rows, which), lines)])


def _of_table(rows: Sequence[Row], which: str) -> list[Row]:
    """The rows that belong to the table ``which`` of a suite, by their case or what their settings say; all to ""."""
    return [row for row in rows if which in ("", row.case, *map(str, row.settings.values()))]


def about(rows: Sequence[Row], left_out: int = 0) -> str:
    """Where, when and with what ``rows`` were measured, in a sentence, and how many others their file has."""
    whole = [row for row in rows if row.threads and "threads" not in row.settings]  # not of the rates of one thread
    threads = {row.threads: f"{row.threads} thread{'s' * (row.threads != 1)}" for row in whole}
    memory = dict.fromkeys(bytes_text(row.memory_bytes) for row in rows if row.memory_bytes)
    commits = dict.fromkeys(row.commit or "unknown" for row in rows)
    versions: dict[str, dict[str, None]] = {}
    for row in rows:
        for name, version in row.versions.items():
            versions.setdefault(name, {})[version] = None
    parts = [rows[0].machine, *threads.values(), *memory, _dates(rows), f"commit {', '.join(commits)}"]
    told = f"{', '.join(parts)}; {', '.join(f'{name} ' + ' / '.join(found) for name, found in versions.items())}."
    return told + (f" {left_out} rows of other tasks left out." if left_out else "")


def _dates(rows: Sequence[Row]) -> str:
    when = sorted({row.date for row in rows})
    return when[0] if len(when) == 1 else f"{when[0]} to {when[-1]}"


def _story(folder: Path) -> str:
    runs = results("pipeline", folder)
    head, lines = story.cells({machine: found.rows for machine, found in runs.items()})
    dense = story.dense_reference(_all(rows_by_machine("against", folder)))
    told = [*([" ".join(dense)] if dense else []), *(about(*found) for found in runs.values())]
    return "\n\n".join([markdown_table(head, lines), *told]) + "\n"


def _all(runs: dict[str, list[Row]]) -> list[Row]:
    return [row for rows in runs.values() for row in rows]


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


class Plot(NamedTuple):
    """A plot of the docs: its file, the rows it shows, and what draws it there."""

    path: Path
    rows: list[Row]
    draw: Callable[[Path], Path]

    def digest(self) -> str:
        """A hash of the rows."""
        return hashlib.sha256(json.dumps([row.asdict() for row in self.rows]).encode()).hexdigest()[:12]


def plots_of(folder: Path, images: Path) -> list[Plot]:
    """Of all results: growth, of a machine and of all; ops under roofs; what suites draw of their own.

    What a suite draws is ``<suite>-<machine>.png``. Matplotlib is loaded only to draw.
    """

    def drawer(module: str, function: str, *given: Any) -> Callable[[Path], Path]:
        return lambda path: getattr(importlib.import_module(f"benchmarks.report.{module}"), function)(*given, path)

    scale = {machine: rows for machine, rows in rows_by_machine(SCALE, folder).items() if by_axis(rows)}
    against, floors = _all(rows_by_machine("against", folder)), rows_by_machine("floors", folder)
    found = [Plot(images / f"scale-{m}.png", rows, drawer("plots", "growth", rows)) for m, rows in scale.items()]
    if scale:
        rows = [*_all(scale), *against]
        found.append(Plot(images / "scaling.png", rows, drawer("plots", "scaling", scale, against)))
    for machine, rows in rows_by_machine("ops", folder).items():
        if roofs := floors.get(machine):
            draw_roofs = drawer("roofline", "roofline", rows, roofs)
            found.append(Plot(images / f"roofline-{machine}.png", [*rows, *roofs], draw_roofs))
    for suite in SUITES:
        own = getattr(suite_module(suite), "draw", None)
        for machine, rows in rows_by_machine(suite, folder).items() if own else ():
            found.append(Plot(images / f"{suite}-{machine}.png", rows, functools.partial(_by_suite, own, rows)))
    return found


def _by_suite(own: Callable[[Sequence[Row], Path], Path], rows: list[Row], path: Path) -> Path:
    return own(rows, path.parent)


def draw(folder: Path, images: Path) -> list[Path]:
    """Draw `plots_of` the results, each with the hash of its rows in the file."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    images.mkdir(parents=True, exist_ok=True)
    plots = plots_of(folder, images)
    for plot in plots:
        plot.draw(plot.path)
        info = PngInfo()
        info.add_text(STAMP, plot.digest())
        with Image.open(plot.path) as image:
            image.load()
            image.save(plot.path, pnginfo=info, dpi=image.info["dpi"])
    return [plot.path for plot in plots]


def stale_plots(folder: Path, images: Path) -> list[Path]:
    """The plots that are not there, or were drawn from other rows."""
    return [plot.path for plot in plots_of(folder, images) if _stamp(plot.path) != plot.digest()]


def _stamp(path: Path) -> str | None:
    from PIL import Image

    if not path.exists():
        return None
    with Image.open(path) as image:
        return image.info.get(STAMP)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", help="NAME or NAME:TABLE; with --write or --check texts (README.md and docs)"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--images", type=Path, default=IMAGES, metavar="DIR", help="of --draw and --check")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--write", action="store_true", help="fill the marked places")
    action.add_argument("--check", action="store_true", help="exit 1 if a marked place or a plot differs")
    action.add_argument("--draw", action="store_true", help="draw the plots")
    options = parser.parse_args(argv)
    try:
        if options.write or options.check:
            code = _texts([Path(name) for name in options.names] or default_texts(), options)
            return code if options.write or options.names else max(code, _plots(options))
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


def _plots(options: argparse.Namespace) -> int:
    stale = stale_plots(options.results, options.images)
    for path in stale:
        print(f"{path}: differs from the results; run report.py --draw")
    return int(bool(stale))


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
