"""The script that measures the interactive page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.measure import chromium, records
from benchmarks.measure.rows import OURS, Row
from benchmarks.suites import interactive
from mmphate_gpu.slices import SliceLayout

from ..made import WHERE


def test_nodes_walk_in_time_or_are_noise():
    layout = SliceLayout.of_shape(20, 30, 40)
    spread = {}
    for motion in ("walk", "noise"):
        points = interactive.nodes(motion, layout)
        assert points.shape == (layout.n_nodes, 3) and np.isfinite(points).all()
        steps = np.diff(points.reshape(20, 30, 40, 3), axis=1)
        spread[motion] = steps.std() / points.std()
    assert spread["walk"] < 0.2 and spread["noise"] == pytest.approx(2**0.5, rel=0.01)  # the noise is white


def uses(seconds: float) -> list[dict[str, Any]]:
    return {
        "still": {"seconds": seconds, "browser": "Chromium 1"},
        "hover": {"seconds": seconds, "page_process_bytes": 7},
    }


@pytest.mark.parametrize(("n_bytes", "code"), [(5_999_999, 0), (6_000_001, 1)])
def test_medians_are_written_and_a_page_that_is_too_large_is_a_missed_goal(
    monkeypatch, tmp_path, capsys, n_bytes, code
):
    repeats = iter([0.1, 0.5, 0.2])
    monkeypatch.setattr(interactive, "SIZE", (2, 2, 2))
    monkeypatch.setattr(interactive, "conditions", lambda device: WHERE)
    monkeypatch.setattr(interactive, "page", lambda *arguments, **options: "x" * n_bytes)
    monkeypatch.setattr(interactive, "opened", lambda path, frames: uses(next(repeats)))
    monkeypatch.setattr(interactive, "why_no_chromium", lambda: "")
    monkeypatch.setattr("sys.argv", ["interactive", "walk", "--folder", str(tmp_path)])
    path = records.result_path(tmp_path, "interactive", WHERE["machine"])
    other = Row(suite="interactive", case="2x2x2", by="some library", **WHERE)
    records.replace(path, [other, Row(suite="interactive", case="old", **WHERE)])
    assert interactive.main() == code
    kept, written, still, hover = records.read(path)
    assert kept == other
    assert written.statistics == {"page_bytes": n_bytes} and written.repeats == 3
    assert (still.seconds, still.rate, still.unit, still.settings["browser"]) == (0.2, 5.0, "frames", "Chromium 1")
    assert (hover.seconds, hover.rate, hover.statistics) == (0.2, None, {"page_process_bytes": 7})
    assert "walk, still: 0.2000 s, 5.0 frames a second" in capsys.readouterr().out


def test_the_table_of_the_decisions_has_the_committed_rows():
    rows = [row for path in records.RESULTS.glob("interactive-*.jsonl") for row in records.read(path)]
    text = (records.ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")
    assert interactive.table([row for row in rows if row.by == OURS]) in text


def test_without_a_browser_nothing_is_measured(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("sys.argv", ["interactive"])
    assert interactive.main() == 2
    assert "is not installed" in (said := capsys.readouterr().err) or "no browser is installed" in said


@pytest.mark.browser
@pytest.mark.skipif(bool(chromium.why_no_chromium()), reason=chromium.why_no_chromium() or "a browser is installed")
def test_a_small_page_is_measured(monkeypatch):
    monkeypatch.setattr(interactive, "SIZE_QUICK", (4, 3, 5))
    monkeypatch.setattr(interactive, "FRAMES_QUICK", 5)
    rows: dict[str, Row] = {row.stage: row for row in interactive.measured("walk", quick=True)}
    moved = ["turning", "playing", "hover after a turn", "hover"]
    assert [*rows] == ["write", "first picture", "all dots", "still", *moved]
    assert rows["all dots"].seconds >= rows["first picture"].seconds
    assert {row.n_nodes for row in rows.values()} == {60}
    assert "SwiftShader" in rows["first picture"].settings["renderer"]
    statistics = rows["first picture"].statistics
    assert 0 < statistics["page_process_bytes"] < statistics["all_process_bytes"] > statistics["gpu_process_bytes"] > 0
    assert rows["turning"].statistics["share_drawn"] == 1 and rows["turning"].statistics["cpu_seconds"] > 0
