"""The table of runs before and after a change."""

from __future__ import annotations

import json

from benchmarks.report import before_after


def row(case: str, seconds: float, commit: str, **others) -> str:
    run = {"suite": "pipeline", "case": case, "stage": "total", "seconds": seconds, "t": 7, "commit": commit}
    run |= {"machine": "some-cpu", "threads": 2, "peak_bytes": 2e9, "preservation": {"10": 0.25, "40": 0.5}}
    return json.dumps(run | others)


def test_a_line_for_every_run_of_both_sides(tmp_path):
    (tmp_path / "before").mkdir()
    name = "pipeline-some-cpu-2-cores.jsonl"
    stage = json.dumps({"suite": "pipeline", "case": "walk", "stage": "mds", "seconds": 9})
    (tmp_path / "before" / name).write_text("\n".join([row("walk", 6, "abc"), stage, row("gone", 1, "abc")]))
    (tmp_path / name).write_text(row("walk", 4, "def", t=8, peak_bytes=1e9))
    text = before_after.tables(tmp_path)
    assert "| walk | 6.0 | 4.0 | 1.50 | 2.00 GB | 1.00 GB | 7, 8 | 0.250 / 0.500 | 0.250 / 0.500 |" in text
    assert "gone" not in text and "before: commit abc, after: def." in text


def test_the_table_of_the_docs_is_that_of_the_results():
    assert before_after.main(["--check"]) == 0
