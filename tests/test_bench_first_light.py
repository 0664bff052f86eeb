"""`first_light`: steps that end badly, a call that is killed, what is kept, and every step on the CPU."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.gpu import expected, first_light, parts, runs, sections, smoke, smoke_cases, steps  # noqa: E402

# A step's process in plain Python: what it does with a part is the second word of the part's name.
PROCESS = """
import json, os, sys, time
def say(**line): print(json.dumps(line), flush=True)
skipped = [one.partition("=")[2] for one in sys.argv if one.startswith("--skip=")]
for part in PARTS:
    if part in skipped: continue
    say(begin=part)
    if part.endswith("dies"): os.abort()
    if part.endswith("hangs"): time.sleep(60)
    if part.endswith("prints"): print("garbage {"); print('"a string"')
    if part.endswith("spoils"): say(part=part, error="an illegal address"); sys.exit(3)
    say(part=part, value=len(part))
"""


def process(folder: Path, *names: str) -> list[str]:
    script = folder / "process.py"
    script.write_text(f"PARTS = {names!r}\n{PROCESS}")
    return [str(script)]


def state(folder: Path, budget: float = 60) -> sections.Verification:
    (folder / "log").mkdir(exist_ok=True)
    return sections.Verification("cpu", False, folder / "log", budget, folder, folder / "pack.tgz")


def run_parts(folder: Path, *names: str, most: float = 30, silence: float = 10) -> tuple[dict, list[dict[str, Any]]]:
    told: list[dict[str, Any]] = []
    found = parts.run_parts(state(folder), "step", process(folder, *names), most, silence=silence, tell=told.append)
    return found, told


def test_parts_are_told_one_by_one(tmp_path):
    found, told = run_parts(tmp_path, "one", "two")
    assert (found["status"], found["n_parts"], found["failures"]) == ("passed", 2, {})
    assert [(line["part"], line["value"]) for line in told] == [("one", 3), ("two", 3)]


def test_a_part_that_dies_or_hangs_or_spoils_the_device_does_not_hide_the_others(tmp_path):
    found, told = run_parts(tmp_path, "one", "two dies", "three hangs", "four spoils", "five", silence=1.5)
    assert [line["part"] for line in told] == ["one", "two dies", "three hangs", "four spoils", "five"]
    assert found["status"] == "failed" and list(found["failures"]) == ["two dies", "three hangs", "four spoils"]
    assert "exit code -6" in told[1]["error"] and "said nothing" in told[2]["error"]
    assert told[3]["error"] == "an illegal address"


def test_garbage_is_counted_and_kept_in_the_log(tmp_path):
    found, told = run_parts(tmp_path, "one prints", "two")
    assert found["status"] == "passed" and "2 lines that are no JSON" in found["notes"][0]
    assert len(told) == 2 and "garbage" in (tmp_path / "log" / "step-1.out").read_text()
    (tmp_path / "process.py").write_text("print('only garbage')")
    found = parts.run_parts(state(tmp_path), "step", [str(tmp_path / "process.py")], 30, tell=told.append)
    assert (found["status"], found["detail"]) == ("failed", "it gave no parts")


def test_a_process_that_cannot_begin_is_not_tried_for_ever(tmp_path):
    (tmp_path / "process.py").write_text("raise ImportError('no such library')")
    found = parts.run_parts(state(tmp_path), "step", [str(tmp_path / "process.py")], 30, tell=print)
    assert found["status"] == "failed" and "no such library" in found["detail"]


def test_a_step_that_takes_too_long_keeps_its_parts(tmp_path):
    found, told = run_parts(tmp_path, "one", "two hangs", "three", most=1.5)
    assert found["status"] == "unfinished" and [line["part"] for line in told] == ["one", "two hangs"]


def test_what_a_part_raises_is_in_its_line(capsys):
    def broken():
        raise ValueError("it broke")

    cpu = torch.device("cpu")
    assert parts._run_part("one", broken, cpu) and parts._run_part("two", lambda: {"value": 1}, cpu)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[1]["error"] == "ValueError: it broke" and "def broken" not in lines[1]["error"]
    assert lines[3]["value"] == 1 and "error" not in lines[3]


def test_parts_that_all_lack_something_make_a_step_skipped(tmp_path):
    lines = {"one": {"missing": "no CuPy"}, "two": {"missing": "no ncu"}}
    found = parts.verdict(lines, 0, "")
    assert found["status"] == "skipped" and found["missing"] == ["one: no CuPy", "two: no ncu"]


# ---------------------------------------------------------------- calls


DRIVER = """
import sys
from benchmarks.gpu import first_light
from benchmarks.gpu.parts import run_parts
from benchmarks.gpu.steps import Step
def step(script):
    work = lambda v, name, limit, tell: run_parts(v, name, [script], limit, silence=60, tell=tell)
    return Step("a step", 50, work)
