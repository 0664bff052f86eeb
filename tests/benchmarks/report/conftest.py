"""A folder of results."""

from __future__ import annotations

import pytest

from benchmarks.measure import records

from ..made import row


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    mine = [row(stage="mds", seconds=1.5), row(t=21), row(case="small", task="quick-small"), row(skipped="refused: x")]
    records.replace(folder / "pipeline-some-cpu-2-cores.jsonl", mine)
    records.replace(folder / "pipeline-other.jsonl", [row(machine="other", seconds=7.0)])
    records.replace(folder / "pipelines-third.jsonl", [row(machine="third")])
    return folder
