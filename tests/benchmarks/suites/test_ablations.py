"""The ablations: what they vary, what they hold it against, and the helpers that do it."""

from __future__ import annotations

import os
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch

from benchmarks.measure import device
from benchmarks.measure.device import CLEAR
from benchmarks.measure.rows import TOTAL
from benchmarks.measure.tasks import QUICK
from benchmarks.suites import ablation_bench, ablations
from benchmarks.suites.ablation_bench import Bench
from benchmarks.suites.ablations import ABLATIONS, capped, recall_of
from benchmarks.suites.pictures import disparity, disparity_within
from mmphate_gpu import metric_mds, stress, to_scipy
from mmphate_gpu.errors import InputError
from mmphate_gpu.mds.classic import classic

CPU = torch.device("cpu")
SMALL = "suite-12x14"


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench("storage", SMALL, CPU)


def measured(name: str) -> dict[str, list]:
    """Rows of an ablation on the small input, by choice; nothing is run again for the sake of its time."""
    by_choice: dict[str, list] = {}
    with mock.patch.object(ablation_bench, "REPEATS", {}):
        for row in ablations.measured(name, SMALL, CPU):
            by_choice.setdefault(row.settings["choice"], []).append(row)
    return by_choice


# ---------------------------------------------------------------- what the ablations find


@pytest.mark.slow
def test_what_the_forms_of_storage_round():
    rows = ablations.measured("storage", SMALL, CPU)
    assert all(
        row.suite == "ablations" and row.machine and row.versions and row.source and row.n_nodes == 1008 for row in rows
    )
    ((head, lines, _),) = ablations.tables(rows, "storage")
    assert len(lines) == len(rows) and "recall" not in head and {"error", "Procrustes"} <= set(head)
    assert ablations.tables(rows, "passes") == []

    made, products, last = ([row for row in rows if row.stage == s] for s in ("affinity", "product", "landmarks"))
    error = {row.settings["choice"]: row.error for row in products}
    # Entries in float32, half of an ulp of each; tiles in half precision, columns as well (2.7e-4 measured here).
    assert error["sparse"] < 6e-8 and error["lazy"] < 6e-8 and 1e-5 < error["tiles"] < 5e-4
    assert made[2].work < made[0].work
    assert all(row.repeats and row.held_bytes and row.peak_bytes for row in [*made, *products, *last[:3]])
    assert ("adds" in head) == os.access(CLEAR, os.W_OK)
    times = dict(zip((row.stage for row in rows), (line[head.index("seconds")] for line in lines), strict=True))
    assert "±" in times["affinity"]
    assert [row.settings["choice"] for row in last] == ["sparse", "tiles", "lazy", "sparse, seed 1"]
    assert last[0].procrustes is None and all(row.settings["against"] == "sparse" for row in last[1:])
    # One seed, one picture, whatever the form; another seed is another picture.
    assert max(last[1].procrustes, last[2].procrustes) < 1e-3 < last[3].procrustes
    assert last[0].t == last[1].t == last[2].t


def test_exact_backends_have_no_error_and_those_missing_say_so(monkeypatch):
    monkeypatch.setattr(ablations, "why_no_keops", lambda: "there is no compiler")
    by_choice = {name: rows[0] for name, rows in measured("neighbours").items()}
    assert by_choice["keops"].skipped == "not installed: there is no compiler" and by_choice["keops"].seconds is None
    # The native twin takes the same differences in another order of sums.
    assert by_choice["auto"].error < 1e-12 and by_choice["torch"].error == 0 and by_choice["torch"].recall == 1
    assert by_choice["torch"].procrustes < 1e-12


@pytest.mark.slow
def test_cuts_are_held_against_the_affinity_that_is_not_cut():
    by_choice = {name: rows[0] for name, rows in measured("cuts").items()}
    by_thresh = [by_choice[f"thresh {thresh}"] for thresh in ("0", "1e-6", "1e-4", "1e-3", "1e-2")]
    uncut, *others = by_thresh
    assert uncut.work > others[0].work > others[1].work > others[2].work > others[3].work
    assert others[1].procrustes < others[2].procrustes < others[3].procrustes
    assert uncut.procrustes is None and "against" not in uncut.settings
    by_count = [by_choice[f"{most} neighbours"] for most in (25, 50, 100)]
    assert by_count[0].work < by_count[1].work < by_count[2].work < uncut.work
    assert all(row.settings["against"] == "thresh 0" for row in [*others, *by_count])


@pytest.mark.slow
def test_where_no_cut_does_not_fit_the_others_are_held_against_the_least(monkeypatch):
    affinity = Bench.affinity

    def refused(self, **changes):
        if changes.get("thresh") == 0:
            raise InputError("it needs 1 TB")
        return affinity(self, **changes)

    monkeypatch.setattr(Bench, "affinity", refused)
    by_choice = {name: rows[0] for name, rows in measured("cuts").items()}
    assert by_choice["thresh 0"].skipped == "refused: it needs 1 TB"
    assert (
        by_choice["thresh 1e-4"].settings["against"] == by_choice["25 neighbours"].settings["against"] == "thresh 1e-6"
    )


