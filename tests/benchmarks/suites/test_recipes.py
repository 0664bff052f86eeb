"""The suite of the recipes: what it fits, its tasks, its table and its goals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.spatial import procrustes

from benchmarks import suites
from benchmarks.measure import records
from benchmarks.measure.rows import Row
from benchmarks.measure.tasks import REFUSED
from benchmarks.suites import recipe_fits, recipes
from mmphate_gpu import MMPHATE, datasets, neighborhood_preservation
from mmphate_gpu.params import RECIPES

from ..made import WHERE

CPU = torch.device("cpu")
OPTIONS = {"n_landmark": 100}


@pytest.fixture(scope="module")
def trace():
    return datasets.bifurcation("hopf", 8, 12)


@pytest.fixture(scope="module")
def measured(trace) -> dict[str, Row]:
    rows = recipe_fits.rows("hopf", trace, tuple(RECIPES), (0, 1, 2), CPU, **OPTIONS)
    return {row.settings["recipe"]: row for row in rows}


def test_a_row_has_the_measures_of_the_fits(trace, measured):
    pictures, ops = [], []
    for seed in (0, 1, 2):
        op = MMPHATE.stable(n_components=3, random_state=seed, device="cpu", **OPTIONS).fit(trace)
        ops.append(op)
        pictures.append(op.result_.coordinates)
    row = measured["stable"]
    assert row.statistics["t"] == [op.t_ for op in ops] and row.t == ops[0].t_
    assert row.statistics["stress"] == [op.stress_ for op in ops] and row.stress == ops[0].stress_
    pairs = [procrustes(*pair)[2] for pair in itertools.combinations(pictures, 2)]
    np.testing.assert_allclose(row.statistics["procrustes"], pairs, rtol=1e-12)
    assert row.procrustes == max(row.statistics["procrustes"]) > 0
    kept = neighborhood_preservation(trace, pictures[0], [10, 40])
    assert row.preservation == {"10": kept[0][1], "40": kept[1][1]}
    assert (row.n_landmark, row.n_nodes, row.n_slices) == (ops[0].n_landmark_, 576, 96)


def test_a_row_says_what_was_fitted(measured):
    assert measured.keys() == RECIPES.keys()
    for recipe, row in measured.items():
        assert row.settings["seeds"] == [0, 1, 2] and row.settings["parameters"] == RECIPES[recipe] | OPTIONS
        assert row.repeats == 3 and 0 < row.seconds_low <= row.seconds <= row.seconds_high
    assert measured["stable"].preservation != measured["default"].preservation


def test_the_recipes_take_turns(trace, monkeypatch):
    calls = []

    def fit(trace, recipe, seed, **options):
        calls.append((recipe, seed))
        return recipe_fits.Fit(np.eye(3), 1.0, 5, 0.1, 1, 3)

    monkeypatch.setattr(recipe_fits, "fit", fit)
    fits = recipe_fits.fits(trace, ("default", "stable"), (4, 9))
    assert calls[1:] == [("default", 4), ("stable", 4), ("default", 9), ("stable", 9)]  # a warm-up comes first
    assert {recipe: len(of_recipe) for recipe, of_recipe in fits.items()} == {"default": 2, "stable": 2}


def test_a_single_seed_has_no_disparity(trace):
    (row,) = recipe_fits.rows("hopf", trace, ("stable",), (3,), CPU, **OPTIONS)
    assert row.procrustes is None and row.statistics["procrustes"] == [] and recipes.tables([row])[0].lines[0][3] == ""


# ---------------------------------------------------------------- tasks


def test_a_full_run_has_a_task_for_each_run():
    tasks = recipes.tasks("cpu", quick=False)
    assert [task.key for task in tasks] == list(recipes.PARTS) and "digits-tasks" in recipes.PARTS
    assert all("--recipes" not in task.command and "--seeds" not in task.command for task in tasks)


def test_a_part_of_a_run_is_another_task():
    (task,) = recipes.tasks("cpu", False, ["hopf"], recipes=["stable"], seeds=[0, 1])
    assert task.key == "hopf, recipes stable, seeds 0 1"
    words = task.command[task.command.index("hopf") + 1 :]
    assert words[:5] == ("--recipes", "stable", "--seeds", "0", "1")


def test_the_command_measures_a_part_and_writes_it(tmp_path, capsys):
    arguments = ["--quick", "--recipes", "stable", "--seeds", "0", "1", "--device", "cpu", "--out", str(tmp_path)]
    assert recipes.main(arguments) == 0
    (file,) = tmp_path.glob("recipes-*.jsonl")
    (row,) = records.read(file)
    assert row.settings["recipe"] == "stable" and len(row.statistics["t"]) == 2
    head, line = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["run", "recipe"] and line.split()[:2] == ["quick-hopf", "stable"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pitchfork"], "RUN pitchfork is unknown; accepted: hopf, "),
        (["--recipes", "steady"], "'steady'"),
        (["--seeds", "x"], "'x'"),
    ],
)
def test_bad_usage_ends_with_2(arguments, words, capsys):
    with pytest.raises(SystemExit) as end:
        recipes.parse(arguments)
    assert end.value.code == 2 and words in capsys.readouterr().err


# ---------------------------------------------------------------- the table and the goals


def _row(case: str, recipe: str, **changes) -> Row:
    statistics = {"t": [30, 28, 34], "stress": [0.2001, 0.2004, 0.2], "islands": [900, 1100, 900]}
    values = {"seconds": 10.0, "procrustes": 0.01, "preservation": {"10": 0.31, "40": 0.47}, "statistics": statistics}
    return Row(suite="recipes", case=case, settings={"recipe": recipe}, **WHERE, **values | changes)


def test_the_table_has_a_line_for_each_run_and_recipe():
    rows = [_row("digits-gru", "stable"), _row("hopf", "stable"), _row("hopf", "default", procrustes=0.68)]
    rows += [Row(suite="recipes", case="walk-100x50x25", skipped=REFUSED, **WHERE)]
    ((head, lines, _),) = recipes.tables(rows)
    assert [line[:2] for line in lines] == [("hopf", "default"), ("hopf", "stable"), ("digits-gru", "stable")]
    assert dict(zip(head, lines[0], strict=True)) == {
        "run": "hopf",
        "recipe": "default",
        "t": "28 to 34",
        "Procrustes": "0.68",
        "kept 10 / 40": "0.310 / 0.470",
        "published": "0.221 / 0.401",
        "t-SNE": "0.276 / 0.245",
        "stress": "0.200",
        "seconds": "10.0",
        "islands": "900 to 1,100",
    }
    assert lines[2][5:7] == ("", "")


def test_missed_goals():
    kept = {"10": 0.29, "40": 0.47}
    rows = [
        _row("hopf", "default", procrustes=0.68, preservation=kept, seconds=10.0),
        _row("hopf", "stable", procrustes=0.024, preservation=kept, seconds=13.0),
        _row("hopf_pitchfork", "default", seconds=10.0),
        _row("hopf_pitchfork", "stable", seconds=11.9),
        _row("digits-rnn", "default", seconds=1.0),
        _row("digits-rnn", "stable", seconds=13.0, preservation=kept),
    ]
    assert suites.missed_goals(rows) == [
        "hopf, stable: Procrustes 0.024 between seeds, goal at most 0.02",
        "hopf, stable: keeps 0.290 of 10 neighbors, goal at least 0.3",
        "hopf, stable: 1.30 times the seconds of the defaults, goal at most 1.2",
    ]
