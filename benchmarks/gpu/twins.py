"""Two ways to the same numbers, compared for `verify_gpu`. It prints the findings of a section as one line of JSON.

    python -m benchmarks.gpu.twins neighbors --device cuda

Sections: ``neighbors`` (torch, KeOps, the CPU), ``operators`` (sparse; lazy by torch, by KeOps and fused; tiles),
``pipeline`` (the run on the device and carried numbers of the CPU, from the same clusters).
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.gpu.expected import expected
from benchmarks.gpu.sections import Finding, of_findings
from benchmarks.measure.device import use_device
from benchmarks.suites.op_calls import relative_error
from mmphate_gpu import (
    diffusion_potential,
    landmark_diffusion,
    metric_mds,
    multislice_affinity,
    optimal_t,
    potential_distances,
    von_neumann_entropy,
)
from mmphate_gpu.affinities import Interslice
from mmphate_gpu.affinities.intraslice import intraslice_affinity
from mmphate_gpu.datasets import bifurcation, random_walk
from mmphate_gpu.neighbors import kneighbors
from mmphate_gpu.operators import LazyAffinity, SparseAffinity, TiledAffinity
from mmphate_gpu.operators.lazy_fused import LazyFusedAffinity
from mmphate_gpu.operators.lazy_keops import LazyKeopsAffinity
from mmphate_gpu.ops.kth_neighbor_distance import kth_neighbor_distance
from mmphate_gpu.pipeline import interpolate
from mmphate_gpu.runtime.keops import why_no_keops
from mmphate_gpu.slices import unit_major
from mmphate_gpu.trace import Trace, normalize

THRESH = 1e-4
# Relative to the largest number.
MOST_DISTANCE_ERROR = 1e-9
MOST_PRODUCT_ERROR = {torch.float32: 1e-5, torch.float64: 1e-12}
# Of products and degrees of the forms in half precision. Their aggregates are exact.
MOST_HALF_ERROR = 5e-4
HALF_FORMS = {"lazy by fused": LazyFusedAffinity, "tiles": TiledAffinity}
FORMS = {"lazy by torch": LazyAffinity, "lazy by keops": LazyKeopsAffinity, **HALF_FORMS}
MOST_ENTROPY_ERROR = 1e-4
MOST_STRESS_DIFFERENCE = 0.01
# Relative to the largest distance in the picture: the root of a Procrustes disparity of 1e-3.
MOST_PICTURE_ERROR = 0.03


def _suite(quick: bool) -> Trace:
    return bifurcation("hopf_pitchfork", *((12, 14) if quick else (50, 80)))


def _error(result: torch.Tensor, wanted: torch.Tensor) -> float:
    return relative_error(result.cpu(), wanted.cpu())


def _missing(no_keops: str | None) -> list[str]:
    return [f"KeOps: {no_keops}"] if no_keops else []


def _section(findings: list[Finding], missing: list[str]) -> dict[str, Any]:
    """The result of a section; ``missing`` says which comparisons could not be made."""
    return {**of_findings(findings), "missing": missing}


# ---------------------------------------------------------------- neighbors


def neighbors(device: torch.device, *, quick: bool) -> dict[str, Any]:
    """Distances to the nearest others: exact backends and the op on the device against torch on the CPU."""
    # The same number of features and k everywhere, because KeOps compiles a formula for each.
    suite, walk = normalize(_suite(quick)), normalize(random_walk(60, 40, 10))
    stacks, k = {"slices of one unit": unit_major(suite), "units of one slice": walk}, 5 if quick else 25
    reason = why_no_keops()
    backends = ["torch", *["keops"] * (reason is None)]
    findings = []
    for name, stack in stacks.items():
        wanted = kneighbors(stack, k, backend="torch")[0]
        for backend in backends:
            distances = kneighbors(stack.to(device), k, backend=backend)[0]
            what = f"{name}: {backend} on {device.type} against torch on cpu"
            findings.append(Finding(what, _error(distances, wanted), MOST_DISTANCE_ERROR))
        farthest = kth_neighbor_distance(stack.to(device), k)
        what = f"{name}: the op on {device.type} against torch on cpu, the farthest"
        findings.append(Finding(what, _error(farthest, wanted[..., -1]), MOST_DISTANCE_ERROR))
    return _section(findings, _missing(reason))


# ---------------------------------------------------------------- operators


def operators(device: torch.device, *, quick: bool) -> dict[str, Any]:
    """Products, row sums and aggregates of the other forms against the sparse form."""
    reason = why_no_keops()
    forms = [form for form in FORMS if form != "lazy by keops" or reason is None]
    points = normalize(_suite(quick)).to(device)
    findings = [
        finding
        for dtype in (torch.float32, torch.float64)
        for form in forms
        for finding in _operator_findings(points, dtype, form)
    ]
    return _section(findings, _missing(reason))


def _operator_findings(points: torch.Tensor, dtype: torch.dtype, form: str) -> list[Finding]:
    intraslice = intraslice_affinity(points, thresh=THRESH, dtype=dtype)
    bandwidth = torch.tensor(0.3, dtype=torch.float64, device=points.device)
    other = FORMS[form](intraslice, Interslice(unit_major(points), bandwidth, THRESH))
    sparse = SparseAffinity(other.to_csr())
    generator = torch.Generator().manual_seed(0)
    block = torch.randn(other.shape[0], 32, generator=generator, dtype=torch.float64).to(points.device, dtype)
    labels = torch.arange(other.shape[0], device=points.device) % 97
    results = {
        "product": (other @ block, sparse @ block),
        "row sums": (other.row_sums(), sparse.row_sums()),
        "aggregate": (other.aggregate(labels, 97).values, sparse.aggregate(labels, 97).values),
    }
    name = f"{points.device.type}, {str(dtype).removeprefix('torch.')}: {form} against sparse"
    exact = MOST_PRODUCT_ERROR[dtype]
    most = dict.fromkeys(results, MOST_HALF_ERROR if form in HALF_FORMS else exact) | {"aggregate": exact}
    return [Finding(f"{name}, {what}", _error(*pair), most[what]) for what, pair in results.items()]


# ---------------------------------------------------------------- the whole run


def pipeline(device: torch.device, *, quick: bool) -> dict[str, Any]:
    """The run on the device, in every form, against the carried numbers of the sparse run on a CPU."""
    carried = expected()
    wanted, findings = carried["pipeline"]["quick" if quick else "full"], []
    for storage in ("sparse", "tiles", "lazy"):
        numbers = pipeline_numbers(device, storage, quick=quick)
        findings += _pipeline_findings(f"{storage} on {device.type} against sparse on a CPU", numbers, wanted)
    stale = "the carried numbers are of other sources of the library: first_light.py --expect makes them anew"
    return _section(findings, [] if carried["same_sources"] else [stale])


def pipeline_numbers(device: torch.device, storage: str, *, quick: bool) -> dict[str, Any]:
    """Numbers of a run that no rotation or reflection changes, from clusters that do not depend on the device.

    A cluster is a sequence of slices of a unit. ``affinities`` are sums of rows of the affinity, ``between`` are the
    distances between some nodes of the picture.
    """
    trace, n_landmark = _suite(quick), 300 if quick else 2000
    nodes, per_unit = torch.arange(trace.n_nodes, device=device), n_landmark // trace.n_units
    clusters = nodes % trace.n_units * per_unit + nodes // trace.n_units * per_unit // trace.n_slices
    operator = multislice_affinity(trace, storage=storage, device=device)
    landmarks = landmark_diffusion(operator, clusters=clusters)
    t = optimal_t(landmarks.landmark_op)
    distances = potential_distances(diffusion_potential(landmarks.landmark_op, t))
    mds = metric_mds(distances, 3, random_state=0)
    some = interpolate(landmarks.transitions, mds.coordinates)[_some(trace.n_nodes)].double().cpu()
    return {
        "affinities": operator.row_sums().double().cpu()[_some(trace.n_nodes)].tolist(),
        "entropy": von_neumann_entropy(landmarks.landmark_op).cpu().tolist(),
        "t": t,
        "stress": mds.stress,
        "between": torch.pdist(some).tolist(),
    }


def _some(n: int) -> torch.Tensor:
    """A dozen of ``n`` nodes, over all units and times."""
    return torch.arange(5, n, n // 12 - 1)[:12]


def _pipeline_findings(name: str, numbers: dict[str, Any], wanted: dict[str, Any]) -> list[Finding]:
    def off(what: str) -> float:
        return _error(torch.tensor(numbers[what]), torch.tensor(wanted[what]))

    return [
        Finding(f"{name}, sums of the affinity", off("affinities"), MOST_HALF_ERROR),
        Finding(f"{name}, entropy", off("entropy"), MOST_ENTROPY_ERROR),
        Finding(f"{name}, t", float(abs(numbers["t"] - wanted["t"])), 0.0),
        Finding(f"{name}, stress (relative)", abs(numbers["stress"] / wanted["stress"] - 1), MOST_STRESS_DIFFERENCE),
        Finding(f"{name}, distances in the picture", off("between"), MOST_PICTURE_ERROR),
    ]


SECTIONS = {"neighbors": neighbors, "operators": operators, "pipeline": pipeline}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("section", choices=SECTIONS)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="small inputs")
    options = parser.parse_args(argv)
    device = use_device(options.device)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="interslice_knn=.* is clamped")
        section = SECTIONS[options.section](device, quick=options.quick)
    print(json.dumps(section))
    return 0


if __name__ == "__main__":
    sys.exit(main())
