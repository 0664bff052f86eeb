"""Compare the instructions of every CPU op and the steps of a small pipeline with those in guard.json.

    python benchmarks/guard/guard.py                                  0: no worse, 1: something is, 2: cannot count here
    python benchmarks/guard/guard.py --accept "why it costs more"     keep the new counts together with the reason

No clock decides. Callgrind counts the instructions of each op on fixed inputs (driver.cpp), with one thread, for every
instruction set that it can run (not AVX-512). Their growth as the inputs double gives exponents.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.measure.conditions import commit
from benchmarks.measure.records import write_text
from benchmarks.measure.tables import plain_table
from benchmarks.measure.tasks import tail

FILE = Path(__file__).with_name("guard.json")
DRIVER = Path(__file__).with_name("driver.cpp")
INSTRUCTION_SETS = ("baseline", "avx2")
UNAVAILABLE = 77  # exit code of the driver: the library or the processor lacks the instruction set
# The same library gives the same count in every run. Another routine of libc for filling and copying memory (SSE2 for
# AVX2) changes counts by up to 0.9 %; up to twice that is taken for no change of the library.
COUNT_TOLERANCE = 0.02
# The sizes of a case span a factor of four. With an exponent larger by this the largest costs 7 % more than before,
# relative to the smallest.
EXPONENT_TOLERANCE = 0.05
# Steps do not depend on the instruction sets of torch and MKL. Without the C++ twins SMACOF takes 60 sweeps, not 59.
WORK_TOLERANCE = 0.02
# Valgrind counts every byte of `rep stosb` and `rep movsb` as an instruction, up to a quarter of a small case. These
# settings make libc choose the same routines on every processor.
TUNABLES = "glibc.cpu.hwcaps=-AVX2,-AVX2_Usable,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM"

WORSE, BETTER, UNKNOWN, SKIPPED = "WORSE", "better", "UNKNOWN", "skipped"
FAILING = (WORSE, UNKNOWN)

Counts = dict[str, dict[str, dict[str, int]]]  # instruction set -> case -> size -> instructions


class CannotCount(RuntimeError):
    """This machine lacks something that counting needs, as the message says."""


@dataclass(frozen=True)
class Measured:
    """The counts of one build of the library."""

    compiler: str  # of the library, with its version; another compiler gives other counts
    counts: Counts
    work: dict[str, int]


@dataclass(frozen=True)
class Finding:
    """A difference from the committed counts."""

    verdict: str
    what: str
    before: float | None = None
    now: float | None = None
    note: str = ""

    def cells(self) -> tuple[str, ...]:
        numbers = (("" if value is None else _number(value)) for value in (self.before, self.now))
        return (self.verdict, self.what, *numbers, self.note)


# ---------------------------------------------------------------- comparing


def compare(committed: Measured, measured: Measured) -> list[Finding]:
    """Everything that is worse, better, known to one side only, or cannot be compared."""
    findings = []
    same_compiler = committed.compiler == measured.compiler
    if not same_compiler:
        note = f"built by {measured.compiler}, committed for {committed.compiler}: exponents and steps only"
        findings.append(Finding(SKIPPED, "instructions", note=note))
    for isa in dict.fromkeys([*committed.counts, *measured.counts]):
        if isa not in measured.counts:
            findings.append(Finding(SKIPPED, f"all ops, {isa}", note="not on this processor, or not in this build"))
            continue
        before, now = committed.counts.get(isa, {}), measured.counts[isa]
        if same_compiler:
            findings += _compare(f"{isa}: ", _flat(before), _flat(now), _share(COUNT_TOLERANCE))
        findings += _compare(f"{isa}: exponent of ", exponents(before), exponents(now), _difference)
    findings += _compare("steps: ", committed.work, measured.work, _share(WORK_TOLERANCE))
    return findings


def exponents(counts: Mapping[str, Mapping[str, int]]) -> dict[str, float]:
    """The exponent of the growth with the size of each case, by least squares on the logarithms."""
    return {
        case: statistics.linear_regression(
            [math.log(int(size)) for size in by_size], [math.log(count) for count in by_size.values()]
        ).slope
        for case, by_size in counts.items()
        if len(by_size) > 1
    }


def _flat(counts: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    return {f"{case}, size {size}": count for case, by_size in counts.items() for size, count in by_size.items()}


def _share(tolerance: float) -> Callable[[float, float], tuple[float, str]]:
    """The relative change in units of ``tolerance``, and as text."""

    def change(before: float, now: float) -> tuple[float, str]:
        share = (now - before) / before
        return share / tolerance, f"{share:+.1%}"

    return change


def _difference(before: float, now: float) -> tuple[float, str]:
    return (now - before) / EXPONENT_TOLERANCE, f"{now - before:+.3f}"


def _compare(
    prefix: str,
    before: Mapping[str, float],
    now: Mapping[str, float],
    change: Callable[[float, float], tuple[float, str]],
) -> Iterator[Finding]:
    """Findings of one group of numbers; ``change`` gives a change in units of its tolerance, and as text."""
    for name in dict.fromkeys([*before, *now]):
        if name not in before or name not in now:
            note = "not in guard.json" if name in now else "no longer counted"
            yield Finding(UNKNOWN, prefix + name, before.get(name), now.get(name), note)
            continue
        by, shown = change(before[name], now[name])
        if abs(by) > 1:
            yield Finding(WORSE if by > 0 else BETTER, prefix + name, before[name], now[name], shown)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


# ---------------------------------------------------------------- counting


def measure() -> Measured:
    """The counts of the library of this checkout.

    Raises
    ------
    CannotCount
        There is no valgrind, no g++, or no library built from these sources.
    """
    import torch

    torch.set_num_threads(1)
    library = library_path()
    with tempfile.TemporaryDirectory() as folder:
        driver = build_driver(Path(folder))
        counts = {isa: instructions(driver, library, isa) for isa in INSTRUCTION_SETS}
    return Measured(compiler_of(library), {isa: cases for isa, cases in counts.items() if cases}, work_counts())


def library_path() -> Path:
    """The library of the C++ twins, built from the current sources."""
    from mmphate_gpu.ops.launch import native

    if reason := native.why_no_native():
        raise CannotCount(f"no C++ twins: {reason}")
    path = native._library_path()
    assert path is not None
    return path


def compiler_of(library: Path) -> str:
    """The compiler of the library, which leaves its name in the file."""
    names = re.findall(rb"GCC: \([^)\0]*\) [\w.]+|clang version [\w.]+", library.read_bytes())
    return ", ".join(sorted({name.decode() for name in names})) or "an unknown compiler"


def build_driver(folder: Path) -> Path:
    """Compile ``driver.cpp`` into ``folder``. Its optimization does not matter, because its own work is not counted."""
    for program in ("valgrind", "g++"):
        if shutil.which(program) is None:
            raise CannotCount(f"there is no {program} on PATH")
    path = folder / "driver"
    command = ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", str(DRIVER), "-o", str(path), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise CannotCount(f"{DRIVER.name} does not compile: {tail(done.stderr)}")
    return path


def instructions(driver: Path, library: Path, isa: str, prefix: str = "") -> dict[str, dict[str, int]]:
    """Case -> size -> instructions, of the cases that begin with ``prefix``; empty if ``isa`` cannot run."""
    with tempfile.TemporaryDirectory() as folder:
        # The driver switches counting on around each call. LD_BIND_NOW binds symbols before the first call.
        options = ["-q", "--tool=callgrind", "--collect-atstart=no", f"--callgrind-out-file={folder}/counts"]
        command = ["valgrind", *options, str(driver), str(library), isa, prefix]
        environment = os.environ | {"LD_BIND_NOW": "1", "GLIBC_TUNABLES": TUNABLES}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode == UNAVAILABLE:
            return {}
        if done.returncode != 0:
            raise CannotCount(f"the ops of {isa} do not run under valgrind: {tail(done.stderr)}")
        dumps = sorted(Path(folder).glob("counts.*"), key=lambda path: int(path.suffix[1:]))
        return _by_case(path.read_text(errors="replace") for path in dumps)


def _by_case(dumps: Iterator[str]) -> dict[str, dict[str, int]]:
    by_case: dict[str, dict[str, int]] = {}
    for text in dumps:
        label = re.search(r"^desc: Trigger: Client Request: (.*)\|(\d+)$", text, re.MULTILINE)
        total = re.search(r"^summary: (\d+)$", text, re.MULTILINE)
        if label is None or total is None:
            raise CannotCount("callgrind's dumps have another format than that of version 3.19")
        by_case.setdefault(label[1], {})[label[2]] = int(total[1])
    return by_case


# ---------------------------------------------------------------- steps of a small pipeline


def work_counts() -> dict[str, int]:
    """The steps of the stages of a small run, each in its own unit."""
    from mmphate_gpu import datasets, diffusion, landmark_diffusion, metric_mds, multislice_affinity
    from mmphate_gpu.diffusion import entropy
    from mmphate_gpu.diffusion.potential import potential_distances, potential_of_power
    from mmphate_gpu.linalg import kmeans
    from mmphate_gpu.linalg.singular_value_sample import SingularValueSample
    from mmphate_gpu.operators import AffinityOperator

    trace = datasets.bifurcation("hopf_pitchfork", n_epochs=20, n_timesteps=12)
    with ExitStack() as spies:
        products = spies.enter_context(_calls(AffinityOperator, "product"))
        assignments = spies.enter_context(_calls(kmeans, "assign_nearest"))
        affinity = multislice_affinity(trace, storage="sparse", device="cpu")
        landmarks = landmark_diffusion(affinity, n_landmark=400, random_state=0)
    t = diffusion.optimal_t(landmarks.landmark_op)
    power = diffusion.diffuse(landmarks.landmark_op, t, landmarks.degrees)
    mds = metric_mds(potential_distances(potential_of_power(power, 0)), random_state=0)
    # The entropy is sampled for large operators only, so the limit is lowered.
    with _calls(SingularValueSample, "_product") as probes, mock.patch.dict(entropy.SAMPLE_ABOVE, cpu=100):
        sampled_t = diffusion.entropy_with_error(landmarks.landmark_op).possible[1]
    return {
        "entries of the affinity": affinity.to_csr().nnz,
        "products with the affinity": len(products),
        "columns of these products": sum(block.shape[1] for _, block in products),
        "rounds of k-means, seeding included": len(assignments),
        "pairs compared by k-means": sum(points.shape[0] * centers.shape[0] for points, centers in assignments),
        "landmarks": landmarks.landmark_op.shape[0],
        "t": t,
        "products of the sampled entropy": len(probes),
        "columns of those products": sum(block.shape[1] for _, block in probes),
        "t by the sampled entropy": sampled_t,
        "sweeps of SMACOF": mds.n_iter,
    }


@contextmanager
def _calls(owner: Any, name: str) -> Iterator[list[tuple[Any, ...]]]:
    """The arguments of every call of ``owner.name`` within a ``with``."""
    original, seen = getattr(owner, name), []

    def spy(*arguments: Any) -> Any:
        seen.append(arguments)
        return original(*arguments)

    with mock.patch.object(owner, name, spy):
        yield seen


# ---------------------------------------------------------------- the file


def read(path: Path) -> tuple[Measured, list[dict[str, str]]]:
    """The committed counts, and the reasons for them, the latest last."""
    entries = json.loads(path.read_text())
    history = entries.pop("history")
    return Measured(**entries), history


def accept(path: Path, measured: Measured, reason: str) -> None:
    """Write ``measured`` as the new counts to compare with, with ``reason``, the date and the current commit.

    Counts of instruction sets that this machine lacks stay if they are of the same compiler.
    """
    committed, history = read(path) if path.exists() else (measured, [])
    kept = committed.counts if committed.compiler == measured.compiler else {}
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    entry = {"date": today, "commit": commit(), "reason": reason}
    content = asdict(measured) | {"counts": kept | measured.counts, "history": [*history, entry]}
    write_text(path, json.dumps(content, indent=1) + "\n")


# ---------------------------------------------------------------- the command


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="guard", description=__doc__.splitlines()[0])
    parser.add_argument("--accept", metavar="REASON", help="keep the new counts; the reason is kept with them")
    options = parser.parse_args(argv)
    if options.accept is not None and not options.accept.strip():
        parser.error("--accept needs a reason; accepted: a sentence")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """0: no worse, or accepted. 1: worse, or known to one side only. 2: cannot count here, or bad usage."""
    options = parse(argv)
    try:
        measured = measure()
    except CannotCount as error:
        print(f"guard: nothing was compared: {error}", file=sys.stderr)
        return 2
    if options.accept is not None:
        accept(FILE, measured, options.accept)
        print(f"written: {FILE}")
        return 0
    return report(compare(read(FILE)[0], measured), measured)


def report(findings: Sequence[Finding], measured: Measured) -> int:
    """Print what differs and how much was compared. Returns the exit code."""
    if findings:
        print(plain_table(("", "what", "committed", "now", "change"), [finding.cells() for finding in findings]))
    failing = [finding for finding in findings if finding.verdict in FAILING]
    n_cases, isas = sum(len(cases) for cases in measured.counts.values()), ", ".join(measured.counts)
    print(f"{n_cases} cases of {isas} and {len(measured.work)} steps: {len(failing)} worse or unknown.")
    if failing:
        print('If this is intended: python benchmarks/guard/guard.py --accept "the reason"; commit guard.json.')
    return 1 if failing else 0


if __name__ == "__main__":
    sys.exit(main())
