"""Time, peak memory and accuracy of named cases, in one row each.

python benchmarks/harness.py --quick
python benchmarks/harness.py --case suite-hopf-sparse --device cuda
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the checkout is what is measured, whether or not it is installed

from benchmarks.cases import CASES, QUICK  # noqa: E402
from benchmarks.rows import HEAD, RESULTS, Row, plain_table, result_path, total_cells, totals, write_rows  # noqa: E402

STORAGES = ("auto", "sparse", "tiles", "lazy")


class CaseFailed(RuntimeError):
    """A case that gave no rows; the message is the last of what it wrote."""


class CaseRefused(CaseFailed):
    """A case that the library refused: most often one that does not fit in memory."""


def run_case(
    name: str,
    *,
    device: str = "auto",
    storage: str | None = None,
    warmup: int | None = None,
    repeats: int | None = None,
    timeout: float | None = None,
) -> list[Row]:
    """Rows of the case ``name``, run in a process of its own.

    Raises
    ------
    CaseFailed
        The process failed, or took more than ``timeout`` seconds.
    """
    given = {"device": device, "storage": storage, "warmup": warmup, "repeats": repeats}
    options = [f"--{key}={value}" for key, value in given.items() if value is not None]
    command = [sys.executable, str(ROOT / "benchmarks" / "worker.py"), name, *options]
    try:
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise CaseFailed(f"took more than {error.timeout:.0f} s") from error
    if done.returncode != 0:
        kind = CaseRefused if done.returncode == 2 else CaseFailed
        raise kind(tail(done.stderr) or f"ended with exit code {done.returncode}")
    return [Row(**row) for row in json.loads(done.stdout.splitlines()[-1])]


def environment() -> dict[str, str]:
    """This process's environment, with the checkout first on the path."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path)}


def tail(text: str | bytes | None, lines: int = 15) -> str:
    """The last lines, where an error says what it is."""
    plain = text.decode(errors="replace") if isinstance(text, bytes) else text or ""
    return "\n".join(plain.strip().splitlines()[-lines:])


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="harness", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the small cases, two minutes on two cores")
    parser.add_argument("--case", action="append", default=[], metavar="NAME", help="a case by name; may be repeated")
    parser.add_argument("--list", action="store_true", help="name the cases and stop")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: %(default)s)")
    parser.add_argument("--storage", choices=STORAGES, help="instead of what the case says")
    parser.add_argument("--repeats", type=int, help="runs whose median counts")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="folder of the JSON files")
    options = parser.parse_args(argv)
    unknown = [name for name in options.case if name not in CASES]
    if unknown:
        parser.error(f"--case {unknown[0]} is unknown; accepted: {', '.join(CASES)}")
    if options.repeats is not None and options.repeats < 1:
        parser.error(f"--repeats {options.repeats} must be at least 1")
    if not (options.quick or options.case or options.list):
        parser.error("nothing to run; give --quick, --case NAME or --list")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for; 0 if every case gave its rows, 1 if one failed, 2 for bad usage."""
    options = parse(argv)
    if options.list:
        print(plain_table(("case", "what it is"), [(case.name, case.what) for case in CASES.values()]))
        return 0
    batches = {"quick": QUICK} if options.quick else {}
    batches |= {name: (name,) for name in options.case}
    rows, failed = [], []
    for file, names in batches.items():
        done = measure(names, failed, device=options.device, storage=options.storage, repeats=options.repeats)
        rows += done
        if done:
            stem = file if options.storage is None else f"{file}-{options.storage}"
            print(f"written: {save(options.out, stem, done)}", file=sys.stderr)
    if rows:
        print(plain_table(HEAD, [total_cells(row) for row in totals(rows)]))
        print("In brackets what the oracle has: the dense float64 reference, or the published implementation.")
    return 1 if failed else 0


def measure(names: Sequence[str], failed: list[str], **options: object) -> list[Row]:
    """Rows of all cases that work; the names of the others are added to ``failed``, their errors shown."""
    rows: list[Row] = []
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            rows += run_case(name, **options)  # type: ignore[arg-type]
        except CaseFailed as error:
            failed.append(name)
            print(f"{name} FAILED: {error}", file=sys.stderr)
    return rows


def save(folder: Path, name: str, rows: Sequence[Row]) -> Path:
    path = result_path(folder, name, rows[0].machine)
    write_rows(path, rows)
    return path


if __name__ == "__main__":
    sys.exit(main())
