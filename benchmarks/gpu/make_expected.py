"""Make the numbers of `expected` on the CPU of this machine (about a minute on two cores).

``python benchmarks/gpu/first_light.py --expect`` does it. It is needed after a change of the library that gives other
values of t or of the stress.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from benchmarks.cases import CASES
from benchmarks.gpu.expected import FILE, LIBRARY, RUNS
from benchmarks.gpu.twins import pipeline_numbers
from benchmarks.measure.conditions import hash_of
from benchmarks.measure.records import write_text
from mmphate_gpu import MMPHATE


def write_expected() -> Path:
    """Run everything in the form "sparse" and write the file."""
    runs = {}
    for name, case in RUNS.items():
        print(f"{name} ...", file=sys.stderr, flush=True)
        options = {**CASES[case].options, "storage": "sparse", "device": "cpu", "random_state": 0}
        op = MMPHATE(**options).fit(CASES[case].trace(None))
        runs[name] = {"t": op.t_, "stress": op.stress_, "bandwidth": op.bandwidth_, "nnz": op.affinity_.nnz}
    pipeline = {}
    for size in ("quick", "full"):
        print(f"pipeline, {size} ...", file=sys.stderr, flush=True)
        pipeline[size] = pipeline_numbers(torch.device("cpu"), "sparse", quick=size == "quick")
    content = {"sources": hash_of(LIBRARY), "runs": runs, "pipeline": pipeline}
    write_text(FILE, json.dumps(content, indent=1) + "\n")
    return FILE
