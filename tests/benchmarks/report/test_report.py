"""Tables from the rows, and the marked places of texts."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks import suites
from benchmarks.measure import records
from benchmarks.report import report

from ..made import dense_rows, row


def test_the_story_has_the_runs_of_the_paper_and_where_the_reference_stops(results):
    text = report.table("story", results)
    line = "| bifurcation suite, Hopf (paper) | 8,080 x 6 x 10 | 48,480 | 18.80 GB | 7.00 | 1.00 GB | 20.0 | 1.00 GB |"
    assert line in text and "other: seconds" in text and "small" not in text and "reference on" not in text
    records.replace(results / "against-some-cpu-2-cores.jsonl", dense_rows())
    sentence = (
        "The dense float64 reference on some-cpu-2-cores: 2,016 nodes in 8.00 s and 400 MB, stopped at 4,032 nodes "
        "(took more than 300 s), stopped at 64,512 nodes (ran out of memory: no more)."
    )
    assert sentence in report.table("story", results)
    assert report.table("against", results, "neighbors") == ""  # a table without a line is none


def test_a_reference_that_crashed_is_in_the_story(results):
    crashed = row(suite="against", case="picture", by="reference", task="picture-1008-reference", n_nodes=1008)
    crashed = dataclasses.replace(crashed, seconds=None, skipped="Traceback\n  broke.", failed=True)
    records.replace(results / "against-some-cpu-2-cores.jsonl", [crashed])
    assert "on some-cpu-2-cores: stopped at 1,008 nodes (broke)." in report.table("story", results)


def test_rows_of_other_tasks_are_left_out_and_counted(results, capsys):
    file = results / "pipeline-some-cpu-2-cores.jsonl"
    by_hand = row(task="suite-hopf-sparse-storage=lazy", storage="lazy (torch)", seconds=99.0)
    gone = row(case="removed", task="removed", seconds=98.0)
    records.replace(file, [*records.read(file), by_hand, gone])
    text = report.table("pipeline", results)
    assert "99.0" not in text and "removed" not in text
    assert text.count("2 rows of other tasks left out.") == 1  # nor are those of quick tasks counted
    assert "2 rows of other tasks left out." in report.table("story", results)
    records.replace(results / "pipeline-other.jsonl", [gone])
    with pytest.raises(report.NoResults):
        report.table("pipeline-other", results)


@pytest.mark.parametrize("suite", suites.NAMES)
def test_the_tasks_of_a_full_run_are_known_without_a_gpu(suite):
    assert report.full_tasks(suite, "cpu") and report.full_tasks(suite, "cuda")


def test_what_was_not_measured_is_told_below_the_table(results):
    file = results / "pipeline-some-cpu-2-cores.jsonl"
    died = row(
        case="har-127x128x30x6", task="har-127x128x30x6", seconds=None, skipped="a\nended by SIGKILL", failed=True
    )
    records.replace(file, [*records.read(file), died])
    text = report.table("pipeline-some-cpu-2-cores", results)
    assert "\n\nNot measured: har-127x128x30x6 (mmphate-gpu): ended by SIGKILL.\n\n" in text
    assert "Not measured: suite-hopf-sparse (mmphate-gpu): refused: x." in text
    assert "Not measured" not in report.table("pipeline-some-cpu-2-cores", results, "stages")
    records.replace(results / "against-some-cpu-2-cores.jsonl", dense_rows())
    assert "Not measured" not in report.table("against", results, "picture")  # these stand in the table


def test_what_rows_were_measured_on_is_told_whole():
    rows = [row(commit="a1"), row(commit="b2+", versions={"torch": "3", "numpy": "2"}, date="2026-01-05"), row()]
    sentence = "some-cpu-2-cores, 2 threads, 16.00 GB, 2026-01-02 to 2026-01-05, commit a1, b2+, unknown"
    assert report.conditions_text(rows) == f"{sentence}; torch 2 / 3, numpy 2."


def test_a_report_has_one_table_a_machine(results, capsys):
    assert report.main(["pipeline", "--results", str(results)]) == 0
    text = capsys.readouterr().out
    assert "| suite-hopf-sparse | cpu | sparse | 48,480 | 20.0 |  | 1.00 GB | 21 |" in text
    assert "some-cpu-2-cores, 2 threads, 16.00 GB, 2026-01-02, commit unknown; torch 2." in text
    assert "other, 2 threads, 16" in text
    assert "third" not in text
    assert report.main(["pipeline-some-cpu-2-cores:stages", "--results", str(results)]) == 0
    assert "| mds | 1.50 s, 1.00 GB |" in capsys.readouterr().out


def test_marked_places_are_filled_and_checked(results, tmp_path, capsys):
    text = tmp_path / "README.md"
    text.write_text("before\n<!-- bench:pipeline-other -->\nstale\n<!-- /bench -->\nafter\n")
    arguments = [str(text), "--results", str(results)]
    assert report.main(["--check", *arguments]) == 1
    assert "differs" in capsys.readouterr().out and "stale" in text.read_text()
    assert report.main(["--write", *arguments]) == 0
    assert "7.00" in text.read_text() and "stale" not in text.read_text()
    assert text.read_text().startswith("before\n<!-- bench") and text.read_text().endswith("<!-- /bench -->\nafter\n")
    assert report.main(["--check", *arguments]) == 0
    text.write_text(text.read_text().replace("7.00", "6.00"))  # a digit typed by hand
    assert report.main(["--check", *arguments]) == 1


def test_a_marked_place_without_results_has_to_be_empty(results, tmp_path):
    text = tmp_path / "README.md"
    text.write_text("<!-- bench:ops-nowhere -->\n<!-- /bench -->\n")
    arguments = ["--check", str(text), "--results", str(results)]
    assert report.main(arguments) == 0
    text.write_text("<!-- bench:ops-nowhere -->\n| 3.00 |\n<!-- /bench -->\n")
    assert report.main(arguments) == 1


def test_a_report_without_results_says_so(results, capsys):
    assert report.main(["nothing", "--results", str(results)]) == 1
    assert "nothing-MACHINE.jsonl" in capsys.readouterr().err


def test_the_texts_of_this_checkout_agree_with_its_results():
    assert report.main(["--check"]) == 0
