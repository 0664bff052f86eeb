"""The first ten minutes on a GPU, in one file: what works, how fast it is, and the numbers that decide thresholds.

    python benchmarks/gpu/first_light.py --out /tmp/first-light --pack first-light.tgz

Every step is a process with a time limit. It gives a line of JSON for each part, which is written into
``first_light.jsonl`` of the output at once. The pack is written again after each line, so that a call that is killed
leaves everything up to that moment. Steps that no longer fit into ``--budget`` are named. Nothing is written outside
``--out`` and ``--pack``, not even the caches of compilers. The network is not needed. The script names what the machine
lacks: a package, a tool, or the device.

A call ends with 0 if nothing failed, 1 if a step failed, 2 without a CUDA device, 3 if time ran out.
``--cpu`` runs the steps on the CPU with small inputs. ``--pretend`` runs them with small inputs on a pretended GPU.
``--resume PACK`` leaves out the steps that have passed.
``--only NAME ...`` runs only these steps. ``--expect`` makes, on a CPU, the numbers with which whole runs are compared.
`verify_gpu` is the second call.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.dont_write_bytecode = True  # before the imports: nothing is written outside of the output

from benchmarks.gpu.sections import (  # noqa: E402
    CACHE,
    UNFINISHED,
    Section,
    Verification,
    add_arguments,
    begin,
    print_list,
    print_table,
    run_section,
    skipped,
    unpack,
    write_pack,
)
from benchmarks.gpu.steps import STEPS  # noqa: E402
from benchmarks.measure.conditions import SOURCES, commit, hash_of  # noqa: E402
from benchmarks.measure.tasks import through_its_end  # noqa: E402

BUDGET = 540  # seconds: ten minutes less the start of a machine and the transfer of the pack
LINES = "first_light.jsonl"
DECIDING = (*SOURCES, "benchmarks/gpu/*.py")  # the files that decide whether a step passes
WIDTH = 600  # characters of a line that is shown
# Threads that wait must not spin: small products would take many times as long on a shared CPU.
QUIET = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_NUM_THREADS": "1"}
LEAST_SHARE = 0.25  # a step begins only if this share of its limit is left


def write_line(v: Verification, **line: Any) -> None:
    """Write a line into the output, and then everything into the pack. Only the last line can be incomplete."""
    with (v.out / LINES).open("a") as file:
        file.write(json.dumps(line, default=str) + "\n")
        file.flush()
        os.fsync(file.fileno())
    write_pack(v)


def lines_of(out: Path) -> list[dict[str, Any]]:
    """The lines of the output, without a last line that is incomplete."""
    path, lines = out / LINES, []
    for line in path.read_text().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            lines.append(json.loads(line))
    return lines


def passed_before(out: Path, place: str) -> set[str]:
    """The steps that have passed in the same `place` with the same sources."""
    before, outcomes, now = None, {}, (hash_of(DECIDING), place)
    for line in lines_of(out):
        before = (line["source"], line["device"]) if "source" in line else before
        if "status" in line:
            outcomes[line["step"]] = line["status"] == "passed" and before == now
    return {step for step, passed in outcomes.items() if passed}


def section_of(name: str) -> Section:
    """The step as a section. It does not begin if too little time is left."""
    step = STEPS[name]

    def section(v: Verification) -> dict[str, Any]:
        if v.left < LEAST_SHARE * step.limit:
            return {"status": UNFINISHED, "detail": f"skipped: {v.left:.0f} s are left, it may take {step.limit:.0f}"}
        missing = step.missing(v)
        if missing:
            return skipped(missing)
        return step.work(v, name, step.limit, lambda line: write_line(v, step=name, **line))

    return section


def caches(out: Path) -> dict[str, str]:
    """Environment variables that put the caches of compilers and other files into the output."""
    places = {
        "CUPY_CACHE_DIR": "cupy",
        "TRITON_CACHE_DIR": "triton",
        "CUDA_CACHE_PATH": "cuda",
        "KEOPS_CACHE_FOLDER": "keops",
        "MPLCONFIGDIR": "matplotlib",
        "XDG_CACHE_HOME": "xdg",
        "HYPOTHESIS_STORAGE_DIRECTORY": "hypothesis",
        "TMPDIR": "tmp",
    }
    cache = out.resolve() / CACHE
    for name in places.values():
        (cache / name).mkdir(parents=True, exist_ok=True)
    return {"PYTHONDONTWRITEBYTECODE": "1", **{variable: str(cache / name) for variable, name in places.items()}}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, STEPS, BUDGET)
    parser.add_argument("--out", type=Path, default=Path("first-light"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--show", type=Path, metavar="PACK", help="print what a pack holds, a line for each part")
    parser.add_argument("--expect", action="store_true", help="make the carried numbers anew, on this machine's CPU")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    if options.list:
        return print_list({name: f"{step.title} (at most {step.limit:.0f} s)" for name, step in STEPS.items()})
    if options.show is not None:
        return show(options.show)
    if options.expect:
        from benchmarks.gpu.make_expected import write_expected

        print(f"written: {write_expected()}")
        return 0
    log = options.out / "log"
    v = begin("first_light", options, log)
    if v is None:
        return 2
    log.mkdir(parents=True, exist_ok=True)
    if options.resume is not None:
        unpack(options.resume, options.out)
    v.environment = {**caches(options.out), **(QUIET if options.cpu else {})}
    before = passed_before(options.out, v.place) if options.resume is not None else set()
    names = options.only or [name for name in STEPS if name not in before]
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    write_line(v, begin=names, source=hash_of(DECIDING), commit=commit(), date=now, device=v.place, budget=v.budget)
    sections = {name: section_of(name) for name in names}
    with through_its_end():
        for name in names:
            write_line(v, step=name, **run_section(v, sections, name))
    return conclude(v, names)


def show(pack: Path) -> int:
    """Print the parts of a pack, a line each: the fault, or as much of the result as fits."""
    with tempfile.TemporaryDirectory() as folder:
        unpack(pack, Path(folder))
        lines = lines_of(Path(folder))
    for line in lines:
        step, part = line.pop("step", ""), line.pop("part", "")
        text = line.get("error") or json.dumps(line)
        print(f"{step:<12}{part}: {'FAULT ' * ('error' in line)}{' '.join(text.split())[:WIDTH]}")
    return 0


def conclude(v: Verification, names: Sequence[str]) -> int:
    """Print the results of the steps and where the files are. Returns the exit code."""
    shutil.rmtree(v.out / CACHE / "tmp", ignore_errors=True)
    print_table(v, names)
    print(f"written: {v.out / LINES}" + ("" if v.pack is None else f", packed: {v.pack}"))
    statuses = {section["status"] for section in v.sections.values()}
    return 3 if UNFINISHED in statuses else int("failed" in statuses)


if __name__ == "__main__":
    sys.exit(main())
