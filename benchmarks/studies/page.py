"""Tables of docs/findings.md from the JSON files of the studies, so that no number there is typed by hand.

    python -m benchmarks.studies.page            fills the marked places
    python -m benchmarks.studies.page --check    exits 1 if a marked place differs from the files

A marked place lies between ``<!-- study:NAME -->`` and ``<!-- /study -->``, and NAME is a key of `TABLES`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks.measure.records import ROOT
from benchmarks.measure.tables import markdown_table
from benchmarks.studies.keep import read
from mmphate_gpu.runtime.atomic import whole_file

PAGE = ROOT / "docs" / "findings.md"
PLACE = re.compile(r"(<!-- study:(?P<name>[\w-]+) -->\n)(?P<text>.*?)(<!-- /study -->)", re.DOTALL)
LEVEL = 0.05
Entries = Mapping[str, Mapping[str, Any]]
Line = tuple[str, ...]


def array(values: Any) -> np.ndarray:
    """Numbers of a JSON file; null is NaN."""
    return np.array(values, dtype=float)


def signed(value: float | None, digits: int = 2) -> str:
    return "" if value is None or not np.isfinite(value) else f"{value:+.{digits}f}"


def plain(value: float | None, digits: int = 2) -> str:
    return "" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def with_measure(entries: Entries, measure: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The entries that have ``measure``, with their names."""
    return ((name, entry) for name, entry in entries.items() if measure in entry)


# ---------------------------------------------------------------- curves over epochs

# The mean over time steps (or units) of each measure, a number for each epoch.
CURVES: dict[str, Callable[[Mapping[str, Any]], np.ndarray]] = {
    "intra-step entropy of the picture": lambda e: array(e["intra"]["values"]).mean(1),
    "inter-step entropy of the picture": lambda e: array(e["inter"]["mean"]),
    "intra-step entropy of the states": lambda e: array(e["states"]["values"]).mean(1),
    "score of the linear probe": lambda e: array(e["probe"]["score"]).mean(1),
    "information of single units": lambda e: array(e["information"]["mean"]).mean(1),
    "information of all units, bound by the probe": lambda e: array(e["information"]["bound"]).mean(1),
    "DSMI": lambda e: array(e["information"]["dsmi"]).mean(1),
    "accuracy lost without a time step": lambda e: -array(e["timesteps"]["accuracy_change"]).mean(1),
}


def agreement(entries: Entries) -> tuple[Line, list[Line]]:
    """Rank correlation of the curves of two networks, within a cell and between cells; and with the accuracy."""
    lines = []
    for measure, curve in CURVES.items():
        curves = {name: curve(entry) for name, entry in entries.items()}
        pairs = [(a.split("-")[0] == b.split("-")[0], _rank(curves[a], curves[b])) for a, b in combinations(curves, 2)]
        within, between = ([value for same, value in pairs if same is wanted] for wanted in (True, False))
        accuracy = [_rank(curves[name], array(entries[name]["metrics"]["test_accuracy"])) for name in curves]
        lines.append((measure, *(_span(values) for values in (within, between, accuracy))))
    return ("curve over epochs", "same cell, other seed", "other cell", "held-out accuracy"), lines


def _rank(first: np.ndarray, second: np.ndarray) -> float:
    return float(spearmanr(first, second, nan_policy="omit").statistic)


def _span(values: Sequence[float]) -> str:
    return f"{np.median(values):+.2f} ({min(values):+.2f} to {max(values):+.2f})"


def last_values(entries: Entries) -> tuple[Line, list[Line]]:
    """Each measure at the last epoch: the mean over the seeds of a cell, with the least and the greatest."""
    cells = list(dict.fromkeys(name.split("-")[0] for name in entries))
    lines = []
    for measure, curve in CURVES.items():
        values = [[curve(e)[-1] for name, e in entries.items() if name.split("-")[0] == cell] for cell in cells]
        lines.append((measure, *(f"{np.mean(v):.2f} ({min(v):.2f} to {max(v):.2f})" for v in values)))
    return ("at the last epoch", *cells), lines


# ---------------------------------------------------------------- phases


def phases(entries: Entries) -> tuple[Line, list[Line]]:
    lines = [
        (name, _phases_text(entry["phases"]), _useful_text(entry.get("useful"))) for name, entry in entries.items()
    ]
    return ("run", "phases of the entropy (epochs, bits an epoch)", "compressions"), lines


def _phases_text(phases: Mapping[str, Any]) -> str:
    columns = (phases[name] for name in ("start", "stop", "trend", "slope"))
    rows = zip(*columns, strict=True)
    return "; ".join(f"{first}–{last} {trend} ({slope:+.3f})" for first, last, trend, slope in rows)


def _useful_text(useful: Mapping[str, Any] | None) -> str:
    if not useful or not useful["verdict"]:
        return "none"
    columns = (useful[name] for name in ("start", "stop", "verdict", "change"))
    return "; ".join(
        f"{start}–{stop} {verdict} ({signed(change)})" for start, stop, verdict, change in zip(*columns, strict=True)
    )


def places_of_change(entries: Entries) -> tuple[Line, list[Line]]:
    """Where the phases of the bifurcation suite meet."""
    lines = []
    for name, entry in with_measure(entries, "phases"):
        meet = ["; ".join(map(str, entry[of]["start"][1:])) or "none" for of in ("phases", "states_phases")]
        lines.append((name, *meet))
    return ("run", "phases of the picture begin at epoch", "phases of the states begin at epoch"), lines


# ---------------------------------------------------------------- units and performance