first_light.STEPS = dict(zip(("first", "second", "third"), map(step, sys.argv[1:4])))
sys.exit(first_light.main(sys.argv[4:]))
"""


def call_of(folder: Path, *options: str, pack: bool = True) -> list[str]:
    """A command that runs three steps: one that passes, one that hangs in its second part, one that passes."""
    scripts = []
    for number, names in enumerate((["one"], ["two", "three hangs"], ["four"])):
        own = folder / f"step{number}"
        own.mkdir(exist_ok=True)
        scripts += process(own, *names)
    where = [f"--out={folder / 'out'}", *[f"--pack={folder / 'away' / 'pack.tgz'}"] * pack]
    return [sys.executable, "-c", DRIVER, *scripts, "--cpu", *where, *options]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


def packed(pack: Path) -> list[dict[str, Any]]:
    """The lines in a pack, all of whose files can be read."""
    with tarfile.open(pack) as archive:
        content = {member.name: archive.extractfile(member).read() for member in archive.getmembers()}
    return [json.loads(line) for line in content[first_light.LINES].splitlines()]


def test_a_call_that_is_killed_leaves_a_pack_of_all_before_and_no_process(tmp_path):
    pack = tmp_path / "away" / "pack.tgz"
    running = subprocess.Popen(
        call_of(tmp_path), env=environment(), cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True
    )
    until = time.monotonic() + 60
    while time.monotonic() < until and not (pack.exists() and any(one.get("part") == "two" for one in packed(pack))):
        time.sleep(0.1)
    running.send_signal(signal.SIGKILL)
    running.wait()
    lines = packed(pack)
    assert lines[0]["begin"] == ["first", "second", "third"] and len(lines[0]["source"]) == 12
    assert [line.get("part", line.get("status")) for line in lines[1:]] == ["one", "passed", "two"]
    if sys.platform == "linux":  # the step's process, which the script could not end
        until = time.monotonic() + 10
        while time.monotonic() < until and _runs(str(tmp_path / "step1")):
            time.sleep(0.1)
        assert not _runs(str(tmp_path / "step1"))


def _runs(text: str) -> bool:
    """Whether some process has ``text`` in the first words of its command."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(text.encode() in word for word in words[1:2]):
            return True
    return False


