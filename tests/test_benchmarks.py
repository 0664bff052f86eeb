"""The benchmark scripts: their rows, files, exit codes, and that what they report is so."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks import bench_ops, bench_pipeline, bench_scale, cases, harness, report, rows, twins, verify_gpu, worker  # noqa: E402
from mmphate_gpu import multislice_affinity, to_scipy  # noqa: E402
from mmphate_gpu.params import STORAGES  # noqa: E402
from mmphate_gpu.stages import STAGES  # noqa: E402

Row = rows.Row


def row(**changes: Any) -> Row:
    plain = Row(
        "suite-hopf-sparse", "total", "cpu", "some-cpu-2-cores", "sparse", 8080, 6, 10, 48480, 4000, 20.0, 1, 10**9
    )
    return dataclasses.replace(plain, versions="torch 2", date="2026-01-02", **changes)


# ---------------------------------------------------------------- rows and files


def test_rows_come_back_as_they_were_written(tmp_path):
    written = [row(), row(stage="mds", form="MDSResult"), row(t=21, stress=0.1, preservation={"10": 0.2, "40": 0.4})]
    rows.write_rows(tmp_path / "new" / "a.json", written)
    assert rows.read_rows(tmp_path / "new" / "a.json") == written


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    rows.write_json(path, [1])
    with pytest.raises(TypeError):
        rows.write_json(path, [object()])
    assert json.loads(path.read_text()) == [1]
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("content", ["[1]", '{"rows": 3}', '[{"unknown": 1}]', "{}"])
def test_files_without_rows_are_refused(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match="no benchmark rows"):
        rows.read_rows(tmp_path / "a.json")


def test_cells_show_what_was_measured_beside_what_was_expected():
    cells = dict(zip(rows.HEAD, rows.total_cells(row(t=21, t_expected=22, affinity_error_max=2e-7)), strict=True))
    assert (cells["t"], cells["affinity error"], cells["peak"], cells["kept 10 / 40"]) == (
        "21 (22)",
        "2.0e-07",
        "1.00 GB",
        "",
    )


# ---------------------------------------------------------------- cases and the harness


def test_every_case_has_the_name_it_is_listed_under():
    assert all(name == case.name for name, case in cases.CASES.items())
    assert {*cases.QUICK, *cases.SUITE, *cases.GPU, *cases.SMALLEST} <= cases.CASES.keys()
    assert len(cases.SUITE) == 4


def test_the_scale_series_doubles_the_slices_and_passes_through_har():
    sizes = [tuple(map(int, name.removeprefix("scale-").split("x"))) for name in cases.SCALE]
    assert all(after[0] == 2 * before[0] for before, after in zip(sizes[:-1], sizes[1:-1], strict=False))
    assert (127 * 128, 30, 6) in sizes and sizes[-1] == (50_000, 200, 50)
    first = cases.CASES[cases.SCALE[0]].trace()
    assert (first.n_slices, first.n_units, first.n_samples) == sizes[0]


def test_the_harness_knows_every_form_of_storage():
    assert harness.STORAGES == STORAGES  # written again there: listing the cases loads no torch
    found = harness.run_case("golden-walk", device="cpu", storage="tiles")
    assert {row.storage for row in found} == {"tiles"} and found[-1].t == found[-1].t_expected


def test_a_case_is_measured_in_a_process_of_its_own():
    found = harness.run_case("golden-walk", device="cpu")
    assert [r.stage for r in found] == [*STAGES, "total"]
    total = found[-1]
    assert total.seconds >= sum(r.seconds for r in found[:-1]) > 0
    assert total.peak_bytes == max(r.peak_bytes for r in found) > 5e7
    assert total.predicted_peak_bytes == max(r.predicted_peak_bytes for r in found)
    assert (total.n_slices, total.n_units, total.n_samples, total.n_nodes) == (28, 20, 12, 560)
    assert (total.t, total.stress) == (total.t_expected, pytest.approx(total.stress_expected, rel=1e-3))
    assert total.affinity_error_max < 1e-6 and total.pattern_differences == 0


def test_a_case_that_fails_says_why():
    with pytest.raises(harness.CaseRefused, match="cuda:99"):
        harness.run_case("walk-small", device="cuda:99")
    with pytest.raises(harness.CaseFailed, match="more than"):
        harness.run_case("walk-small", device="cpu", timeout=0.05)


def test_the_harness_goes_on_after_a_failure(tmp_path, monkeypatch, capsys):
    def run_case(name, **options):
        if name == "golden-walk":
            raise harness.CaseFailed("broke")
        return [row(case=name)]

    monkeypatch.setattr(harness, "run_case", run_case)
    assert harness.main(["--quick", "--case", "walk-small", "--out", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "golden-walk FAILED: broke" in err and "walk-100x50x25" in out
    assert sorted(f.name for f in tmp_path.iterdir()) == [
        "quick-some-cpu-2-cores.json",
        "walk-small-some-cpu-2-cores.json",
    ]
    quick = rows.read_rows(tmp_path / "quick-some-cpu-2-cores.json")
    assert [r.case for r in quick] == [name for name in cases.QUICK if name != "golden-walk"]


def test_the_harness_lists_its_cases(capsys):
    assert harness.main(["--list"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in cases.CASES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to run"),
        (["--case", "nope"], "--case nope is unknown; accepted: walk-small"),
        (["--quick", "--repeats", "0"], "at least 1"),
    ],
)
def test_bad_usage_ends_with_2(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        harness.main([*arguments, "--out", str(tmp_path / "out")])
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- what the worker measures


@pytest.mark.skipif(not os.access(worker.CLEAR, os.W_OK), reason="the high-water mark cannot be reset here")
def test_peaks_belong_to_their_spans():
    meter = worker.PeakMeter(torch.device("cpu"))
    block = np.ones(25_000_000)  # 200 MB
    meter("large")
    del block
    meter("between")  # begins with the block still there
    meter("small")
    assert meter.spans["large"] - meter.spans["small"] > 150e6


def test_affinity_errors_count_entries_that_only_one_side_has():
    operator = multislice_affinity(np.random.default_rng(0).normal(size=(30, 3, 6)).cumsum(0), device="cpu")
    expected = to_scipy(operator).toarray()
    assert worker.affinity_errors(operator, expected)["affinity_error_max"] == 0
    expected[0, 0] += 1e-3
    i, j = np.argwhere(expected == 0)[0]
    expected[i, j] = 2e-4
    found = worker.affinity_errors(operator, expected)
    assert found["affinity_error_max"] == pytest.approx(1e-3)
    assert found["pattern_differences"] == 1


# ---------------------------------------------------------------- the pipeline bench and its goals


GOOD: dict[str, Any] = {"preservation": {"10": 0.21, "40": 0.39}, "t": 20, "stress": 0.1}


def test_goals_that_are_missed_are_told():
    good = row(**GOOD)
    assert bench_pipeline.missed_goals([good]) == []
    bad = row(
        case="suite-hopf-lazy",
        seconds=91.0,
        peak_bytes=5 * 10**9,
        preservation={"10": 0.2, "40": 0.39},
        t=21,
        stress=0.2,
    )
    told = "\n".join(bench_pipeline.missed_goals([good, bad]))
    for part in ("91.0 s", "5.00 GB", "0.2000 of 10", "t = 21, the sparse form has 20", "stress 0.2000"):
        assert part in told
    assert "40 neighbours" not in told


def test_a_plan_that_is_off_is_told():
    near, off = (row(**GOOD, peak_bytes=10**9, predicted_peak_bytes=int(planned * 1e9)) for planned in (0.86, 1.16))
    assert bench_pipeline.missed_goals([near]) == []
    told = ["suite-hopf-sparse: peak 1.00 GB, planned 1.16 GB, goal within 15%"]
    assert bench_pipeline.missed_goals([off]) == told


def test_a_stage_has_a_goal_of_its_own():
    slow, quick = row(stage="mds", seconds=1.9), row(stage="mds", seconds=1.4)
    elsewhere = row(case="walk-1600x6x10", stage="mds", seconds=9.0)
    told = bench_pipeline.slow_stages([slow, quick, elsewhere, row(stage="landmarks", seconds=9.0), row()])
    assert told == ["suite-hopf-sparse, mds: 1.90 s, goal at most 1.5 s"]


def test_the_pipeline_bench_keeps_the_rows_of_other_cases(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        bench_pipeline,
        "run_case",
        lambda name, **options: [row(case=name, stage="mds", seconds=1.0), row(case=name, **GOOD)],
    )
    for only in ("suite-hopf-lazy", "suite-hopf-sparse", "suite-hopf-lazy"):
        assert bench_pipeline.main(["--only", only, "--out", str(tmp_path)]) == 0
    (file,) = tmp_path.iterdir()
    assert [r.case for r in rows.read_rows(file)] == ["suite-hopf-sparse"] * 2 + ["suite-hopf-lazy"] * 2
    text = capsys.readouterr().out
    assert "mds" in text and text.count("All goals met.") == 3


def test_the_pipeline_bench_ends_with_1_if_a_goal_is_missed(tmp_path, monkeypatch, capsys):
    def run_case(name, **options):
        return [row(case=name, **GOOD, **({"seconds": 91.0} if name == "suite-hopf-lazy" else {}))]

    monkeypatch.setattr(bench_pipeline, "run_case", run_case)
    only = ["--out", str(tmp_path), "--only", "suite-hopf-sparse"]
    assert bench_pipeline.main(only) == 0
    assert bench_pipeline.main([*only, "--only", "suite-hopf-lazy"]) == 1
    assert "suite-hopf-lazy: 91.0 s, goal at most 90 s" in capsys.readouterr().out
    (file,) = tmp_path.iterdir()
    assert [r.case for r in rows.read_rows(file)] == ["suite-hopf-sparse", "suite-hopf-lazy"]  # written all the same


def test_the_pipeline_bench_ends_with_1_if_a_case_fails(tmp_path, monkeypatch, capsys):
    def run_case(name, **options):
        raise harness.CaseFailed("broke")

    monkeypatch.setattr(bench_pipeline, "run_case", run_case)
    assert bench_pipeline.main(["--only", "suite-hopf-lazy", "--out", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "suite-hopf-lazy FAILED: broke" in err and "goals" not in out


# ---------------------------------------------------------------- the report


def scale_rows(*sizes: int, growth: float = 4.0) -> list[Row]:
    """Two stages whose seconds grow by ``growth`` and not at all where the slices double, and a total."""
    found = []
    for turn, n in enumerate(sizes):
        common = {"case": f"scale-{n}x30x6", "n_slices": n, "n_units": 30, "n_nodes": 30 * n, "n_landmark": 4000}
        seconds = 2 * growth**turn
        found += [row(stage="landmarks", seconds=seconds, **common), row(stage="mds", seconds=1.5, **common)]
        found.append(row(stage="total", seconds=seconds + 1.5, peak_bytes=10**9 * 2**turn, t=21, **common))
    return found


def test_growth_beyond_the_pairs_is_told():
    assert bench_scale.missed_goals(scale_rows(508, 1016, 2032)) == []
    assert bench_scale.missed_goals(scale_rows(508, 1016, growth=4.4)) == [
        "scale-1016x30x6, landmarks: 4.40 times scale-508x30x6, goal at most 4.2"
    ]
    assert bench_scale.missed_goals(scale_rows(508, 2032, growth=16)) == []  # not twice the slices
    short = [dataclasses.replace(r, seconds=r.seconds / 100) for r in scale_rows(508, 1016, growth=9)]
    assert bench_scale.missed_goals(short) == []


def test_slopes_and_shares():
    found = scale_rows(508, 1016, 2032)
    assert rows.slopes(found).endswith("landmarks 2.00, mds 0.00, total 1.63, peak 1.00.")
    head, lines = rows.scale_cells(found)
    assert head[-2:] == ("landmarks", "mds") and [line[3] for line in lines] == ["", "2.71", "3.53"]
    assert lines[-1] == ("60,960", "sparse", "33.5", "3.53", "4.00 GB", "21", "96 %", "4 %")


@pytest.mark.parametrize(("refusal", "code"), [(harness.CaseRefused, 0), (harness.CaseFailed, 1)])
def test_the_scale_bench_ends_where_a_case_does_not_fit(refusal, code, tmp_path, monkeypatch, capsys):
    made = iter(scale_rows(508, 1016))

    def run_case(name, **options):
        assert options["storage"] == "lazy"
        found = [next(made, None) for _ in range(3)]
        if None in found:
            raise refusal("does not fit")
        return found

    monkeypatch.setattr(bench_scale, "run_case", run_case)
    folders = ["--device", "cpu", "--out", str(tmp_path), "--images", str(tmp_path)]
    assert bench_scale.main(folders) == code
    out = capsys.readouterr()
    assert "All goals met." in out.out and "scale-2032x30x6 ends the series: does not fit" in out.err
    (written,) = tmp_path.glob("scale-*.json")
    assert len(rows.read_rows(written)) == 6
    assert written.with_suffix(".png").stat().st_size > 1000
    assert bench_scale.main(folders) == 1  # not even the first case
    table = report.table("scale", tmp_path)
    assert "times the one before" in table and "Slopes over the last 2 cases" in table


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    rows.write_rows(folder / "pipeline-some-cpu-2-cores.json", [row(stage="mds", seconds=1.5), row(t=21)])
    rows.write_rows(folder / "pipeline-other.json", [row(machine="other", seconds=7.0)])
    rows.write_rows(folder / "pipelines-third.json", [row(machine="third")])
    return folder


def test_a_report_has_one_table_a_machine(results, capsys):
    assert report.main(["pipeline", "--results", str(results)]) == 0
    text = capsys.readouterr().out
    assert "| suite-hopf-sparse | cpu | sparse | 48,480 | 20.0 | 1.00 GB | 21 |" in text
    assert "some-cpu-2-cores, 2026-01-02; torch 2." in text and "other, 2026" in text and "third" not in text
    assert report.main(["pipeline-some-cpu-2-cores", "--stages", "--results", str(results)]) == 0
    assert "| mds | 1.50 s, 1.00 GB |" in capsys.readouterr().out


def test_marked_places_are_filled_and_checked(results, tmp_path, capsys):
    text = tmp_path / "README.md"
    text.write_text("before\n<!-- bench:pipeline-other -->\nold\n<!-- /bench -->\nafter\n")
    arguments = [str(text), "--results", str(results)]
    assert report.main(["--check", *arguments]) == 1
    assert "differs" in capsys.readouterr().out and "old" in text.read_text()
    assert report.main(["--write", *arguments]) == 0
    assert "7.00" in text.read_text() and "old" not in text.read_text()
    assert text.read_text().startswith("before\n<!-- bench") and text.read_text().endswith("<!-- /bench -->\nafter\n")
    assert report.main(["--check", *arguments]) == 0
    text.write_text(text.read_text().replace("7.00", "6.00"))  # a digit typed by hand
    assert report.main(["--check", *arguments]) == 1


def test_a_marked_place_without_results_has_to_be_empty(results, tmp_path):
    text = tmp_path / "README.md"
    text.write_text("<!-- bench:not-measured -->\n<!-- /bench -->\n")
    arguments = ["--check", str(text), "--results", str(results)]
    assert report.main(arguments) == 0
    text.write_text("<!-- bench:not-measured -->\n| 3.00 |\n<!-- /bench -->\n")
    assert report.main(arguments) == 1


def test_a_report_without_results_says_so(results, capsys):
    assert report.main(["nothing", "--results", str(results)]) == 1
    assert "nothing-MACHINE.json" in capsys.readouterr().err


def test_the_texts_of_this_checkout_agree_with_its_results():
    assert report.main(["--check"]) == 0


# ---------------------------------------------------------------- verify_gpu


def test_without_cuda_it_ends_with_2_and_one_sentence(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "verify_gpu.py"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and "CUDA" in done.stderr
    assert not (tmp_path / "out").exists()


def test_every_section_runs_on_the_cpu(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "verify_gpu.py"), "--cpu"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path), "--log", str(tmp_path / "log")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = tmp_path.glob("verify_cpu-*.json")
    content = json.loads(file.read_text())
    assert list(content["sections"]) == list(verify_gpu.SECTIONS)
    status = {name: section["status"] for name, section in content["sections"].items()}
    assert {status.pop("sanitizer_memcheck"), status.pop("sanitizer_racecheck")} == {"skipped"}
    assert set(status.values()) == {"passed"}
    assert content["sections"]["conformance"]["passed"] > 5
    assert [r.case for r in rows.totals(rows.read_rows(file))] == list(cases.SMALLEST)


@pytest.fixture
def verification(tmp_path, monkeypatch):
    monkeypatch.setattr(verify_gpu, "about", lambda v: {"machine": "some-gpu", "missing": [], "device": v.device})
    return ["--cpu", "--out", str(tmp_path), "--log", str(tmp_path / "log")], tmp_path / "verify_cpu-some-gpu.json"


def test_a_failed_section_is_recorded_and_the_next_one_runs(verification, monkeypatch, capsys):
    arguments, file = verification
    sections = {"one": lambda v: verify_gpu.failed("it broke"), "two": lambda v: {"status": "passed"}}
    monkeypatch.setattr(verify_gpu, "SECTIONS", sections)
    assert verify_gpu.main(arguments) == 1
    found = json.loads(file.read_text())["sections"]
    assert (found["one"]["status"], found["one"]["detail"], found["two"]["status"]) == ("failed", "it broke", "passed")
    assert "it broke" in capsys.readouterr().out


def test_what_was_found_is_kept_if_a_later_section_dies(verification, monkeypatch):
    arguments, file = verification

    def killed(v):
        raise KeyboardInterrupt

    monkeypatch.setattr(verify_gpu, "SECTIONS", {"one": lambda v: {"status": "passed"}, "two": killed})
    with pytest.raises(KeyboardInterrupt):
        verify_gpu.main(arguments)
    assert list(json.loads(file.read_text())["sections"]) == ["one"]


def test_sections_without_time_left_are_skipped(verification, monkeypatch):
    arguments, file = verification
    monkeypatch.setattr(verify_gpu, "SECTIONS", {"one": lambda v: {"status": "passed"}})
    assert verify_gpu.main([*arguments, "--budget", "1"]) == 0
    assert json.loads(file.read_text())["sections"]["one"]["status"] == "skipped"


def state(tmp_path: Path, **changes: Any) -> verify_gpu.Verification:
    v = verify_gpu.Verification("cpu", True, tmp_path, 60)
    v.about = {"missing": []}
    return dataclasses.replace(v, **changes)


def test_a_process_that_takes_too_long_is_ended(tmp_path):
    code = "import time; print('started', flush=True); time.sleep(60)"
    told = verify_gpu.call(state(tmp_path), "slow", [sys.executable, "-c", code], 1.5)
    assert isinstance(told, str) and "more than 2 s" in told and "started" in told


@pytest.mark.parametrize(
    ("body", "status", "counts"),
    [
        ("def test_good(): pass", "passed", (1, 0, 0)),
        ("def test_good(): pass\ndef test_bad(): assert 0", "failed", (1, 1, 0)),
        ("import pytest\ndef test_other(): pytest.skip('no device')", "failed", (0, 0, 1)),  # nothing was tested
        ("", "failed", (0, 0, 0)),
    ],
)
def test_pytest_runs_are_counted(tmp_path, body, status, counts):
    (tmp_path / "test_some.py").write_text(body)
    found = verify_gpu.pytest_section(
        state(tmp_path), "some", [f"--rootdir={tmp_path}", "-c", os.devnull, str(tmp_path)], 60
    )
    assert found["status"] == status
    assert (found["passed"], found["failed"], found["skipped"]) == counts


def test_without_pytest_the_tests_count_as_failed(tmp_path):
    assert "pytest is not installed" in verify_gpu.tests(state(tmp_path, about={"missing": ["pytest"]}))["detail"]


def test_a_finding_beyond_its_bound_fails_the_section():
    good, bad, none = twins.Finding("a", 0.1, 0.2), twins.Finding("b", 0.3, 0.2), twins.Finding("c", float("nan"), 0.2)
    assert twins.Section([good], []).asdict()["status"] == "passed"
    assert twins.Section([good, bad], []).asdict()["status"] == "failed"
    assert twins.Section([none], []).asdict()["status"] == "failed"


def test_missing_keops_is_said(monkeypatch):
    monkeypatch.setattr(twins, "available", lambda package: False)
    section = twins.operators(torch.device("cpu"), quick=True)
    assert section.missing == ["KeOps: the package pykeops is not installed"]
    assert section.findings and all("keops" not in finding.what for finding in section.findings)


# ---------------------------------------------------------------- the ops


def op_row(**changes: Any) -> rows.OpRow:
    given = {
        "op": "guttman_transform",
        "what": "4000 x 3, float32",
        "twin": "C++ (avx2)",
        "seconds": 0.002,
        "rate": 1e10,
    }
    return rows.OpRow(**({**given, "unit": "pairs", "portable_seconds": 0.06, "machine": "box"} | changes))


def test_op_goals_are_ratios_and_rates_of_one_run():
    double = op_row(what="4000 x 3, float64", seconds=0.004, portable_seconds=0.04)
    assert bench_ops.sweep_ratio([double, op_row()]) == pytest.approx(30)
    assert bench_ops.missed_goals([op_row(), double]) == []
    slow = op_row(seconds=0.01)
    counts = op_row(op="radius_counts", rate=1e9, goal=3e9)
    told = bench_ops.missed_goals([slow, double, counts])
    assert len(told) == 2 and "1e+09 pairs/s, goal 3e+09" in told[0] and "6.0 times the portable" in told[1]
    assert bench_ops.missed_goals([op_row(device="cuda", seconds=0.01), double]) == []


def test_bench_ops_measures_what_serves_and_writes_it(tmp_path, capsys):
    only = ["--only", "guttman_transform", "--only", "assign_nearest"]
    assert bench_ops.main(["--quick", "--repeats", "2", "--out", str(tmp_path), *only]) == 0
    (file,) = tmp_path.iterdir()
    found = rows.read_op_rows(file)
    assert [row.op for row in found] == ["guttman_transform"] * 8 + ["assign_nearest"] * 3
    assert all(row.seconds > 0 and row.rate > 0 for row in found)
    table = report.table("ops", tmp_path)
    assert "500 x 3, float32" in table and "times portable" in table
    assert "assign_nearest" in capsys.readouterr().out


@pytest.mark.slow
def test_every_op_of_the_bench_runs(tmp_path):
    assert bench_ops.main(["--quick", "--repeats", "1", "--out", str(tmp_path)]) == 0
    (file,) = tmp_path.iterdir()
    from mmphate_gpu.ops.twins import PORTABLE

    assert {row.op for row in rows.read_op_rows(file)} == {*PORTABLE}
