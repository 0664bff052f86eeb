"""The guard against growing work: what it lets through, what it stops, and that it counts."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from benchmarks.guard import guard
from benchmarks.measure.records import ROOT
from mmphate_gpu.ops.launch import native

# An op of n^1 on two instruction sets.
PLAIN = guard.Measured(
    compiler="GCC: 12",
    counts={isa: {"op, input": {"100": 10_000, "200": 20_000, "400": 40_000}} for isa in ("baseline", "avx2")},
    work={"entries": 5000, "t": 20},
)


def scaled(sizes: dict[str, float], isa: str = "avx2") -> guard.Measured:
    """`PLAIN` with the counts of ``isa`` at these sizes times the factors beside them."""
    case = {size: round(count * sizes.get(size, 1)) for size, count in PLAIN.counts[isa]["op, input"].items()}
    return dataclasses.replace(PLAIN, counts=PLAIN.counts | {isa: {"op, input": case}})


def verdicts(measured: guard.Measured, committed: guard.Measured = PLAIN) -> list[tuple[str, str]]:
    return [(finding.verdict, finding.what) for finding in guard.compare(committed, measured)]


def test_what_is_the_same_or_within_the_tolerance_passes():
    assert verdicts(PLAIN) == []
    assert verdicts(scaled({"100": 1.019, "200": 0.981})) == []


def test_more_instructions_are_worse_and_fewer_are_told():
    assert verdicts(scaled({"200": 1.021})) == [(guard.WORSE, "avx2: op, input, size 200")]
    assert verdicts(scaled({"200": 0.979})) == [(guard.BETTER, "avx2: op, input, size 200")]


def test_growth_shows_where_the_counts_are_of_another_compiler():
    # The least-squares slope over sizes 1, 2, 4 is that of its ends: 8 % at the largest raise it by ln 1.08 / ln 4.
    grown = dataclasses.replace(scaled({"400": 1.08}), compiler="GCC: 13")
    (skipped, worse) = guard.compare(PLAIN, grown)
    assert skipped.verdict == guard.SKIPPED and "GCC: 13" in skipped.note
    assert (worse.verdict, worse.what) == (guard.WORSE, "avx2: exponent of op, input")
    assert (worse.before, worse.now) == (pytest.approx(1), pytest.approx(1.0555, abs=1e-4))
    # All sizes alike, by as much as you like: another compiler's business.
    same_growth = dataclasses.replace(scaled({"100": 3, "200": 3, "400": 3}), compiler="GCC: 13")
    assert [verdict for verdict, _ in verdicts(same_growth)] == [guard.SKIPPED]


def test_more_steps_are_worse_whatever_the_compiler():
    grown = dataclasses.replace(PLAIN, compiler="GCC: 13", work={"entries": 5101, "t": 20})
    assert verdicts(grown)[1:] == [(guard.WORSE, "steps: entries")]


def test_what_only_one_of_the_two_counts_is_not_passed_over():
    more = dataclasses.replace(PLAIN, work=PLAIN.work | {"sweeps": 3})
    assert verdicts(more) == verdicts(PLAIN, more) == [(guard.UNKNOWN, "steps: sweeps")]
    assert guard.UNKNOWN in guard.FAILING


def test_an_instruction_set_that_cannot_run_here_is_skipped():
    without = dataclasses.replace(PLAIN, counts={"baseline": PLAIN.counts["baseline"]})
    assert verdicts(without) == [(guard.SKIPPED, "all ops, avx2")]


@pytest.mark.parametrize(("factor", "code", "shown"), [(1.0, 0, "0 worse"), (1.5, 1, "WORSE"), (0.5, 0, "better")])
def test_the_exit_code_and_the_table(monkeypatch, tmp_path, capsys, factor, code, shown):
    monkeypatch.setattr(guard, "measure", lambda: PLAIN)
    monkeypatch.setattr(guard, "FILE", tmp_path / "guard.json")
    assert guard.main(["--accept", "the first"]) == 0
    monkeypatch.setattr(guard, "measure", lambda: scaled(dict.fromkeys(("100", "200", "400"), factor)))
    assert guard.main([]) == code
    printed = capsys.readouterr().out
    assert shown in printed and ("--accept" in printed) == (code == 1)


def test_accepting_keeps_the_reasons_and_what_this_machine_cannot_count(tmp_path):
    file = tmp_path / "guard.json"
    guard.accept(file, PLAIN, "the first")
    less = dataclasses.replace(PLAIN, counts={"baseline": {"op, input": {"100": 1}}})
    guard.accept(file, less, "a better way")
    committed, history = guard.read(file)
    assert committed.counts == {"baseline": {"op, input": {"100": 1}}, "avx2": PLAIN.counts["avx2"]}
    assert [entry["reason"] for entry in history] == ["the first", "a better way"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", entry["date"]) and "commit" in entry for entry in history)
    guard.accept(file, dataclasses.replace(less, compiler="GCC: 13"), "another compiler")
    assert guard.read(file)[0].counts == less.counts


@pytest.mark.parametrize("program", ["valgrind", "g++"])
def test_where_nothing_can_be_counted_it_says_so(monkeypatch, capsys, program):
    monkeypatch.setattr(guard, "library_path", lambda: Path("there"))
    monkeypatch.setattr(shutil, "which", lambda name: None if name == program else name)
    assert guard.main([]) == 2
    assert f"there is no {program}" in capsys.readouterr().err


def test_an_empty_reason_is_bad_usage(capsys):
    with pytest.raises(SystemExit) as ended:
        guard.main(["--accept", " "])
    assert ended.value.code == 2 and "--" in capsys.readouterr().err


def test_dumps_of_another_format_are_no_counts():
    with pytest.raises(guard.CannotCount, match="format"):
        guard._by_case(iter(["desc: Trigger: something\nsummary: 12\n"]))


def test_a_spy_sees_every_call_and_goes_again():
    with guard._calls(json, "loads") as seen:
        assert json.loads("[1]") == [1]
    json.loads("[2]")
    assert seen == [("[1]",)]


def test_every_op_of_the_library_is_counted_at_sizes_that_double():
    committed, history = guard.read(guard.FILE)
    exported = {
        name
        for file in (ROOT / "csrc" / "cpu").glob("*.cpp")
        for name in re.findall(r"int MMP_EXPORT\((\w+)\)", file.read_text())
    }
    assert history and set(committed.counts) == set(guard.INSTRUCTION_SETS) and exported
    for cases in committed.counts.values():
        assert {case.partition(",")[0] for case in cases} == exported
        for sizes in cases.values():
            assert [int(size) for size in sizes] == [2**doubling * int(min(sizes, key=int)) for doubling in range(3)]


def test_the_steps_of_the_small_pipeline_are_no_more_than_those_that_were_committed():
    measured, (committed, _) = guard.work_counts(), guard.read(guard.FILE)
    findings = guard.compare(committed, dataclasses.replace(committed, work=measured))
    assert not [finding.cells() for finding in findings if finding.verdict in guard.FAILING]
    # The inputs are fixed and the pairs are decided alike everywhere: this one can be no other.
    assert measured["entries of the affinity"] == committed.work["entries of the affinity"]


def skip_where_nothing_can_be_counted() -> None:
    for program in ("valgrind", "g++"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program} on PATH")
    if reason := native.why_no_native():
        pytest.skip(f"no C++ twins: {reason}")
    if native.PATH_VARIABLE in os.environ:
        pytest.skip("another library than that of this checkout, which valgrind may not run")


def test_an_op_is_counted_under_valgrind(tmp_path):
    skip_where_nothing_can_be_counted()
    library, driver, case = guard.library_path(), guard.build_driver(tmp_path), "guttman_transform, float32 x 2"
    measured = guard.instructions(driver, library, "baseline", case)
    # A vector of four pairs takes at least a square root, a division and two multiply-adds; each pair is seen once.
    assert list(measured) == [case] and list(measured[case]) == ["200", "400", "800"]
    assert all(count > int(n) ** 2 / 2 / 4 * 4 for n, count in measured[case].items())
    assert 1.7 < guard.exponents(measured)[case] < 2
    assert guard.instructions(driver, library, "baseline", case) == measured  # to the instruction
    assert guard.compiler_of(library) != "an unknown compiler"
    assert guard.instructions(driver, library, "no such set") == {}


@pytest.mark.slow
def test_nothing_has_grown_since_the_counts_were_committed(capsys):
    """The whole command, in about a minute."""
    skip_where_nothing_can_be_counted()
    here, committed = guard.compiler_of(guard.library_path()), guard.read(guard.FILE)[0].compiler
    if here != committed:
        pytest.skip(f"the library is built by {here}, the counts are those of {committed}")
    assert guard.main([]) == 0, capsys.readouterr().out
    assert " 0 worse or unknown." in capsys.readouterr().out