def importance(entries: Entries) -> tuple[Line, list[Line]]:
    """Spearman between the rankings of the units, with the permutation p."""
    pairs = [tuple(pair) for pair in next(iter(entries.values()))["importance"]["pairs"]]
    lines = []
    for name, entry in entries.items():
        result = entry["importance"]
        values = zip(result["spearman"], result["p"], strict=True)
        lines.append((name, *(f"{signed(rho)} (p {p:.3f})" for rho, p in values)))
    return ("run", *(" and ".join(pair) for pair in pairs)), lines


def follows(entries: Entries) -> tuple[Line, list[Line]]:
    """The strongest correlation of entropy and held-out accuracy, and the steps at which any lag stays significant."""
    lines = []
    for name, entry in entries.items():
        levels, changes = entry["follows"], entry["follows"]["changes"]
        lines.append((name, *_strongest(levels), *_strongest(changes)))
    each = ("strongest Spearman", "at lag", "least p, corrected", f"steps with p < {LEVEL}")
    return ("run", *each, *(f"changes: {text}" for text in each)), lines


def _strongest(result: Mapping[str, Any]) -> Line:
    rho, q = array(result["spearman"]), array(result["spearman_q"])
    if np.isnan(rho).all():
        return "", "", "", ""
    step, lag = np.unravel_index(np.nanargmax(np.abs(rho)), rho.shape)
    steps = int((np.nan_to_num(q, nan=1.0) < LEVEL).any(1).sum())
    return signed(rho[step, lag]), str(result["lag"][lag]), plain(np.nanmin(q), 3), f"{steps} of {len(rho)}"


# ---------------------------------------------------------------- trust


def fewer_steps(entries: Entries) -> tuple[Line, list[Line]]:
    """The metrics of a study of time steps: mean and standard deviation over its repeats."""
    lines, metrics = [], []
    for name, entry in with_measure(entries, "steps"):
        study = entry["steps"]
        metrics = study["metrics"]
        lines.append((name, "all", *(plain(value, 3) for value in array(study["full"]))))
        for size, values in zip(study["sizes"], array(study["values"]), strict=True):
            texts = (f"{m:.3f} ± {s:.3f}" for m, s in zip(values.mean(0), values.std(0, ddof=1), strict=True))
            lines.append((name, str(size), *texts))
    return ("run", "time steps", *metrics), lines


SHUFFLES = {"timesteps": "shuffled time steps", "phase": "random phases"}


def nulls(entries: Entries) -> tuple[Line, list[Line]]:
    lines, metrics = [], []
    for name, entry in with_measure(entries, "nulls"):
        result = entry["nulls"]
        metrics = result["metrics"]
        lines.append((name, "data", *(plain(value, 3) for value in array(result["data"]))))
        for shuffle, p in zip(result["kinds"], array(result["p"]), strict=True):
            texts = (f"p {value:.2f}" for value in p)
            lines.append((name, SHUFFLES.get(shuffle, f"shuffled {shuffle}"), *texts))
    return ("run", "trace", *metrics), lines


def baselines(entries: Entries) -> tuple[Line, list[Line]]:
    lines, metrics = [], []
    for name, entry in with_measure(entries, "baselines"):
        result = entry["baselines"]
        metrics = result["metrics"]
        for method, values, seconds in zip(result["methods"], array(result["table"]), result["seconds"], strict=False):
            lines.append((name, method, *(plain(value, 3) for value in values), plain(seconds, 1)))
    return ("run", "method", *metrics, "seconds"), lines


def trust(entries: Entries) -> tuple[Line, list[Line]]:
    lines = []
    for name, entry in entries.items():
        result = entry["trust"]
        islands = result["islands"]
        kept = " / ".join(plain(value) for value in result["inter"])
        spearman = plain(result["geodesic_spearman"])
        lines.append((name, kept, spearman, plain(result["stress"]), str(islands), plain(result["largest_island"])))
    kept = "slices kept of " + " / ".join(map(str, result["preservation_k"])) if lines else ""
    return ("run", kept, "geodesic Spearman", "stress", "islands", "share of the largest"), lines


def communities(entries: Entries) -> tuple[Line, list[Line]]:
    lines = []
    for name, entry in with_measure(entries, "communities"):
        picture, states = entry["communities"], entry["trace_communities"]
        lines.append((name, plain(picture["ari"][0]), plain(states["ari"][0]), plain(states["p"][0])))
    return ("run", "ARI with the groups, picture", "ARI with the groups, states", "p, states"), lines


TABLES: dict[str, tuple[str, Callable[[Entries], tuple[Line, list[Line]]]]] = {
    "digits-agreement": ("digits", agreement),
    "digits-last": ("digits", last_values),
    "digits-phases": ("digits", phases),
    "digits-importance": ("digits", importance),
    "digits-follows": ("digits", follows),
    "digits-steps": ("digits", fewer_steps),
    "digits-nulls": ("digits", nulls),
    "digits-baselines": ("digits", baselines),
    "digits-trust": ("digits", trust),
    "bifurcation-changes": ("bifurcation", places_of_change),
    "bifurcation-communities": ("bifurcation", communities),
    "bifurcation-trust": ("bifurcation", trust),
    "bifurcation-steps": ("bifurcation", fewer_steps),
    "bifurcation-nulls": ("bifurcation", nulls),
    "bifurcation-baselines": ("bifurcation", baselines),
}


def table(name: str) -> str:
    study, make = TABLES[name]
    return markdown_table(*make(read(study)))


def filled(text: str) -> str:
    """``text`` with every marked place filled."""
    return PLACE.sub(lambda match: f"{match[1]}{table(match['name'])}\n{match[4]}", text)


def main(arguments: Sequence[str]) -> int:
    text = PAGE.read_text(encoding="utf-8")
    new = filled(text)
    if arguments == ["--check"]:
        return int(new != text)
    with whole_file(PAGE, overwrite=True) as file:
        file.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
