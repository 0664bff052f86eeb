"""The steps of `first_light`: the smoke test, the runs and the tools report made-up faults, with stand-ins."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import expected, runs, sections, smoke, smoke_cases, steps


def state(folder: Path) -> sections.Verification:
    return sections.Verification("cuda", folder, 60, folder)


def test_every_op_of_the_registry_has_a_case_in_the_smoke():
    import mmphate_gpu.estimator  # noqa: F401
    from mmphate_gpu.ops.launch.twins import PORTABLE

    assert set(PORTABLE) <= set(smoke_cases.CASES)
    assert {*smoke_cases.MOST_ERROR, *smoke_cases.MOST_DIFFERENT} <= set(smoke_cases.CASES)


def test_the_smoke_sees_a_wrong_number_and_what_was_never_written():
    wanted = [torch.tensor([1.0, 2.0]), torch.tensor([1, 2])]
    assert smoke.difference(wanted, wanted) == (0.0, "")
    assert smoke.difference([torch.tensor([1.0, 2.5]), wanted[1]], wanted)[0] == 0.25
    assert "1 of 2 numbers differ" in smoke.difference([wanted[0], torch.tensor([1, 3])], wanted)[1]
    assert smoke.difference([wanted[0], torch.tensor([1, 3])], wanted, 0.5)[1] == ""
    assert "finite" in smoke.difference([torch.tensor([1.0, torch.nan]), wanted[1]], wanted)[1]
    assert "not torch.int64" in smoke.difference([wanted[0], wanted[1].int()], wanted)[1]
    with smoke.poisoned():
        floats, other, flags = torch.empty(3), torch.zeros(2).new_empty(2), torch.empty_like(torch.tensor([False]))
        kept = torch.empty(2, dtype=torch.int64)
    assert floats.isnan().all() and other.isnan().all() and flags.all() and (kept == smoke.LARGE_INTEGER).all()
    assert torch.empty.__module__ != smoke.__name__  # as it was


def test_a_fault_of_an_op_is_in_its_line(monkeypatch):
    options = argparse.Namespace(device=torch.device("cpu"), plain=False)
    good = smoke.smoke("radius_counts", 40, options)
    assert "error" not in good and good["same_bits"] and good["warm_us"] > 0
    assert "no case" in smoke.smoke("a_new_op", 40, options)["error"]
    monkeypatch.setitem(smoke_cases.MOST_ERROR, "guttman_transform", -1.0)
    assert "differs by" in smoke.smoke("guttman_transform", 40, options)["error"]


def test_seconds_in_which_spans_overlap_count_once():
    assert runs.busy_seconds([(0, 10**9), (5 * 10**8, 2 * 10**9), (3 * 10**9, 4 * 10**9)]) == 3.0


def test_the_carried_numbers_are_those_that_are_asked_for():
    carried = expected.expected()
    assert set(carried["runs"]) == set(expected.RUNS) and set(carried["pipeline"]) == {"quick", "full"}


def test_numbers_of_other_sources_are_no_failure(monkeypatch):
    line = {"t": 20, "stress": 0.1, "finite": True}
    monkeypatch.setattr(runs, "measured", lambda *_: dict(line))
    carried = {"runs": {"hopf": {"t": 20, "stress": 0.1}}, "same_sources": True}
    monkeypatch.setattr(runs, "expected", lambda: carried)
    cpu = torch.device("cpu")
    assert "error" not in runs.whole_run("hopf", "sparse", cpu)
    line["t"] = 21
    assert runs.whole_run("hopf", "sparse", cpu)["error"] == "t = 21, expected 20"
    carried["same_sources"] = False
    result = runs.whole_run("hopf", "sparse", cpu)
    assert "error" not in result and "t = 21" in result["differs"]


NCU = """
    ----------------------- ----------- ------------
    Metric Name             Metric Unit Metric Value
    ----------------------- ----------- ------------
    Registers Per Thread    register/thread       80
    Waves Per SM                                0.26
    Function Cache Configuration        CachePreferNone