def test_float32_entries_are_off_by_their_rounding():
    by_choice = {name: rows[0] for name, rows in measured("precision").items()}
    assert by_choice["float64"].error == 0 and 1e-9 < by_choice["float32"].error < 6e-8
    assert by_choice["float32"].t == by_choice["float64"].t and by_choice["float32"].procrustes < 1e-6


@pytest.mark.slow
def test_landmarks_are_held_against_the_most_of_them():
    by_choice = measured("landmarks")
    assert {"spectral, 200", "spectral, 50", "spectral, 100, seed 1", "stratified, 200"} <= by_choice.keys()
    assert [row.stage for row in by_choice["spectral, 100"]] == ["landmarks", "entropy to MDS"]
    largest = by_choice.pop("spectral, 200")[1]
    assert largest.procrustes is None and "against" not in largest.settings and largest.n_landmark == 200
    assert all(rows[1].settings["against"] == "spectral, 200" and rows[1].procrustes > 0 for rows in by_choice.values())


@pytest.mark.slow
def test_counts_of_landmarks_that_there_cannot_be_say_why(bench, monkeypatch):
    monkeypatch.setattr(ablations, "landmark_counts", lambda name, device: (50, 400, 500, 600, 900))
    monkeypatch.setattr(ablations, "too_long", lambda operations: "too long" if asked[-1] == 600 else "")
    asked: list[int] = []
    needs: dict[int, int] = {500: 2**40}

    def planned(trace, *, device, n_landmark, **_):
        asked.append(n_landmark)
        stages = [mock.Mock(operations=1e9)]
        available = 18_000_000_000
        peak = needs.get(n_landmark, 1)
        return mock.Mock(fits=peak <= available, peak_bytes=peak, available_bytes=available, stages=stages)

    monkeypatch.setattr(ablations, "plan", planned)
    rows = measured("landmarks")
    assert {name: of_choice[0].skipped for name, of_choice in rows.items() if of_choice[0].skipped} == {
        "spectral, 500": "refused: needs 1.10 TB by the plan, cpu has 18.00 GB available",
        "spectral, 600": "too long",
        "spectral, 900": "more landmarks than two for three of the 1,008 nodes",
    }
    assert asked == [400, 500, 600] and rows["spectral, 50"][1].settings["against"] == "spectral, 400"
    assert rows["spectral, 500"][0].n_landmark == 500 and rows["spectral, 500"][0].seconds is None


def test_without_any_count_that_there_can_be_only_the_reasons_are_told(monkeypatch):
    monkeypatch.setattr(ablations, "why_not", lambda bench, n: "no")
    assert [rows[0].skipped for rows in measured("landmarks").values()] == ["no"] * 3


