"""Plots from the rows."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.measure import records
from benchmarks.measure.rows import Row
from benchmarks.report import plots, report, roofline

from ..made import WHERE, dense_rows, scale_rows


@pytest.fixture
def drawn(results, tmp_path):
    mixed = [*scale_rows(508, 1016, 2032), *scale_rows(8, 16, growth=2.0, axis="units")]
    mixed = [dataclasses.replace(r, task=f"{r.case}-storage=lazy") for r in mixed]
    full = report.full_tasks("scale", "cpu")
    mixed = [r for r in mixed if r.task in full]
    records.replace(results / "scale-some-cpu-2-cores.jsonl", mixed)
    records.replace(results / "against-some-cpu-2-cores.jsonl", dense_rows())
    arguments = ["--results", str(results), "--images", str(tmp_path / "images")]
    assert report.main(["--draw", *arguments]) == 0
    return arguments, tmp_path / "images"


def test_plots_are_drawn_of_every_machine(drawn):
    _, images = drawn
    names = [f"{name}-some-cpu-2-cores.png" for name in ("against", "scale")]
    assert sorted(f.name for f in images.iterdir()) == [*names, "scaling.png"]
    assert all(f.stat().st_size > 1000 for f in images.iterdir())


def test_plots_of_other_rows_are_told(drawn, results, monkeypatch, capsys):
    arguments, images = drawn
    monkeypatch.setattr(report, "default_texts", lambda: [])
    assert report.main(["--check", *arguments]) == 0
    file = results / "scale-some-cpu-2-cores.jsonl"
    records.replace(file, [dataclasses.replace(r, cold_seconds=r.cold_seconds + 1) for r in records.read(file)])
    assert report.main(["--check", *arguments]) == 1
    printed = capsys.readouterr().out
    assert printed.count("run report.py --draw") == 2 and "scaling.png: differs" in printed and "against" not in printed
    (images / "against-some-cpu-2-cores.png").unlink()
    assert report.main(["--check", *arguments]) == 1 and "against-some" in capsys.readouterr().out
    assert report.main(["--draw", *arguments]) == report.main(["--check", *arguments]) == 0
    assert "scaling.png drawn" in capsys.readouterr().out


def test_a_plot_shows_what_was_measured(monkeypatch, tmp_path):
    kept = []
    monkeypatch.setattr(plots, "saved", lambda figure, path: kept.append(figure))
    plots.scaling({"box": scale_rows(508, 1016)}, dense_rows(), tmp_path / "a.png")
    plots.growth(scale_rows(8, 16, axis="units"), tmp_path / "b.png")
    time_lines = {line.get_label(): line.get_xydata().tolist() for line in kept[0].axes[0].lines}
    where = "some-cpu-2-cores"
    assert time_lines["the planned form, 30 units x 10 samples, box"] == [[15240, 3.5], [30480, 9.5]]
    assert time_lines[f"dense reference (6 units x 10 samples), {where}"] == [[1008, 2.0], [2016, 16.0]]
    assert time_lines[f"this library (6 units x 10 samples), {where}"] == [[2016, 0.6]]
    assert [x for x, _ in time_lines[f"the reference ended: time, {where}"]] == [4032, 4032]
    assert [x for x, _ in time_lines[f"the reference ended: memory, {where}"]] == [64512, 64512]
    lazy = [dataclasses.replace(r, storage="lazy (torch)") for r in scale_rows(508, 1016)]
    plots.scaling({"box": lazy}, [], tmp_path / "c.png")
    assert [line.get_label() for line in kept[2].axes[0].lines] == ["matrix-free, 30 units x 10 samples, box"]
    assert {line.get_label() for line in kept[1].axes[0].lines} == {"total", "landmarks", "mds", "power 1"}


def rate_row(case: str, rate: float, **changes: Any) -> Row:
    return Row(suite="floors", case=case, by="torch", rate=rate, unit="x", task="floors", **WHERE, **changes)


def op_row(op: str, flop: float, n_bytes: float, seconds: float) -> Row:
    times = {"seconds": seconds, "seconds_low": seconds / 2, "flop": flop, "moved_bytes": n_bytes}
    return Row(suite="ops", case="an input", stage=op, by="C++", task="guttman_transform", **WHERE, **times)


RATES = [rate_row("copy", 1e10), rate_row("read", 2e10), rate_row("fma-float32", 1e11), rate_row("fma-float64", 5e10)]


OPS = [op_row("few", 1e9, 1e9, 0.2), op_row("many", 1e11, 1e9, 2.0)]


def test_points_lie_under_their_roofs(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(roofline, "saved", lambda figure, path: drawn.append(figure) or path)
    alone = [replace(row, rate=row.rate / 2, settings={"threads": 1}) for row in RATES]
    roofline.roofline(OPS, [*RATES, *alone], tmp_path / "a.png")
    lines = drawn[0].axes[0].get_lines()
    points = {line.get_label(): (line.get_xdata()[0], line.get_ydata()[0]) for line in lines[:2]}
    assert points == {"few": (1.0, 5e9), "many": (100.0, 5e10)}
    slope, *levels = lines[2:5]
    assert slope.get_ydata()[-1] / slope.get_xdata()[-1] == pytest.approx(2e10)  # the faster way of bytes
    assert [level.get_ydata()[0] for level in levels] == [1e11, 5e10]
    assert [level.get_xdata()[0] for level in levels] == [pytest.approx(5.0), pytest.approx(2.5)]
    assert [line.get_ydata()[0] for line in lines[6:8]] == [5e10, 2.5e10]


def test_the_report_draws_a_roofline_a_machine(tmp_path, monkeypatch):
    results, images = tmp_path / "results", tmp_path / "images"
    records.replace(results / "ops-some-cpu-2-cores.jsonl", OPS)
    assert report.draw(results, images) == []  # no floors, no roofs
    records.replace(results / "floors-some-cpu-2-cores.jsonl", RATES)
    (path,) = report.draw(results, images)
    assert path.name == "roofline-some-cpu-2-cores.png" and path.stat().st_size > 10_000
    assert "| copy | 1.00e+10 |" in report.table("floors", results)


def test_pictures_are_drawn_by_peer(tmp_path):
    made = [
        Row(suite="against", case="picture", by=by, n_nodes=n, seconds=n / 1e3, peak_bytes=n, machine="some")
        for by in ("a", "b")
        for n in (1008, 2016)
    ]
    path = plots.by_peer([*made, replace(made[0], seconds=None, skipped="died")], tmp_path / "against.png")
    assert path.stat().st_size > 10_000
