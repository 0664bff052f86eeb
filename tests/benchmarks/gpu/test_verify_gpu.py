"""`verify_gpu`: its sections, what it keeps between calls, and what it makes of processes that end badly."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cases, suites
from benchmarks.gpu import pytest_runs, sections, verify_gpu
from benchmarks.measure import records
from benchmarks.measure.records import ROOT
from benchmarks.measure.rows import Row


def test_without_cuda_it_ends_with_2_and_one_sentence(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu" / "verify_gpu.py"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and "CUDA" in done.stderr
    assert not (tmp_path / "out").exists()


def verified(folder: Path, *options: str) -> dict[str, Any]:
    """What `verify_gpu --cpu` wrote, having ended well."""
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu" / "verify_gpu.py"), "--cpu", *options]
    done = subprocess.run(
        [*command, "--out", str(folder), "--log", str(folder / "log")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = folder.glob("verify_cpu-*.json")
    return json.loads(file.read_text())


@pytest.mark.slow
def test_a_section_runs_on_the_cpu_and_rows_are_put_where_the_tables_look(tmp_path):
    content = verified(tmp_path, "--only", "floors")
    assert {name: section["status"] for name, section in content["sections"].items()} == {"floors": "passed"}
    (file,) = tmp_path.glob("floors-*.jsonl")
    assert {row.task for row in records.read(file)} == {"quick-floors"}
    assert file == records.result_path(tmp_path, "floors", content["machine"])


def test_every_suite_has_its_section():
    scale = {name for name in verify_gpu.SECTIONS if name.startswith("scale_")}
    # The analyses run on the CPU, and recipes compare pictures, which do not depend on the device.
    assert set(suites.NAMES) - {"scale", "analyses", "recipes"} < set(verify_gpu.SECTIONS)
    assert scale == {f"scale_{axis}" for axis in cases.AXES}


@pytest.mark.slow
def test_every_section_runs_on_the_cpu(tmp_path):
    content = verified(tmp_path, "--budget", "1200")
    assert {file.name.partition("-")[0] for file in tmp_path.glob("*.jsonl")} == set(suites.NAMES) - {
        "analyses",
        "recipes",
    }
    assert list(content["sections"]) == list(verify_gpu.SECTIONS)
    status = {name: section["status"] for name, section in content["sections"].items()}
    assert set(status.values()) == {"passed"}
    assert content["sections"]["conformance"]["passed"] > 5


@pytest.fixture
def asked(tmp_path, monkeypatch):
    here = {"machine": "some-gpu", "missing": [], "memory_bytes": 10**9}
    monkeypatch.setattr(verify_gpu, "conditions", lambda v: {**here, "device": v.device})
    return ["--cpu", "--out", str(tmp_path), "--log", str(tmp_path / "log")], tmp_path / "verify_cpu-some-gpu.json"


def test_a_failed_section_is_recorded_and_the_next_one_runs(asked, monkeypatch, capsys):
    arguments, file = asked
    made = {"one": lambda v: sections.failed("it broke"), "two": lambda v: {"status": "passed"}}
    monkeypatch.setattr(verify_gpu, "SECTIONS", made)
    assert verify_gpu.main(arguments) == 1
    first, second = json.loads(file.read_text())["sections"].values()
    assert (first["status"], first["detail"], second["status"]) == ("failed", "it broke", "passed")
    assert "it broke" in capsys.readouterr().out


def test_what_was_found_is_kept_if_a_later_section_dies(asked, monkeypatch):
    arguments, file = asked

    def killed(v):
        raise KeyboardInterrupt

    monkeypatch.setattr(verify_gpu, "SECTIONS", {"one": lambda v: {"status": "passed"}, "two": killed})
    with pytest.raises(KeyboardInterrupt):
        verify_gpu.main(arguments)
    assert list(json.loads(file.read_text())["sections"]) == ["one"]


def test_what_there_was_no_time_for_is_done_by_the_next_call_alone(asked, monkeypatch, capsys):
    arguments, file = asked
    calls: list[str] = []

    def section(name, ends=True):
        def run(v):
            calls.append(name)
            if ends or len(calls) > 2:
                return sections.failed("it broke") if name == "one" else {"status": "passed"}
            raise sections.TookTooLong("took more than 3 s", early=True)

        return run

    monkeypatch.setattr(verify_gpu, "SECTIONS", {"one": section("one"), "two": section("two", ends=False)})
    assert verify_gpu.main([*arguments, "--budget", "1"]) == 3 and calls == []
    assert json.loads(file.read_text())["sections"]["one"]["status"] == "unfinished"
    assert verify_gpu.main(arguments) == 3 and "goes on where it stopped" in capsys.readouterr().out
    assert verify_gpu.main(arguments) == 1 and calls == ["one", "two", "two"]  # what failed would fail again
    assert verify_gpu.main([*arguments, "--only", "two"]) == 0 and calls[3:] == ["two"]
    assert list(json.loads(file.read_text())["sections"]) == ["one", "two"]
    assert verify_gpu.main([*arguments, "--fresh"]) == 1 and calls[4:] == ["one", "two"]
    here = verify_gpu.conditions
    for change in ({"source": "changed"}, {"checks": "changed"}, {"memory_bytes": 2 * 10**9}):
        monkeypatch.setattr(verify_gpu, "conditions", lambda v, change=change: {**here(v), **change})
        assert verify_gpu.main(arguments) == 1 and calls[6:] == ["one", "two"]
        del calls[6:]
    monkeypatch.setattr(
        verify_gpu, "conditions", lambda v: {**here(v), "memory_bytes": 2_050_000_000, "commit": "other"}
    )
    assert verify_gpu.main(arguments) == 1 and calls[6:] == []  # the same machine, and nothing that decides


PROGRESS = """3 tasks, about 0:30 on two cores
[1/3, 0:00, about 0:30 left] scale small: resumed, 2026-01-01
[2/3, 0:00, about 0:20 left] scale middle ...
  middle, mmphate-gpu: refused: too large