def test_what_is_too_long_does_not_depend_on_the_machine_s_mood(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(ablations, "product_rate", lambda: 1e11)
    assert ablations.too_long(1.6e13) == ""
    assert ablations.too_long(6e13).startswith("6.0e+13 operations by the plan, about 10:00 at")


def test_real_plans_know_the_runs_of_the_small_input(bench):
    assert ablations.why_not(bench, 600) == ""


def test_more_passes_find_more_of_the_spectrum():
    errors = [rows[0].error for rows in measured("passes").values()]
    # 1 pass sees the random start alone; 8 of 10 that exhaust the space are as good as all (4e-12 measured).
    assert errors == sorted(errors, reverse=True) and errors[0] > 0.1 and abs(errors[-1]) < 1e-9


def test_quasi_newton_steps_end_where_plain_ones_do_in_fewer_sweeps():
    by_choice = {name: rows[0] for name, rows in measured("steps").items()}
    plain, usual = by_choice["plain"], by_choice["quasi-Newton"]
    assert usual.work < plain.work / 2  # 93 and 534 measured
    # Both end where a sweep gains less than 1e-6 of the stress; the hundreds that plain ones might go on for add up.
    assert usual.stress == pytest.approx(plain.stress, rel=1e-3) and plain.procrustes < 1e-3


# ---------------------------------------------------------------- what they are made of


def test_a_cap_keeps_the_largest_of_every_row_and_of_every_column(bench):
    whole, most, n_units = bench.plain.to_dense().numpy(), 20, bench.trace.n_units
    cut = to_scipy(capped(bench.plain, most)).toarray()
    slices = np.arange(len(whole)) // n_units
    inside = slices[:, None] == slices
    between = np.where(inside, 0, whole)
    named = (between >= np.sort(between, axis=1)[:, [-most]]) & (between > 0)
    np.testing.assert_array_equal(cut, np.where(inside | named | named.T, whole, 0))


def test_a_cap_above_all_entries_changes_nothing(bench):
    np.testing.assert_array_equal(
        capped(bench.plain, bench.trace.n_nodes).to_dense().numpy(), bench.plain.to_dense().numpy()
    )


def test_a_tie_is_as_good_a_neighbour_as_another(monkeypatch):
    # A square: every corner has two neighbours at distance 1 and one at sqrt(2).
    units = torch.tensor([[[0.0, 0], [0, 1], [1, 1], [1, 0]]], dtype=torch.float64)
    farthest = np.ones((1, 4))
    named = torch.tensor([[[1], [2], [3], [2]]])
    monkeypatch.setattr(ablations, "kneighbors", lambda units, knn, backend: (None, named))
    assert recall_of("torch", units, 1, farthest) == 1
    named[0, 0] = 2  # the corner across
    assert recall_of("torch", units, 1, farthest) == 3 / 4


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
    operator, clusters = bench.usual_landmarks.landmark_op, bench.usual_landmarks.clusters
    joined = torch.linalg.matrix_power((operator > 0).double(), 40) > 0  # wherever a walk of 40 steps leads
    assert islands.shape == (bench.trace.n_nodes,) and islands.min() == 0
    np.testing.assert_array_equal(islands[:, None] == islands, joined[clusters][:, clusters].numpy())


def test_plain_smacof_goes_down_to_the_same_minimum(bench):
    distances = bench.usual.distances
    start = classic(distances, 2, generator=torch.Generator().manual_seed(0))
    plain = ablations.plain_smacof(distances, start, eps=1e-6)
    # Few landmarks take plain sweeps first. Both runs end when a sweep gains less than the share 1e-6.
    reached = metric_mds(distances, init=start).stress
    assert stress(distances, plain.coordinates) == pytest.approx(reached, rel=1e-3)
    assert ablations.plain_smacof(distances, start, eps=1e-6, max_iter=7).n_iter == 7


def test_short_calls_are_repeated_and_long_ones_are_not(bench, monkeypatch):
    calls: list[int] = []
    result, fields = bench.timed(lambda x: calls.append(x) or len(calls), 3)
    assert (result, fields["repeats"], fields["warmup"], calls) == (4, 3, 1, [3] * 4)
    monkeypatch.setattr(ablation_bench, "once", lambda call, device: call() or 100.0)
    _, fields = bench.timed(lambda: None)
    assert {"seconds": 100.0, "repeats": 0, "warmup": 1, "cold_seconds": 100.0}.items() <= fields.items()


@pytest.mark.skipif(not os.access(CLEAR, os.W_OK), reason="the peak of the process cannot be reset here")
def test_what_a_call_adds_is_more_than_it_keeps_and_not_what_was_held_before(bench):
    size = 80_000_000
    held = torch.ones(size // 8, dtype=torch.float64)
    _, fields = bench.timed(lambda: (torch.ones(size // 8, dtype=torch.float64) * 2).sum())
    # Two arrays at once (1.9998 of them measured: the kernel counts pages some dozens at a time).
    assert 1.98 * size < fields["added_bytes"] < 2.2 * size and fields["held_bytes"] > held.nbytes


# ---------------------------------------------------------------- the suite


def test_every_ablation_is_a_task_on_every_input():
    chosen = ablations.tasks("cpu", quick=False)
    keys = [f"{name}-{on}" for name in ABLATIONS for on in ablation_bench.MIDDLE]
    whole = f"landmarks-{ablation_bench.LARGE}"
    assert [task.key for task in chosen if task.key != whole] == keys and whole in [task.key for task in chosen]
    assert sum(task.estimate for task in chosen) <= 600  # ten minutes on two cores
    assert all(task.fields["case"] in ablation_bench.INPUTS for task in chosen)
    (quick,) = ablations.tasks("cpu", quick=True)
    assert quick.key.startswith(QUICK) and quick.estimate <= 10


def test_the_table_shows_why_there_is_no_number(bench):
    row = bench.row("keops", "bandwidth", "torch", skipped="not installed: no compiler")
    ((head, (line,), _),) = ablations.tables([row])
    assert dict(zip(head, line, strict=True))["seconds"] == "not installed: no compiler"


def test_a_task_that_failed_has_a_line_in_the_table_of_its_ablation(bench):
    task = next(task for task in ablations.tasks("cpu", quick=False) if task.key.startswith("cuts"))
    row = replace(bench.row("", TOTAL), **task.fields, skipped="it broke", failed=True)
    ((head, (line,), _),) = ablations.tables([row], "cuts")
    cells = dict(zip(head, line, strict=True))
    assert (cells["input"], cells["choice"], cells["seconds"]) == (task.fields["case"], "all", "it broke")


def test_counts_end_with_twenty_thousand_on_every_device():
    on_cpu, on_gpu = torch.device("cpu"), torch.device("cuda", 1)
    for name in ablation_bench.MIDDLE:
        assert ablations.landmark_counts(name, on_cpu) == ablations.COUNTS
    assert ablations.landmark_counts(ablation_bench.LARGE, on_gpu) == ablations.COUNTS
    assert ablations.landmark_counts(ablation_bench.LARGE, on_cpu)[-1] == 20_000


def test_a_gpu_that_is_chosen_is_the_current_one(monkeypatch):
    chosen: list[torch.device] = []
    monkeypatch.setattr(device, "resolve_device", torch.device)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert device.use_device("cpu") == CPU and not chosen
    assert device.use_device("cuda:1") == torch.device("cuda", 1) and chosen == [torch.device("cuda", 1)]
