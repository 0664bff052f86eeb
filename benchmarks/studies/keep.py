"""The JSON files of the studies, in docs/findings."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np

from benchmarks.measure.conditions import conditions
from benchmarks.measure.records import ROOT
from mmphate_gpu.analysis.result import Result
from mmphate_gpu.runtime.atomic import whole_file

FOLDER = ROOT / "docs" / "findings"
DIGITS = 3  # significant digits: more would be noise
# A study keeps what its page shows: of arrays with more numbers only those with these names.
MOST_NUMBERS = 60
KEPT = {"values", "mean", "bound", "dsmi", "score", "accuracy_change", "spearman", "spearman_q", "silhouette", "table"}


def kept(study: str, name: str, entry: dict[str, Any]) -> None:
    """Write the measures of ``entry`` into the entry ``name`` of ``study``, with the machine and the commit.

    Other measures and other entries stay.
    """
    path = FOLDER / f"{study}.json"
    entries = read(study) if path.exists() else {}
    entries[name] = {**entries.get(name, {}), "conditions": _conditions(), **entry}
    text = json.dumps(rounded(dict(sorted(entries.items()))), indent=1, allow_nan=False)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with whole_file(path, overwrite=True) as new:
        new.write_text(_compact(text) + "\n", encoding="utf-8")


def read(study: str) -> dict[str, Any]:
    entries: dict[str, Any] = json.loads((FOLDER / f"{study}.json").read_text(encoding="utf-8"))
    return entries


def summary_of(result: Result) -> dict[str, Any]:
    """The line of ``result`` and the fields that a study keeps."""
    return {"line": repr(result), **pruned(result.to_dict())}


def pruned(value: Any) -> Any:
    """``value`` without large arrays whose names are not in `KEPT`."""
    if not isinstance(value, dict):
        return value
    return {name: pruned(item) for name, item in value.items() if name in KEPT or n_numbers(item) <= MOST_NUMBERS}


def n_numbers(value: Any) -> int:
    """How many entries an array or nested lists have. A dict counts as one, because `pruned` looks into it."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return sum(map(n_numbers, value))
    return 1


def _conditions() -> dict[str, Any]:
    wanted = ("machine", "commit", "date", "threads")
    return {name: value for name, value in conditions("cpu").items() if name in wanted}


def rounded(value: Any) -> Any:
    """``value`` in types of JSON, with `DIGITS` significant digits; None for what is not finite."""
    if isinstance(value, dict):
        return {str(name): rounded(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [rounded(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, (str, int, bool, type(None))) else str(value)


def _compact(text: str) -> str:
    """JSON text with every list of numbers in one line."""
    return re.sub(r"\[[^\[\]{}]*\]", lambda match: re.sub(r"\s+", " ", match[0]), text)
