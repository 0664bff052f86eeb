"""The suite of the analyses: what it runs, its table and its goals."""

from __future__ import annotations

import warnings

import pytest
import torch

from benchmarks.measure.rows import Row
from benchmarks.suites import analyses
from benchmarks.suites.analyses import ANALYSES, LARGE, SMALL

from ..made import WHERE


@pytest.fixture(scope="module")
def tiny() -> analyses.Inputs:
    return analyses.large("16x4x9x12")


@pytest.mark.parametrize("name", ANALYSES)
def test_each_analysis_runs(tiny, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of few units, and of a probe on states without labels
        assert repr(ANALYSES[name](tiny)).count("(") >= 1


def test_a_row_has_sizes_time_and_memory(tiny, monkeypatch):
    monkeypatch.setattr(analyses, "large", lambda: tiny)
    row = analyses.measured(LARGE, "spread", torch.device("cpu"))
    assert (row.suite, row.case, row.stage) == ("analyses", LARGE, "spread")
    assert (row.n_slices, row.n_units, row.n_samples, row.n_nodes) == (64, 9, 12, 576)
    assert row.seconds > 0 and row.peak_bytes > 0


def test_a_full_run_has_every_analysis_of_both_cases():
    keys = [task.key for task in analyses.tasks("cpu", quick=False)]
    assert len(keys) == len(set(keys)) == 2 * len(ANALYSES)
    assert all(key.startswith("quick-") for key in (task.key for task in analyses.tasks("cpu", quick=True)))


def _row(case: str, stage: str, seconds: float, added: int = 10**8) -> Row:
    return Row(suite="analyses", case=case, stage=stage, seconds=seconds, added_bytes=added, **WHERE)


def test_the_table_has_a_line_for_each_analysis_and_the_sums():
    rows = [_row(SMALL, "phases", 0.5), _row(SMALL, "trust", 4.0), _row(LARGE, "trust", 100.0)]
    ((head, lines, _),) = analyses.tables(rows)
    assert head == ("analysis", SMALL, LARGE)
    cells = {name: rest for name, *rest in lines}
    assert cells["trust"] == ["4.0 s, 100 MB", "100.0 s, 100 MB"] and cells["phases"][1] == ""
    assert cells["all"] == ["4.5 s", "100.0 s"]


def test_missed_goals():
    rows = [_row(SMALL, "phases", 30.0), _row(SMALL, "trust", 31.0), _row(LARGE, "trust", 1.0, added=4 * 10**9)]
    assert analyses.missed_goals(rows) == [
        f"analyses of {SMALL}: 61 s in all, goal at most 60 s",
        f"trust of {LARGE}: 4.00 GB added, goal at most 3.00 GB",
    ]
    assert analyses.missed_goals([_row(SMALL, "phases", 59.0)]) == []
