"""Suite "scale": growth and exponents."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks import run
from benchmarks.measure import records, rows
from benchmarks.report import report
from benchmarks.suites import scale

from ..made import WHERE, fake_task, row, scale_rows


def test_growth_beyond_the_pairs_is_told():
    assert scale.missed_goals(scale_rows(508, 1016, 2032)) == []
    assert scale.missed_goals(scale_rows(508, 1016, growth=4.4)) == [
        "slices-1016x30x6, landmarks: 4.40 times slices-508x30x6, goal at most 4.2"
    ]
    assert scale.missed_goals(scale_rows(508, 1016, growth=4.4, axis="units")) == []  # a goal of the slices
    assert scale.missed_goals(scale_rows(508, 2032, growth=16)) == []  # not twice the slices
    short = [dataclasses.replace(r, cold_seconds=r.cold_seconds / 100) for r in scale_rows(508, 1016, growth=9)]
    assert scale.missed_goals(short) == []
    other = [dataclasses.replace(r, storage="tiles") for r in scale_rows(508, growth=9)]
    assert scale.missed_goals([*other, *scale_rows(508, 1016, growth=9)[3:]]) == []  # not the same form


def test_only_what_doubles_alike_is_compared():
    series = scale_rows(508, 1016, 2032, 4064, 8128)
    first, second, third, fourth, fifth = rows.totals(series)
    other_form = dataclasses.replace(second, storage="lazy (torch)")
    assert scale.doubling([first, second, third, fourth, fifth], "slices") == [first, second, third, fourth, fifth]
    assert scale.doubling([first, other_form, third, fourth], "slices") == [third, fourth]
    assert scale.doubling([first, second, fourth], "slices") == [first, second]
    wider = dataclasses.replace(fifth, n_units=200, n_samples=50)
    assert scale.doubling([third, fourth, wider], "slices") == [third, fourth]
    assert scale.doubling([first, third, wider], "slices") == []
    fewer = dataclasses.replace(second, n_landmark=3999)  # k-means lost one: as many were asked for
    assert scale.doubling([first, fewer], "slices") == [first, fewer]
    changed = [r if r.case != first.case else dataclasses.replace(r, storage="tiles") for r in series[:6]]
    assert [line[4] for line in scale.axis_table(changed, "slices").lines] == ["", ""]
    assert scale.slopes(changed, "slices") == (
        "Exponents of the slices: no two cases of one form of which one doubles the other."
    )


def test_exponents_and_shares_of_every_axis():
    mixed = [*scale_rows(508, 1016, 2032), *scale_rows(8, 16, growth=2.0, axis="units")]
    series = scale.by_axis([*reversed(mixed), row(skipped="refused", settings={"axis": "units"}, suite="scale")])
    assert list(series) == ["slices", "units"]
    slices = [r for r in mixed if r.settings == {"axis": "slices"}]
    assert rows.totals(series["slices"]) == rows.totals(slices)  # in the order of their size
    text = "Exponents of the slices from 508 to 2,032, by the seconds of cold runs: "
    assert scale.slopes(slices, "slices") == f"{text}landmarks 2.00, mds 0.00, total 1.63, added memory 1.00."
    assert "landmarks 1.00" in scale.slopes(series["units"], "units")
    head, lines, _ = scale.axis_table(slices, "slices")
    assert head[-2:] == ("landmarks", "mds") and [line[4] for line in lines] == ["", "2.71", "3.53"]
    assert lines[-1] == ("2,032", "60,960", "sparse", "33.5", "3.53", "5.00 GB", "4.00 GB", "21", "96 %", "4 %")


@pytest.mark.parametrize(("refusal", "code"), [("does not fit", 0), (None, 1)])
def test_the_scale_bench_ends_a_series_where_a_case_does_not_fit(refusal, code, tmp_path, monkeypatch, capsys):
    first, second = scale_rows(508, 1016)[:3], scale_rows(508, 1016)[3:]
    fake_task(monkeypatch, {"slices-508x": first, "slices-1016x": second, "slices-": refusal})
    assert run.main(["scale", "--only", "slices", "--device", "cpu", "--out", str(tmp_path)]) == code
    out = capsys.readouterr()
    assert "No goal is missed." in out.out and "Exponents of the slices from 508 to 1,016" in out.out
    assert (refusal or "broke") in out.err and "slices-2032x30x6-storage=lazy before it gave nothing" in out.err
    written = records.read(records.result_path(tmp_path, "scale", WHERE["machine"]))
    assert sum(not r.skipped for r in written) == 6 and "16256" in written[-1].case
    table = report.table("scale", tmp_path, "slices")
    assert "times the one before" in table and report.table("scale", tmp_path).count("Exponents") == 1
    text = f"Not measured: slices-2032x30x6 (mmphate-gpu): {'refused: ' * bool(refusal)}{refusal or 'broke'}."
    assert text in table and text in out.out and table.count("Not measured") == 1  # the larger ones follow from it


def test_the_cpu_ends_with_har_and_is_matrix_free():
    chosen = scale.tasks("cpu", False, ("slices",))
    assert chosen[-1].key == "slices-16256x30x6-storage=lazy" and chosen[-1].after == "slices-8128x30x6-storage=lazy"
    assert scale.tasks("cuda", False, ("slices",))[-1].key == "slices-130048x30x6"
