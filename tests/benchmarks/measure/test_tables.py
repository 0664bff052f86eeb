"""Tables and their cells."""

from __future__ import annotations

from benchmarks.measure import rows, tables
from benchmarks.suites import pipeline

from ..made import row


def test_cells_show_what_was_measured_beside_what_was_expected():
    total = row(t=21, t_expected=22, affinity_error_max=2e-7, cold_seconds=25.0, **rows.timing([19.0, 20.0, 22.0]))
    cells = dict(zip(pipeline.HEAD, pipeline.total_cells(total), strict=True))
    assert (cells["t"], cells["affinity error"], cells["peak"]) == ("21 (22)", "2.0e-07", "1.00 GB")
    assert (cells["seconds"], cells["cold"], cells["kept 10 / 40"]) == ("20.0 ± 1.50", "25.0", "")
    assert tables.spread_text(row(repeats=0)) == "20.0"


def test_a_cell_is_one_line():
    text = "Traceback:\n  a | b"
    assert tables.plain_table(("x", "y"), [("1", text)]) == "x  y\n1  a | b"
    assert tables.markdown_table(("x",), [(text,)]) == "| x |\n| --- |\n| a \\| b |"
    assert row(skipped="first\n  last.\n").reason == "last" and row().reason == ""
