"""The ablations: what they vary, what they hold it against, and the helpers that do it."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks import bench_ablations  # noqa: E402
from benchmarks.bench_ablations import ABLATIONS, Bench, capped, recall  # noqa: E402
from benchmarks.pictures import disparity, disparity_within  # noqa: E402
from benchmarks.tasks import QUICK, run_task  # noqa: E402
from mmphate_gpu import metric_mds, to_scipy  # noqa: E402
from mmphate_gpu.mds.classic import classic  # noqa: E402

CPU = torch.device("cpu")
SMALL = "suite-12x14"


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench("storage", SMALL, CPU)


def measured(name: str) -> dict[str, list]:
    """Rows of an ablation on the small input, by choice; nothing is run again for the sake of its time."""
    found: dict[str, list] = {}
    with mock.patch.object(bench_ablations, "REPEATS", {}):
        for row in bench_ablations.measured(name, SMALL, CPU):
            found.setdefault(row.settings["choice"], []).append(row)
    return found


# ---------------------------------------------------------------- what the ablations find


def test_the_quick_task_tells_what_the_forms_of_storage_round(tmp_path):
    (task,) = bench_ablations.tasks("cpu", quick=True)
    rows = run_task(task, tmp_path)
    assert {row.suite for row in rows} == {"ablations"} and {row.task for row in rows} == {task.key}
    assert all(row.machine and row.versions and row.source and row.n_nodes == 1008 for row in rows)
    head, lines = bench_ablations.table(rows, "storage")
    assert len(lines) == len(rows) and "recall" not in head and {"error", "Procrustes"} <= set(head)
    assert bench_ablations.table(rows, "passes") == ((), [])

    made, products, last = ([row for row in rows if row.stage == s] for s in ("affinity", "product", "landmarks"))
    error = {row.settings["choice"]: row.error for row in products}
    # Entries in float32, half of an ulp of each; tiles in half precision, columns as well (2.7e-4 measured here).
    assert error["sparse"] < 6e-8 and error["lazy"] < 6e-8 and 1e-5 < error["tiles"] < 5e-4
    assert made[2].work < made[0].work
    assert [row.settings["choice"] for row in last] == ["sparse", "tiles", "lazy", "sparse, seed 1"]
    assert last[0].procrustes is None and all(row.settings["against"] == "sparse" for row in last[1:])
    # One seed, one picture, whatever the form; another seed is another picture.
    assert max(last[1].procrustes, last[2].procrustes) < 1e-3 < last[3].procrustes
    assert last[0].t == last[1].t == last[2].t


def test_exact_backends_have_no_error_and_those_missing_say_so(monkeypatch):
    monkeypatch.setattr(bench_ablations, "why_no_keops", lambda: "there is no compiler")
    found = {name: rows[0] for name, rows in measured("neighbours").items()}
    assert found["keops"].skipped == "not installed: there is no compiler" and found["keops"].seconds is None
    # The native twin takes the same differences in another order of sums.
    assert found["auto"].error < 1e-12 and found["torch"].error == 0 and found["torch"].recall == 1
    assert found["torch"].procrustes < 1e-12


def test_a_looser_cut_keeps_more_and_changes_less():
    found = {name: rows[0] for name, rows in measured("cuts").items()}
    by_thresh = [found[f"thresh {thresh}"] for thresh in ("1e-2", "1e-3", "1e-4", "1e-6", "0")]
    entries = [row.work for row in by_thresh]
    assert entries == sorted(entries)
    assert by_thresh[0].procrustes > by_thresh[1].procrustes > by_thresh[3].procrustes
    assert by_thresh[2].procrustes is None and "against" not in by_thresh[2].settings
    assert found["25 neighbours"].work < found["50 neighbours"].work < by_thresh[2].work


def test_float32_entries_are_off_by_their_rounding():
    found = {name: rows[0] for name, rows in measured("precision").items()}
    assert found["float64"].error == 0 and 1e-9 < found["float32"].error < 6e-8
    assert found["float32"].t == found["float64"].t and found["float32"].procrustes < 1e-6


def test_landmarks_are_held_against_the_most_of_them():
    found = measured("landmarks")
    assert {"spectral, 200", "spectral, 50", "spectral, 100, seed 1", "stratified, 200"} <= found.keys()
    assert [row.stage for row in found["spectral, 100"]] == ["landmarks", "entropy to MDS"]
    largest = found.pop("spectral, 200")[1]
    assert largest.procrustes is None and "against" not in largest.settings and largest.n_landmark == 200
    assert all(rows[1].settings["against"] == "spectral, 200" and rows[1].procrustes > 0 for rows in found.values())


def test_more_passes_find_more_of_the_spectrum():
    errors = [rows[0].error for rows in measured("passes").values()]
    # 1 pass sees the random start alone; 8 of 10 that exhaust the space are as good as all (4e-12 measured).
    assert errors == sorted(errors, reverse=True) and errors[0] > 0.1 and abs(errors[-1]) < 1e-9


def test_quasi_newton_steps_end_where_plain_ones_do_in_fewer_sweeps():
    found = {name: rows[0] for name, rows in measured("steps").items()}
    plain, usual = found["plain"], found["quasi-Newton"]
    assert usual.work < plain.work / 2  # 93 and 534 measured
    # Both end where a sweep gains less than 1e-6 of the stress; the hundreds that plain ones might go on for add up.
    assert usual.stress == pytest.approx(plain.stress, rel=1e-3) and plain.procrustes < 1e-3


# ---------------------------------------------------------------- what they are made of


def test_a_cap_keeps_the_largest_of_every_row_and_of_every_column(bench):
    whole, most, n_units = bench.plain.to_dense().numpy(), 20, bench.trace.n_units
    found = to_scipy(capped(bench.plain, most)).toarray()
    slices = np.arange(len(whole)) // n_units
    inside = slices[:, None] == slices
    between = np.where(inside, 0, whole)
    named = (between >= np.sort(between, axis=1)[:, [-most]]) & (between > 0)
    np.testing.assert_array_equal(found, np.where(inside | named | named.T, whole, 0))


def test_a_cap_above_all_entries_changes_nothing(bench):
    np.testing.assert_array_equal(
        capped(bench.plain, bench.trace.n_nodes).to_dense().numpy(), bench.plain.to_dense().numpy()
    )


def test_recall_counts_row_by_row():
    wanted = torch.tensor([[[1, 2], [0, 2], [0, 1]]])
    assert recall(wanted.flip(-1), wanted) == 1
    assert recall(torch.tensor([[[1, 2], [2, 1], [2, 2]]]), wanted) == pytest.approx(3 / 6)


def test_disparity_forgets_position_turn_and_scale():
    points = torch.randn(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    turned = 3 * points @ torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64) + 5
    assert disparity(points, turned) < 1e-12 < disparity(points, points.flip(0))


def test_islands_are_put_in_place_one_by_one():
    points = torch.randn(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    islands = np.repeat([0, 1, 2], [14, 15, 1])
    moved = points.clone()
    moved[:14] = 2 * points[:14].flip(1) + 9
    moved[29] += 5  # a point has no shape
    assert disparity_within(points, moved, islands) < 1e-12 < 0.1 < disparity(points, moved)
    moved[14:29] = 0  # the second one has collapsed: all of its squares are lost
    lost, kept = (float((points[part] - points[part].mean(0)).square().sum()) for part in (slice(14, 29), slice(14)))
    assert disparity_within(points, moved, islands) == pytest.approx(lost / (lost + kept))
    assert disparity_within(torch.zeros(30, 2), moved, islands) == 0


def test_the_islands_of_a_picture_are_those_of_its_landmarks(bench):
    islands = bench.usual.islands()
    operator, clusters = bench.own.landmark_op, bench.own.clusters
    joined = torch.linalg.matrix_power((operator > 0).double(), 40) > 0  # wherever a walk of 40 steps leads
    assert islands.shape == (bench.trace.n_nodes,) and islands.min() == 0
    np.testing.assert_array_equal(islands[:, None] == islands, joined[clusters][:, clusters].numpy())


def test_plain_smacof_goes_down_to_the_same_minimum(bench):
    distances = bench.usual.distances
    start = classic(distances, 2, generator=torch.Generator().manual_seed(0))
    plain = bench_ablations.plain_smacof(distances, start, eps=1e-6)
    assert plain.n_iter > metric_mds(distances, init=start).n_iter
    assert bench_ablations.plain_smacof(distances, start, eps=1e-6, max_iter=7).n_iter == 7


def test_short_calls_are_repeated_and_long_ones_are_not(bench, monkeypatch):
    calls: list[int] = []
    found, fields = bench.timed(lambda x: calls.append(x) or len(calls), 3)
    assert (found, fields["repeats"], fields["warmup"], calls) == (4, 3, 1, [3] * 4)
    monkeypatch.setattr(bench_ablations, "once", lambda call, device: call() or 100.0)
    _, fields = bench.timed(lambda: None)
    assert fields == {"seconds": 100.0, "repeats": 0, "warmup": 1, "cold_seconds": 100.0}


# ---------------------------------------------------------------- the suite


def test_every_ablation_is_a_task_on_every_input():
    found = bench_ablations.tasks("cpu", quick=False)
    assert [task.key for task in found] == [f"{name}-{on}" for name in ABLATIONS for on in bench_ablations.MIDDLE]
    assert sum(task.estimate for task in found) <= 600  # ten minutes on two cores
    assert len(bench_ablations.tasks("cuda", quick=False)) == len(found) + 1
    (quick,) = bench_ablations.tasks("cpu", quick=True)
    assert quick.key.startswith(QUICK) and quick.estimate <= 10


def test_the_table_shows_why_there_is_no_number(bench):
    row = bench.row("keops", "bandwidth", "torch", skipped="not installed: no compiler")
    head, (line,) = bench_ablations.table([row])
    assert dict(zip(head, line, strict=True))["seconds"] == "not installed: no compiler"
