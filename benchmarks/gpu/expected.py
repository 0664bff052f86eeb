"""The numbers of CPU runs that those of a GPU are compared with. ``expected.json`` carries them to the GPU's machine.

``python benchmarks/gpu/first_light.py --expect`` writes the file anew (about a minute on two cores). This is needed
whenever a change of the library gives other values of t or of the stress.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.measure.records import RESULTS, hash_of, read, write_text  # noqa: E402

FILE = Path(__file__).with_suffix(".json")
# The files that decide the numbers: the library's sources alone.
LIBRARY = ("mmphate_gpu/**/*.py", "csrc/c*/*")
# Whole runs by name, with the case of `cases.py` whose trace and options they take.
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
    """t and stress of a case in the committed rows of a CPU; empty if there is no such row."""
    for path in sorted(RESULTS.glob("pipeline-*.jsonl")):
        for row in read(path):
            if (row.case, row.stage, row.device) == (case, "total", "cpu") and row.t is not None:
                return {"t": row.t, "stress": row.stress, "commit": row.commit}
    return {}


def write_expected() -> Path:
    """Make the numbers here, on the CPU, in the form "sparse", and write the file."""
    import torch

    from benchmarks.cases import CASES
    from benchmarks.gpu.twins import pipeline_numbers
    from mmphate_gpu import MMPHATE

    runs = {}
    for name, case in RUNS.items():
        print(f"{name} ...", file=sys.stderr, flush=True)
        chosen = CASES[case]
        op = MMPHATE(**{**chosen.options, "storage": "sparse"}, device="cpu", random_state=0).fit(chosen.trace(None))
        runs[name] = {"t": op.t_, "stress": op.stress_, "bandwidth": op.bandwidth_, "nnz": op.affinity_.nnz}
    pipeline = {}
    for size in ("quick", "full"):
        print(f"pipeline, {size} ...", file=sys.stderr, flush=True)
        pipeline[size] = pipeline_numbers(torch.device("cpu"), "sparse", quick=size == "quick")
    content = {"sources": hash_of(LIBRARY), "runs": runs, "pipeline": pipeline}
    write_text(FILE, json.dumps(content, indent=1) + "\n")
    return FILE