[3/3, 0:09, about 0:10 left] scale large ...
"""


def test_a_suite_that_was_ended_says_where_the_next_call_goes_on(tmp_path, monkeypatch):
    assert verify_gpu.stopped("") == sections.unfinished("it had not begun")
    early = False

    def call(v, name, *_):
        (v.log / f"{name}.err").write_text(PROGRESS)
        raise sections.TookTooLong("took more than 500 s", early)

    monkeypatch.setattr(verify_gpu, "call", call)
    v = state(tmp_path)
    v.sections["scale_units"] = first = verify_gpu.SECTIONS["scale_units"](v)
    assert (first["status"], first["task"]) == ("unfinished", "scale large") and "2 of 3 tasks" in first["detail"]
    # The same task again, with all the time that there is: no other call would bring it to its end.
    again = verify_gpu.SECTIONS["scale_units"](v)
    assert again["status"] == "failed" and "scale large takes longer" in again["detail"]
    early = True
    assert verify_gpu.SECTIONS["scale_units"](v) == first


def test_a_suite_section_tells_which_tasks_failed(tmp_path, monkeypatch):
    def call(v, name, command, most):
        assert {"ops", "--device=cpu", f"--out={tmp_path}", "--quick"} < set(command)
        failed = Row(suite="ops", case="exp", task="quick-all", skipped="it broke", failed=True)
        old = replace(failed, task="no task of today")
        lacking = Row(suite="ops", case="product", task="quick-all", by="CuPy", skipped="not installed: cupy")
        records.replace(records.result_path(tmp_path, "ops", "some-gpu"), [*[failed] * broke, old, lacking])
        return subprocess.CompletedProcess(command, code, "a table", "")

    monkeypatch.setattr(verify_gpu, "call", call)
    v = state(tmp_path, out=tmp_path, conditions={"missing": [], "machine": "some-gpu"})
    broke, code = False, 0
    result = verify_gpu.SECTIONS["ops"](v)
    assert (result["status"], result["missing"]) == ("passed", ["product, CuPy: not installed: cupy"])
    code = 1  # a goal is missed, which is no fault
    monkeypatch.setattr(verify_gpu.suites, "missed_goals", lambda rows: ["a goal"])
    result = verify_gpu.SECTIONS["ops"](v)
    assert (result["status"], result["goals_missed"], result["failures"]) == ("passed", ["a goal"], {})
    broke = True
    result = verify_gpu.SECTIONS["ops"](v)
    assert result["status"] == "failed" and result["failures"] == {"quick-all": "exp, mmphate-gpu: it broke"}
    code = 2  # another run writes into the folder
    assert verify_gpu.SECTIONS["ops"](v)["status"] == "unfinished"


def state(tmp_path: Path, **changes: Any) -> sections.Verification:
    v = sections.Verification("cpu", tmp_path, 60)
    v.conditions = {"missing": []}
    return dataclasses.replace(v, **changes)


def test_a_process_that_takes_too_long_is_ended(tmp_path):
    code = "import time; print('started', flush=True); time.sleep(60)"
    for budget, early in ((60, False), (1, True)):
        with pytest.raises(sections.TookTooLong, match=r"more than [12] s") as ended:
            sections.call(state(tmp_path, budget=budget), "slow", [sys.executable, "-c", code], 1.5)
        assert ended.value.early == early and (early or "started" in str(ended.value))


SKIPS = "import pytest\ndef test_other(): pytest.skip('no device')"


@pytest.mark.parametrize(
    ("body", "status", "counts"),
    [
        ("def test_good(): pass", "passed", (1, 0, 0)),
        (f"{SKIPS}\ndef test_good(): pass\ndef test_bad(): assert 0", "failed", (1, 1, 1)),
        (SKIPS, "failed", (0, 0, 1)),  # nothing was tested
    ],
)
def test_pytest_runs_are_counted(tmp_path, body, status, counts):
    result = pytest_run(tmp_path, body)
    assert result["status"] == status
    assert (result["passed"], result["failed"], result["skipped"]) == counts


def pytest_run(folder: Path, body: str, most: float = 60, **changes: Any) -> dict[str, Any]:
    (folder / "test_some.py").write_text(body)
    chosen = [f"--rootdir={folder}", "-c", os.devnull, str(folder)]
    return pytest_runs.pytest_section(state(folder, **changes), "some", chosen, most)


@pytest.mark.slow
def test_a_pytest_run_that_is_cut_off_gives_the_counts_of_its_log(tmp_path):
    body = """
