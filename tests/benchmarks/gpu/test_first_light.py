"""`first_light`: steps that end badly, a call that is killed, what the pack keeps, and every step on the CPU."""

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

from benchmarks.gpu import first_light, parts, sections, steps
from benchmarks.measure.records import ROOT

# A step's process in plain Python. The second word of a part's name says what the process does in it.
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
    return sections.Verification("cpu", folder / "log", budget, folder, folder / "pack.tgz")


def run_parts(folder: Path, *names: str, most: float = 30, silence: float = 10) -> tuple[dict, list[dict[str, Any]]]:
    lines: list[dict[str, Any]] = []
    result = parts.run_parts(state(folder), "step", process(folder, *names), most, silence=silence, report=lines.append)
    return result, lines


def test_parts_are_told_one_by_one(tmp_path):
    result, lines = run_parts(tmp_path, "one", "two")
    assert (result["status"], result["n_parts"], result["failures"]) == ("passed", 2, {})
    assert [(line["part"], line["value"]) for line in lines] == [("one", 3), ("two", 3)]


def test_a_part_that_dies_or_hangs_or_spoils_the_device_does_not_hide_the_others(tmp_path):
    result, lines = run_parts(tmp_path, "one", "two dies", "three hangs", "four spoils", "five", silence=1.5)
    assert [line["part"] for line in lines] == ["one", "two dies", "three hangs", "four spoils", "five"]
    assert result["status"] == "failed" and list(result["failures"]) == ["two dies", "three hangs", "four spoils"]
    assert "exit code -6" in lines[1]["error"] and "wrote nothing" in lines[2]["error"]
    assert lines[3]["error"] == "an illegal address"


def test_garbage_is_counted_and_kept_in_the_log(tmp_path):
    result, lines = run_parts(tmp_path, "one prints", "two")
    assert result["status"] == "passed" and "2 lines that are no JSON" in result["notes"][0]
    assert len(lines) == 2 and "garbage" in (tmp_path / "log" / "step-1.out").read_text()
    (tmp_path / "process.py").write_text("print('only garbage')")
    result = parts.run_parts(state(tmp_path), "step", [str(tmp_path / "process.py")], 30, report=lines.append)
    assert (result["status"], result["detail"]) == ("failed", "it gave no parts")


def test_a_process_that_cannot_begin_is_not_tried_for_ever(tmp_path):
    (tmp_path / "process.py").write_text("raise ImportError('no such library')")
    result = parts.run_parts(state(tmp_path), "step", [str(tmp_path / "process.py")], 30, report=print)
    assert result["status"] == "failed" and "no such library" in result["detail"]


def test_a_step_that_takes_too_long_keeps_its_parts(tmp_path):
    result, lines = run_parts(tmp_path, "one", "two hangs", "three", most=1.5)
    assert result["status"] == "unfinished" and [line["part"] for line in lines] == ["one", "two hangs"]


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
    result = parts.verdict(lines, 0, "")
    assert result["status"] == "skipped" and result["missing"] == ["one: no CuPy", "two: no ncu"]


# ---------------------------------------------------------------- calls


DRIVER = """
import sys
from benchmarks.gpu import first_light
from benchmarks.gpu.parts import run_parts
from benchmarks.gpu.steps import Step
def step(script):
    work = lambda v, name, limit, report: run_parts(v, name, [script], limit, silence=60, report=report)
    return Step("a step", 50, work)
first_light.STEPS = dict(zip(("first", "second", "third"), map(step, sys.argv[1:4])))
sys.exit(first_light.main(sys.argv[4:]))
"""


def call_of(folder: Path, *options: str, pack: bool = True) -> list[str]:
    """A command that runs three steps: one that passes, one that hangs in its second part, one that passes."""
    scripts = []
    for number, names in enumerate((["one"], ["two", "three hangs"], ["four"])):
        step_folder = folder / f"step{number}"
        step_folder.mkdir(exist_ok=True)
        scripts += process(step_folder, *names)
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
    while time.monotonic() < until and not (pack.exists() and any(line.get("part") == "two" for line in packed(pack))):
        time.sleep(0.1)
    running.send_signal(signal.SIGKILL)
    running.wait()
    lines = packed(pack)
    assert lines[0]["begin"] == ["first", "second", "third"] and len(lines[0]["source"]) == 12
    assert [line.get("part", line.get("status")) for line in lines[1:]] == ["one", "passed", "two"]
    if sys.platform == "linux":  # the script was killed and could not end the step's process
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
        step_folder = folder / names[0]
        step_folder.mkdir(exist_ok=True)
        command = process(step_folder, *names)

        def work(v, name, limit, report):
            return parts.run_parts(v, name, command, limit, silence=20, report=report)

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
    assert first_light.passed_before(tmp_path / "out", "cpu") == {"first", "third"}
    assert first_light.passed_before(tmp_path / "out", "cuda") == set()  # what passes elsewhere proves nothing for it
    monkeypatch.setattr(first_light, "hash_of", lambda patterns: "other")
    assert first_light.passed_before(tmp_path / "out", "cpu") == set()


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
    places = first_light.caches(folder / "out")
    assert places.pop("PYTHONDONTWRITEBYTECODE") == "1"
    assert all(path.startswith(str(folder / "out" / "cache")) for path in places.values())


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


@pytest.mark.parametrize("member", ["../beside", "{}/beside", "within/../../beside", "link"])
def test_a_pack_of_another_hand_writes_nothing_beside_the_folder(member, tmp_path):
    name = member.format(tmp_path)
    with tarfile.open(tmp_path / "pack.tgz", "w:gz") as archive:
        entry = tarfile.TarInfo(name)
        if member == "link":
            entry.type, entry.linkname = tarfile.SYMTYPE, "../beside"
        archive.addfile(entry, io.BytesIO())
    with pytest.raises(ValueError, match="accepted: files that lie in the folder"):
        sections.unpack(tmp_path / "pack.tgz", tmp_path / "out")
    assert not (tmp_path / "beside").exists() and not (tmp_path / "out" / "link").is_symlink()


def test_a_pack_is_unpacked_by_a_python_without_filters(tmp_path, monkeypatch):
    """Python 3.10.0 to 3.10.11."""

    def extractall(archive, path=".", members=None, *, numeric_owner=False):
        raise AssertionError("it would trust the names of the members")

    monkeypatch.setattr(tarfile.TarFile, "extractall", extractall)
    v = state(tmp_path)
    (v.log / "step.out").write_text("a log")
    sections.write_pack(v)
    sections.unpack(v.pack, tmp_path / "again")
    assert (tmp_path / "again" / "log" / "step.out").read_text() == "a log"


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


@pytest.mark.slow
def test_every_step_answers_on_the_cpu(tmp_path):
    """It takes 45 s on two quiet cores (measured), and 47 s of processor time."""
    pack = tmp_path / "pack.tgz"
    options = ["--cpu", f"--out={tmp_path / 'out'}", f"--pack={pack}"]
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu" / "first_light.py"), *options]
    done = subprocess.run(command, env=environment(), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    result = statuses(packed(pack))
    assert {result.pop("sanitizers"), result.pop("ncu")} == {"skipped"} and set(result.values()) == {"passed"}
    assert [*result, "sanitizers", "ncu"] == list(steps.STEPS)
    with tarfile.open(fileobj=io.BytesIO(pack.read_bytes())) as archive:
        assert {"log/twins.xml", "log/smoke-1.out"} < set(archive.getnames())
