"""Tables and plots from the measured rows, so that no number in a text is typed by hand.

    python benchmarks/report/report.py pipeline              prints the tables of results/pipeline-MACHINE.jsonl
    python benchmarks/report/report.py --write README.md     fills the marked places of a text
    python benchmarks/report/report.py --check               exits 1 if a marked place or a plot differs from the rows
    python benchmarks/report/report.py --draw                draws the plots of docs/images

A marked place lies between ``<!-- bench:NAME -->`` and ``<!-- /bench -->``. NAME is a suite on all machines
(``pipeline``) or on one machine (``pipeline-amd-epyc-2-cores``), or ``story``, the table of the README. A table of the
suite follows after a colon: ``pipeline:stages`` has the seconds and the peak of every stage, ``scale:units`` a series.
A place without rows must be empty. Tables show the rows of the tasks that a full run has now, and of no other: not of
quick tasks, and not of settings given by hand. A plot contains a hash of its rows.
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

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import suites
from benchmarks.measure.records import RESULTS, ROOT, read
from benchmarks.measure.rows import Row
from benchmarks.measure.tables import bytes_text, markdown_table, not_measured
from benchmarks.measure.tasks import QUICK
from benchmarks.report import story

IMAGES = ROOT / "docs" / "images"
STORY = "story"
STAMP = "Rows"  # name of the text in a plot that holds the hash of its rows
PLACE = re.compile(
    r"(<!-- bench:(?P<name>[\w.-]+)(?::(?P<which>[\w.-]+))? -->\n)(?P<text>.*?)(<!-- /bench -->)", re.DOTALL
)


class NoResults(LookupError):
    """No result file has this name."""


class Result(NamedTuple):
    """The rows of a file that are shown, and the number of rows of tasks that a full run does not have."""

    rows: list[Row]
    left_out: int


def results(name: str, folder: Path) -> dict[str, Result]:
    """The results of ``name``, a suite or a suite and a machine, by machine."""
    suite = name.partition("-")[0]
    by_machine: dict[str, Result] = {}
    for file in sorted(folder.glob(f"{suite}-*.jsonl")):
        rows = [row for row in read(file) if not row.task.startswith(QUICK)] if name in (suite, file.stem) else []
        shown = [row for row in rows if row.task in full_tasks(row.suite, row.device)]
        if shown:
            by_machine[shown[0].machine] = Result(shown, len(rows) - len(shown))
    if not by_machine:
        raise NoResults(f"no result in {folder} is called {name}-MACHINE.jsonl")
    return by_machine


@functools.cache
def full_tasks(suite: str, device: str) -> frozenset[str]:
    """The keys of the tasks of a full run."""
    return frozenset(task.key for task in suites.suite(suite).tasks(device, False))


def rows_by_machine(name: str, folder: Path) -> dict[str, list[Row]]:
    """The rows of `results`; none if there is no such result."""
    try:
        return {machine: result.rows for machine, result in results(name, folder).items()}
    except NoResults:
        return {}


# ---------------------------------------------------------------- tables


def table(name: str, folder: Path, which: str = "") -> str:
    """A markdown table for each machine, followed by its conditions. The story has all machines in one table."""
    if name == STORY:
        return _story(folder)
    shown = [(body, result) for result in results(name, folder).values() if (body := _tables(result.rows, which))]
    return "\n".join(f"{body}\n\n{conditions_text(*result)}\n" for body, result in shown)


def _tables(rows: Sequence[Row], which: str) -> str:
    """The tables of a suite with their notes, followed by what was not measured."""
    tables = suites.suite(rows[0].suite).tables(rows, which)
    parts = [part for t in tables for part in (markdown_table(t.head, t.lines) if t.lines else "", t.note) if part]
    # The rows that belong to the table: their case or one of their settings has its name.
    of_table = [row for row in rows if which in ("", row.case, *map(str, row.settings.values()))]
    return "\n\n".join([*parts, *not_measured(of_table, tables)])


def conditions_text(rows: Sequence[Row], left_out: int = 0) -> str:
    """Where, when and with what ``rows`` were measured, in a sentence, and how many rows are not shown."""
    whole = [row for row in rows if row.threads and "threads" not in row.settings]  # without the rates of one thread
    threads = {row.threads: f"{row.threads} thread{'s' * (row.threads != 1)}" for row in whole}
    memory = dict.fromkeys(bytes_text(row.memory_bytes) for row in rows if row.memory_bytes)
    commits = dict.fromkeys(row.commit or "unknown" for row in rows)
    versions: dict[str, dict[str, None]] = {}
    for row in rows:
        for name, version in row.versions.items():
            versions.setdefault(name, {})[version] = None
    when = sorted({row.date for row in rows})
    dates = " to ".join(dict.fromkeys((when[0], when[-1])))
    parts = [rows[0].machine, *threads.values(), *memory, dates, f"commit {', '.join(commits)}"]
    packages = ", ".join(f"{name} " + " / ".join(of_package) for name, of_package in versions.items())
    return f"{', '.join(parts)}; {packages}." + (f" {left_out} rows of other tasks left out." if left_out else "")


def _story(folder: Path) -> str:
    runs = results("pipeline", folder)
    head, lines = story.cells({machine: result.rows for machine, result in runs.items()})
    dense = story.dense_reference(_all(rows_by_machine("against", folder)))
    notes = [*([" ".join(dense)] if dense else []), *(conditions_text(*result) for result in runs.values())]
    return "\n\n".join([markdown_table(head, lines), *notes]) + "\n"


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
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


# ---------------------------------------------------------------- plots


class Plot(NamedTuple):
    """A plot of the docs: its file, its rows, and the function that draws it into the file."""

    path: Path
    rows: list[Row]
    draw: Callable[[Path], Path]

    def digest(self) -> str:
        """A hash of the rows."""
        return hashlib.sha256(json.dumps([row.asdict() for row in self.rows]).encode()).hexdigest()[:12]


def plots_of(folder: Path, images: Path) -> list[Plot]:
    """The plots of all results. Matplotlib is imported only to draw them."""
    from benchmarks.suites.scale import by_axis

    def plot(name: str, rows: list[Row], module: str, function: str, *arguments: Any) -> Plot:
        def draw(path: Path) -> Path:
            return getattr(importlib.import_module(f"benchmarks.report.{module}"), function)(*arguments, path)

        return Plot(images / f"{name}.png", rows, draw)

    scale = {machine: rows for machine, rows in rows_by_machine("scale", folder).items() if by_axis(rows)}
    against, floors = rows_by_machine("against", folder), rows_by_machine("floors", folder)
    plots = [plot(f"scale-{machine}", rows, "plots", "growth", rows) for machine, rows in scale.items()]
    if scale:
        rows = [*_all(scale), *_all(against)]
        plots.append(plot("scaling", rows, "plots", "scaling", scale, _all(against)))
    for machine, rows in rows_by_machine("ops", folder).items():
        if roofs := floors.get(machine):
            plots.append(plot(f"roofline-{machine}", [*rows, *roofs], "roofline", "roofline", rows, roofs))
    return plots + [plot(f"against-{machine}", rows, "plots", "by_peer", rows) for machine, rows in against.items()]


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
    """The plots that do not exist, or were drawn from other rows."""
    return [plot.path for plot in plots_of(folder, images) if _stamp(plot.path) != plot.digest()]


def _stamp(path: Path) -> str | None:
    from PIL import Image

    if not path.exists():
        return None
    with Image.open(path) as image:
        return image.info.get(STAMP)


# ---------------------------------------------------------------- the command


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = "NAME or NAME:TABLE; with --write or --check texts (README.md and docs)"
    parser.add_argument("names", nargs="*", help=names)
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
        for name in options.names:
            suite, _, which = name.partition(":")
            print(table(suite, options.results, which))
    except (NoResults, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _plots(options: argparse.Namespace) -> int:
    stale = stale_plots(options.results, options.images)
    for path in stale:
        print(f"{path}: differs from the results; run report.py --draw")
    return int(bool(stale))


def _texts(files: Sequence[Path], options: argparse.Namespace) -> int:
    stale = 0
    for file in files:
        text = file.read_text()
        new = filled(text, options.results)
        if new == text:
            continue
        stale += 1
        if options.write:
            file.write_text(new)
        print(f"{file}: {'written' if options.write else 'differs from the results; run report.py --write'}")
    return int(options.check and stale > 0)


if __name__ == "__main__":
    sys.exit(main())
