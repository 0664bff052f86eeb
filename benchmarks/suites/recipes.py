"""Suite "recipes": how far the pictures of two seeds differ, what they keep, and how long they take, by recipe.

    python -m benchmarks.suites.recipes                                        all runs, both recipes, five seeds
    python -m benchmarks.suites.recipes hopf --recipes stable --seeds 0 1      a part of them, which is another task

The rows of a run are written as soon as it ends.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import records
from benchmarks.measure.rows import Row
from benchmarks.measure.tables import Table, number_text, plain_table, shares_text, spread_text
from benchmarks.measure.tasks import QUICK, Task, conditions_of, python_task, run_tasks, through_its_end
from benchmarks.suites.recipe_fits import KEPT, NAME, RUNS, SEEDS, SMALL, SUITES
from mmphate_gpu.params import RECIPES

PARTS = tuple(RUNS)
STABLE, USUAL = "stable", "default"
ESTIMATE = 120.0  # seconds of a run on two cores
# Goals of the recipe "stable".
MOST_PROCRUSTES = 0.02
LEAST_KEPT = {"hopf": (0.30, 0.46), "hopf_pitchfork": (0.246, 0.30), "hopf_pitchfork_warped": (0.267, 0.30)}
MOST_TIME = 1.2  # times the defaults, on the bifurcation suite
# Kept of the 10 and 40 nearest slices, as Xie et al. (arXiv 2406.01969) publish them.
PUBLISHED = {"hopf": (0.2207, 0.4009), "hopf_pitchfork": (0.1395, 0.2516), "hopf_pitchfork_warped": (0.1324, 0.2246)}
T_SNE = {"hopf": (0.2763, 0.2453), "hopf_pitchfork": (0.2460, 0.2024), "hopf_pitchfork_warped": (0.2665, 0.2367)}


def tasks(
    device: str,
    quick: bool,
    only: Sequence[str] = (),
    *,
    recipes: Sequence[str] = tuple(RECIPES),
    seeds: Sequence[int] = SEEDS,
) -> list[Task]:
    """A task for each run. With fewer recipes or other seeds it is another task."""
    runs = only or ((SMALL,) if quick else PARTS)
    return [_task(run, device, QUICK if quick else "", tuple(recipes), tuple(seeds)) for run in runs]


def _task(run: str, device: str, before: str, recipes: tuple[str, ...], seeds: tuple[int, ...]) -> Task:
    changes: dict[str, tuple[Any, ...]] = {
        name: values
        for name, values, usual in (("recipes", recipes, tuple(RECIPES)), ("seeds", seeds, SEEDS))
        if values != usual
    }
    words = [word for name, values in changes.items() for word in (f"--{name}", *map(str, values))]
    key = ", ".join([before + run.removeprefix(before), *(f"{n} {' '.join(map(str, v))}" for n, v in changes.items())])
    estimate = 4.0 if run == SMALL else ESTIMATE
    return python_task(
        NAME, key, "recipe_fits", run, *words, device=device, timeout=3600.0, estimate=estimate, fields={"case": run}
    )


# ---------------------------------------------------------------- tables

HEAD = ("run", "recipe", "t", "Procrustes", "kept 10 / 40", "published", "t-SNE", "stress", "seconds", "islands")


def tables(rows: Sequence[Row], which: str = "") -> list[Table]:
    """A line for each run and recipe."""
    done = sorted((row for row in rows if not row.skipped), key=_place)
    return [Table(HEAD, [_cells(row) for row in done])]


def _place(row: Row) -> tuple[int, int]:
    return [*RUNS, SMALL].index(row.case), [*RECIPES].index(row.settings["recipe"])


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.case,
        row.settings["recipe"],
        _range_text(row.statistics["t"], "d"),
        number_text(row.procrustes, ".2g"),
        shares_text(row.preservation),
        _pair_text(PUBLISHED.get(row.case)),
        _pair_text(T_SNE.get(row.case)),
        _range_text(row.statistics["stress"], ".3f"),
        spread_text(row),
        _range_text(row.statistics["islands"], ",d"),
    )


def _range_text(values: Sequence[float], form: str) -> str:
    """The least and the largest of ``values``, or what both are.

    >>> _range_text([17, 20, 18], "d"), _range_text([0.2004, 0.2001], ".3f")
    ('17 to 20', '0.200')
    """
    return " to ".join(dict.fromkeys(format(extreme, form) for extreme in (min(values), max(values))))


def _pair_text(pair: tuple[float, float] | None) -> str:
    return shares_text(None if pair is None else dict(zip(map(str, KEPT), pair, strict=True)))


# ---------------------------------------------------------------- goals


def missed_goals(rows: Sequence[Row]) -> list[str]:
    """A sentence for each goal that the recipe "stable" misses."""
    by_recipe = {(row.case, row.settings.get("recipe")): row for row in rows if not row.skipped}
    stable = [row for (_, recipe), row in by_recipe.items() if recipe == STABLE and row.case in RUNS]
    return [
        sentence
        for row in stable
        for sentence in (*_apart(row), *_forgotten(row), *_slow(row, by_recipe.get((row.case, USUAL))))
    ]


def _apart(row: Row) -> list[str]:
    if (row.procrustes or 0) <= MOST_PROCRUSTES:
        return []
    return [f"{row.case}, {STABLE}: Procrustes {row.procrustes:.2g} between seeds, goal at most {MOST_PROCRUSTES}"]


def _forgotten(row: Row) -> list[str]:
    kept = row.preservation or {}
    return [
        f"{row.case}, {STABLE}: keeps {kept.get(str(k), 0):.3f} of {k} neighbors, goal at least {goal}"
        for k, goal in zip(KEPT, LEAST_KEPT.get(row.case, (0, 0)), strict=True)
        if kept.get(str(k), 0) < goal
    ]


def _slow(row: Row, usual: Row | None) -> list[str]:
    if usual is None or row.case not in SUITES or (times := (row.seconds or 0) / (usual.seconds or 1)) <= MOST_TIME:
        return []
    return [f"{row.case}, {STABLE}: {times:.2f} times the seconds of the defaults, goal at most {MOST_TIME}"]


# ---------------------------------------------------------------- the command


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("runs", nargs="*", metavar="RUN", help=", ".join(PARTS))
    add("--recipes", nargs="+", default=tuple(RECIPES), choices=tuple(RECIPES))
    add("--seeds", nargs="+", default=SEEDS, type=int, metavar="N", help="seeds of the fits (default: %(default)s)")
    add("--quick", action="store_true", help="a small run")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: %(default)s)")
    add("--out", type=Path, default=records.RESULTS, metavar="DIR", help="folder of the results")
    add("--fresh", action="store_true", help="also run what has valid rows")
    options = parser.parse_args(argv)
    if unknown := [run for run in options.runs if run not in PARTS]:
        parser.error(f"RUN {unknown[0]} is unknown; accepted: {', '.join(PARTS)}")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the rows of each run, print the table and the missed goals; 1 if a task failed."""
    options = parse(argv)
    device, now = conditions_of(options.device)
    with records.locked(options.out), through_its_end():
        chosen = tasks(device, options.quick, options.runs, recipes=options.recipes, seeds=options.seeds)
        rows, code = run_tasks(chosen, options.out, now, fresh=options.fresh)
    ((head, lines, _),) = tables(rows)
    print(plain_table(head, lines), *missed_goals(rows), sep="\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