import time, pytest
def test_good(): pass
def test_bad(): assert 0
@pytest.mark.parametrize("name", ["walk, four axes"])
def test_other(name): pytest.skip("no device")
def test_hangs(): time.sleep(60)
"""
    result = pytest_run(tmp_path, body, 6)
    assert (result["status"], result["passed"], result["failed"], result["skipped"]) == ("failed", 1, 1, 1)
    assert result["failures"][0].endswith("test_some.py::test_bad") and "more than 6 s" in result["detail"]
    result = pytest_run(tmp_path, body, 60, budget=6)
    assert (result["status"], result["passed"]) == ("unfinished", 1)


def test_lines_of_workers_are_counted():
    log = """
[gw0] [ 25%] PASSED tests/test_a.py::test_one[walk, four axes]
tests/test_a.py::test_two
[gw1] [ 50%] FAILED tests/test_a.py::test_two
[gw0] [ 75%] ERROR tests/test_a.py::test_three
[gw1] [100%] SKIPPED tests/test_a.py::test_four
FAILED tests/test_a.py::test_two - AssertionError: PASSED
"""
    result = pytest_runs.log_counts(log)
    assert (result["passed"], result["failed"], result["skipped"]) == (1, 2, 1)
    assert result["failures"] == ["tests/test_a.py::test_two", "tests/test_a.py::test_three"]


def test_tests_run_in_parallel_with_a_limit_each_where_the_plugins_are_there(monkeypatch):
    here = {"xdist", "pytest_timeout"}
    monkeypatch.setattr(pytest_runs.importlib.util, "find_spec", lambda name: name in here or None)
    assert any(option.startswith("-n") for option in pytest_runs.pytest_options(8))
    assert {"-v", "--timeout=60"} < set(pytest_runs.pytest_options(0))
    assert not any(option.startswith("-n") for option in pytest_runs.pytest_options(0))  # under a sanitizer
    here.clear()
    assert pytest_runs.pytest_options(8) == ["-v", "-rfE", "--tb=short", "-p", "no:cacheprovider", "-p", "no:benchmark"]


def test_without_pytest_the_tests_count_as_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(pytest_runs.importlib.util, "find_spec", lambda name: None)
    assert "pytest is not installed" in verify_gpu.tests(state(tmp_path))["detail"]


def test_the_pipeline_of_a_call_is_a_list_of_cases_that_fit(tmp_path, monkeypatch):
    asked = []

    def call(v, name, command, most):
        asked.append([part for part in command if part.startswith(("--case", "--storage"))])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(verify_gpu, "call", call)
    v = state(tmp_path, device="cuda", out=tmp_path, conditions={"missing": [], "machine": "some-gpu"})
    for name in ("pipeline", "pipeline_tiles"):
        assert verify_gpu.SECTIONS[name](v)["status"] == "passed"
    assert asked[0] == [f"--case={name}" for name in verify_gpu.PIPELINE] and asked[1][-1] == "--storage=tiles"
    assert {*verify_gpu.PIPELINE, *verify_gpu.TILES} < {*cases.CASES}
    assert not any(cases.CASES[name].cuda_only for name in verify_gpu.PIPELINE)


def test_what_was_found_is_packed_and_another_machine_goes_on_from_it(asked, tmp_path, monkeypatch):
    arguments, file = asked
    made = {"one": lambda v: {"status": "passed"}, "two": lambda v: {"status": "passed"}}
    monkeypatch.setattr(verify_gpu, "SECTIONS", made)
    pack = tmp_path / "away" / "found.tgz"
    assert verify_gpu.main([*arguments, "--only", "one", f"--pack={pack}"]) == 0
    file.unlink()
    made["one"] = lambda v: pytest.fail("it has passed before")
    assert verify_gpu.main([*arguments, f"--resume={pack}"]) == 0
    assert list(json.loads(file.read_text())["sections"]) == ["one", "two"]
