"""The script that measures what `LiveEmbedding` costs a training."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.measure import records
from benchmarks.measure.rows import Row
from benchmarks.suites import watching

from ..made import WHERE


def test_trainings_take_turns_and_the_medians_are_written(monkeypatch, tmp_path, capsys):
    seconds = {watching.ALONE: [4.0, 9.0, 5.0, 5.0, 1.0], watching.FOLLOWED: [5.0, 6.0, 5.4, 9.0, 1.0]}
    turns: list[str] = []

    def run_task(task: Any) -> list[Row]:
        turns.append(task.key)
        work = {"work": 0.5} if task.key == watching.FOLLOWED else {}
        row = Row(suite="watching", case="digits-50", by=task.key, statistics=work, **WHERE)
        return [watching.replace(row, seconds=seconds[task.key][turns.count(task.key) - 1])]

    monkeypatch.setattr(watching, "PAIRS", 5)
    monkeypatch.setattr(watching, "run_task", run_task)
    monkeypatch.setattr("sys.argv", ["watching", "--folder", str(tmp_path)])
    assert watching.main() == 0
    assert turns == [watching.ALONE, watching.FOLLOWED] * 5
    alone, followed = records.read(tmp_path / "watching-some-cpu-2-cores.jsonl")
    assert (alone.seconds, followed.seconds, followed.repeats) == (5.0, 5.4, 5)
    assert followed.statistics == {"work": 0.5}
    assert "a followed training takes +8.0% of the time (goal: less than +10%)" in capsys.readouterr().out
    seconds[watching.FOLLOWED] = [5.5] * 5
    turns.clear()
    assert watching.main() == 1  # the goal is missed


@pytest.mark.slow
def test_a_training_is_measured_with_its_own_folder(monkeypatch):
    monkeypatch.setattr(watching, "EPOCHS_QUICK", 3)
    row = watching.training(watching.FOLLOWED, quick=True)
    assert row.case == "digits-3" and row.seconds > row.statistics["work"] > 0 < row.statistics["making"]