"""


def test_the_numbers_of_an_ncu_report():
    assert steps.ncu_metrics(NCU) == {"Registers Per Thread": "80 register/thread", "Waves Per SM": "0.26"}


TOOL = """#!{python}
import subprocess, sys
report = next(one.partition("=")[2] for one in sys.argv if one.startswith("--log-file="))
tool = next((one.partition("=")[2] for one in sys.argv if one.startswith("--tool=")), "ncu")
open(report, "w").write({said!r} + tool)
print('{{"part": "one"}}')
sys.exit(77 if tool == "racecheck" else 0)
"""


def a_tool(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str) -> sections.Verification:
    """Put a program ``name`` on PATH that writes a report. Returns the state of a call on CUDA."""
    program = folder / name
    program.write_text(TOOL.format(python=sys.executable, said=said))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return state(folder)


def test_sanitizers_and_ncu_give_a_line_each(tmp_path, monkeypatch):
    lines: list[dict[str, Any]] = []
    v = a_tool(tmp_path, monkeypatch, "compute-sanitizer", "========= ERROR SUMMARY: ")
    assert steps.STEPS["sanitizers"].missing(v) == ""
    result = steps.sanitizers(v, "sanitizers", 30, lines.append)
    assert result["status"] == "failed" and list(result["failures"]) == ["racecheck"]
    assert [line["part"] for line in lines] == ["memcheck", "racecheck", "initcheck"] and lines[0]["ops"] == 1
    assert "exit code 77: ========= ERROR SUMMARY: racecheck" in lines[1]["error"]
    v, lines = a_tool(tmp_path, monkeypatch, "ncu", NCU), []
    assert steps.ncu(v, "ncu", 30, lines.append)["status"] == "passed"
    assert all(line["metrics"]["Registers Per Thread"] == "80 register/thread" for line in lines)
    monkeypatch.setenv("PATH", "")
    assert "not on PATH" in steps.STEPS["ncu"].missing(v)


def test_a_tool_that_is_slow_proves_nothing(tmp_path, monkeypatch):
    def slow(*_):
        raise sections.TookTooLong("took more than 9 s", False)

    monkeypatch.setattr(steps, "call", slow)
    monkeypatch.setattr(steps.shutil, "which", lambda name: name)
    result = steps.sanitizers(state(tmp_path), "sanitizers", 30, lambda line: None)
    assert result["status"] == "skipped" and "racecheck: took more than 9 s" in result["missing"]


# ---------------------------------------------------------------- on a pretended GPU


def test_a_pretended_gpu_gets_small_inputs_more_time_and_some_tests(tmp_path, monkeypatch):
    before = dict(os.environ)
    monkeypatch.setattr(os, "environ", dict(before))
    v, commands = state(tmp_path), []
    assert not v.small and v.patience == 1
    sections.pretend(v)
    assert v.small and v.device == "cuda" and v.budget == 60 * v.patience == 600
    added = {name for name in os.environ if os.environ[name] != before.get(name)}
    assert added == {"MMPHATE_PRETEND_GPU", "PYTHONPATH", "TRITON_INTERPRET"}
    assert steps.STEPS["ceilings"].missing(v) == "a pretended GPU has no rates"
    assert steps.STEPS["ncu"].missing(v) == "ncu needs a real GPU" and not steps.STEPS["smoke"].missing(v)

    def call(state: Any, name: str, command: list[str], most: float, *_: Any) -> Any:
        commands.append(command)
        raise sections.TookTooLong("ended", early=True)

    monkeypatch.setattr("benchmarks.gpu.pytest_runs.call", call)
    (tmp_path / "twins.out").write_text("")
    steps.STEPS["twins"].work(v, "twins", 10, lambda line: None)
    assert commands[0][commands[0].index("-k") + 1] == "descent" and "cuda" in commands[0]