def call_in_process(folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> tuple[int, list[dict[str, Any]]]:
    def step(*names: str) -> steps.Step:
        own = folder / names[0]
        own.mkdir(exist_ok=True)
        command = process(own, *names)

        def work(v, name, limit, tell):
            return parts.run_parts(v, name, command, limit, silence=20, tell=tell)

        return steps.Step("a step", 40, work)

    made = {"first": step("one"), "second": step("two", "three dies"), "third": step("four")}
    monkeypatch.setattr(first_light, "STEPS", made)
    pack = folder / "away" / "pack.tgz"
    code = first_light.main(["--cpu", f"--out={folder / 'out'}", f"--pack={pack}", *options])
    return code, packed(pack)


def statuses(lines: list[dict[str, Any]]) -> dict[str, str]:
    return {line["step"]: line["status"] for line in lines if "status" in line}


def test_steps_alone_and_those_that_have_not_passed(tmp_path, monkeypatch, capsys):
    code, lines = call_in_process(tmp_path, monkeypatch, "--only", "first", "third")
    assert code == 0 and statuses(lines) == {"first": "passed", "third": "passed"}
    pack = tmp_path / "away" / "pack.tgz"
    code, lines = call_in_process(tmp_path, monkeypatch, f"--resume={pack}")
    assert code == 1 and lines[-1]["step"] == "second"
    assert [line["begin"] for line in lines if "begin" in line] == [["first", "third"], ["second"]]
    assert "three dies" in capsys.readouterr().out
    assert first_light.main([f"--show={pack}"]) == 0
    shown = capsys.readouterr().out
    assert 'first       one: {"value": 3}' in shown and "three dies: FAULT ended with exit code -6" in shown
    monkeypatch.setattr(first_light, "hash_of", lambda patterns: "other")
    assert first_light.passed_before(tmp_path / "out") == set()


def test_steps_that_no_longer_fit_are_named(tmp_path, monkeypatch, capsys):
    code, lines = call_in_process(tmp_path, monkeypatch, "--budget", "8")
    assert code == 3 and statuses(lines) == dict.fromkeys(("first", "second", "third"), "unfinished")
    assert all("skipped: " in line["detail"] for line in lines if "status" in line)
    assert capsys.readouterr().out.count("it may take 40") == 3


def test_nothing_is_written_outside_of_the_output_and_the_pack(tmp_path):
    folder, home = tmp_path / "work", tmp_path / "home"
    for made in (folder, home):
        made.mkdir()
    command = [*call_of(folder, "--only", "first", "third"), "--budget=60"]
    before = sorted(path for path in (ROOT / "benchmarks").rglob("*") if "__pycache__" not in path.parts)
    done = subprocess.run(
        command, env=environment() | {"HOME": str(home)}, cwd=home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    after = sorted(path for path in (ROOT / "benchmarks").rglob("*") if "__pycache__" not in path.parts)
    assert (list(home.iterdir()), after) == ([], before)
    assert {path.name for path in folder.iterdir()} == {"step0", "step1", "step2", "out", "away"}
    assert [path.name for path in (folder / "away").iterdir()] == ["pack.tgz"]
    own = first_light.caches(folder / "out")
    assert own.pop("PYTHONDONTWRITEBYTECODE") == "1"
    assert all(path.startswith(str(folder / "out" / "cache")) for path in own.values())


def test_without_cuda_it_ends_with_2(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu" / "first_light.py"), f"--out={tmp_path / 'out'}"]
    env = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and list(tmp_path.iterdir()) == []


def test_the_steps_are_listed(capsys):
    assert first_light.main(["--list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in steps.STEPS)


def test_a_pack_holds_the_end_of_a_log_and_no_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(sections, "MOST_OF_A_LOG", 10)
    v = state(tmp_path)
    (v.log / "step.out").write_text("a long log, and its end")
    (tmp_path / "lines.jsonl").write_text("a line that is longer than ten bytes\n")
    (tmp_path / sections.CACHE).mkdir()
    (tmp_path / sections.CACHE / "kernel").write_text("much")
    sections.write_pack(v)
    sections.write_pack(v)  # the pack itself is not packed
    with tarfile.open(v.pack) as archive:
        assert sorted(archive.getnames()) == ["lines.jsonl", "log/step.out"]
        assert archive.extractfile("log/step.out").read() == b"nd its end"
    sections.unpack(v.pack, tmp_path / "again")
    assert (tmp_path / "again" / "lines.jsonl").read_text().endswith("ten bytes\n")


def test_the_log_of_a_process_that_is_running_is_packed(tmp_path, monkeypatch):
    monkeypatch.setattr(sections, "PACK_SECONDS", 0.1)
    v, seen = state(tmp_path), []

    def watch():
        if v.pack.exists():
            with tarfile.open(v.pack) as archive:
                seen.append(archive.extractfile("log/slow.out").read())

    sections.call(v, "slow", [sys.executable, "-c", "import time; print('one', flush=True); time.sleep(1.5)"], 20)
    assert not seen
    sections.call(
        v, "slow", [sys.executable, "-c", "import time; print('two', flush=True); time.sleep(1.5)"], 20, None, watch
    )
    assert seen[-1] == b"two\n"


def test_a_pack_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    v = state(tmp_path)
    (v.log / "step.out").write_text("before")
    sections.write_pack(v)
    before = v.pack.read_bytes()
    monkeypatch.setattr(sections, "_add", lambda *_: (_ for _ in ()).throw(OSError("the disk is full")))
    with pytest.raises(OSError, match="full"):
        sections.write_pack(v)
    assert v.pack.read_bytes() == before


# ---------------------------------------------------------------- what the steps find


def test_every_op_of_the_registry_has_a_case_in_the_smoke():
    import mmphate_gpu.estimator  # noqa: F401
    from mmphate_gpu.ops.twins import PORTABLE

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
        one, other, flags = torch.empty(3), torch.zeros(2).new_empty(2), torch.empty_like(torch.tensor([False]))
        kept = torch.empty(2, dtype=torch.int64)
    assert one.isnan().all() and other.isnan().all() and flags.all() and (kept == smoke.LARGE_INTEGER).all()
    assert torch.empty.__module__ != smoke.__name__  # as it was


def test_a_fault_of_an_op_is_in_its_line(monkeypatch):
    import argparse

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
    found = runs.whole_run("hopf", "sparse", cpu)
    assert "error" not in found and "t = 21" in found["differs"]


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
    """A program ``name`` on PATH that says so; the state of a call on CUDA."""
    program = folder / name
    program.write_text(TOOL.format(python=sys.executable, said=said))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    v = state(folder)
    v.device = "cuda"
    return v


def test_sanitizers_and_ncu_give_a_line_each(tmp_path, monkeypatch):
    told: list[dict[str, Any]] = []
    v = a_tool(tmp_path, monkeypatch, "compute-sanitizer", "========= ERROR SUMMARY: ")
    assert steps.STEPS["sanitizers"].missing(v) == ""
    found = steps.sanitizers(v, "sanitizers", 30, told.append)
    assert found["status"] == "failed" and list(found["failures"]) == ["racecheck"]
    assert [line["part"] for line in told] == ["memcheck", "racecheck", "initcheck"] and told[0]["ops"] == 1
    assert "exit code 77: ========= ERROR SUMMARY: racecheck" in told[1]["error"]
    v, told = a_tool(tmp_path, monkeypatch, "ncu", NCU), []
    assert steps.ncu(v, "ncu", 30, told.append)["status"] == "passed"
    assert all(line["metrics"]["Registers Per Thread"] == "80 register/thread" for line in told)
    monkeypatch.setenv("PATH", "")
    assert "not on PATH" in steps.STEPS["ncu"].missing(v)


def test_a_tool_that_is_slow_proves_nothing(tmp_path, monkeypatch):
    def slow(*_):
        raise sections.TookTooLong("took more than 9 s", False)

    monkeypatch.setattr(steps, "call", slow)
    monkeypatch.setattr(steps.shutil, "which", lambda name: name)
    found = steps.sanitizers(state(tmp_path), "sanitizers", 30, lambda line: None)
    assert found["status"] == "skipped" and "racecheck: took more than 9 s" in found["missing"]


@pytest.mark.slow
def test_every_step_answers_on_the_cpu(tmp_path):
    """Measured on two cores that five others shared: 3 minutes of the processor."""
    pack = tmp_path / "pack.tgz"
    options = ["--cpu", f"--out={tmp_path / 'out'}", f"--pack={pack}"]
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu" / "first_light.py"), *options]
    done = subprocess.run(command, env=environment(), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = statuses(packed(pack))
    assert {found.pop("sanitizers"), found.pop("ncu")} == {"skipped"} and set(found.values()) == {"passed"}
    assert [*found, "sanitizers", "ncu"] == list(steps.STEPS)
    with tarfile.open(fileobj=io.BytesIO(pack.read_bytes())) as archive:
        assert {"log/twins.xml", "log/smoke-1.out"} < set(archive.getnames())
