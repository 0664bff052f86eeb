"""The numbers of CPU runs with which those of a GPU are compared; ``expected.json`` carries them to its machine.

`make_expected` makes them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.measure.conditions import hash_of
from benchmarks.measure.records import RESULTS, read

FILE = Path(__file__).with_suffix(".json")
# The files that decide the numbers: the sources of the library.
LIBRARY = ("mmphate_gpu/**/*.py", "csrc/c*/*")
# Whole runs by name, with the case whose trace and options they have.
RUNS = {
    "walk": "walk-1600x6x10",
    "hopf": "suite-hopf-sparse",
    "hopf and pitchfork": "suite-hopf_pitchfork-sparse",
    "small walk": "walk-small",
    "small suite": "suite-small-sparse",
}
SMALL_RUNS = ("small walk", "small suite")
HAR = "har-127x128x30x6"


def expected() -> dict[str, Any]:
    """The carried numbers; ``same_sources`` says whether these sources of the library made them."""
    carried = json.loads(FILE.read_text()) if FILE.exists() else {"runs": {}, "pipeline": {}}
    return {**carried, "same_sources": carried.get("sources") == hash_of(LIBRARY)}


def run_of_rows(case: str) -> dict[str, Any]:
    """t and stress of a case in the committed rows of a CPU; empty without such a row."""
    for path in sorted(RESULTS.glob("pipeline-*.jsonl")):
        for row in read(path):
            if (row.case, row.stage, row.device) == (case, "total", "cpu") and row.t is not None:
                return {"t": row.t, "stress": row.stress, "commit": row.commit}
    return {}
