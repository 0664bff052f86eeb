"""Machine instructions for a pair in the CUDA kernels, and their registers, without a GPU.

    python benchmarks/guard/gpu_instructions.py --before 92e413d    compiles the sources of that commit and of this
                                                                    checkout, and writes results/instructions.json
    python benchmarks/guard/gpu_instructions.py --write             fills the table of docs/performance.md from it
    python benchmarks/guard/gpu_instructions.py --check             exits 1 if the table differs from it

It needs nvcc, and cuobjdump beside it or in Triton's wheel. It counts the instructions that a warp executes for a tile
of 512 pairs if no pair is near the radius or within it, divided by the pairs of a lane. For the sweep it counts the
instructions of a thread for the pairs of one iteration of its loop. See `sass`.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.guard import sass
from benchmarks.guard.pair_visits import visits
from benchmarks.measure.records import RESULTS, ROOT
from benchmarks.measure.tables import fill, markdown_table
from mmphate_gpu.ops.launch import sources
from mmphate_gpu.ops.pair_stack import MOST_FEATURES, PAIR_THREADS, TILE

RESULT = RESULTS / "instructions.json"
TEXT = ROOT / "docs" / "performance.md"
OPTIONS = ("-std=c++17", "-fmad=false", "-ftz=true", "-arch=sm_90")
TYPES = {"MMP_INDEX": "mmp_i32", "MMP_VALUE": "float"}
FEATURES, COMPONENTS = (6, 10, 50), (2, 3)
# How often each kernel compares the rough square of a pair with a bound, before and after. A path with fewer
# comparisons would leave out pairs.
PAIR_KERNELS = {
    "radius_affinity": {"radius_count": (2, 1), "radius_fill": (2, 1)},
    "kth_neighbor_distance": {"bracket_count": (4, 1), "kth_neighbor_distance": (1, 1)},
}
PAIRS_OF_A_LANE = 16  # of a tile
SQUARE_ROOT = "MUFU.RSQ"
FEATURES_OF_A_COPY = 16  # of a tile: 256 threads copy 16 bytes each
# Features of one pass in a kernel that was compiled without their number.
FEATURES_AT_ONCE = 32


@dataclass(frozen=True)
class Measured:
    """A kernel compiled from the sources of ``version``."""

    kernel: str
    version: str  # "before" or "after"
    size: str  # "p = 10"
    per_pair: float  # instructions of a lane for each pair
    registers: int
    shared_bytes: int  # as known to the compiler
    spilled_bytes: int


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--before", metavar="COMMIT", help="measure its sources and those here")
    action.add_argument("--write", action="store_true", help="fill the table")
    action.add_argument("--check", action="store_true", help="exit 1 if the table differs from the result")
    options = parser.parse_args(argv)
    if options.before:
        RESULT.write_text(json.dumps(_measured(options.before), indent=1) + "\n")
        return 0
    return fill(TEXT, "instructions", table(json.loads(RESULT.read_text())), write=options.write)


def _measured(commit: str) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        past = Path(folder) / "csrc"
        past.mkdir()
        tree = subprocess.run(["git", "archive", commit, "csrc"], cwd=ROOT, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=tree, check=True)
        sources = {"before": past, "after": ROOT / "csrc"}
        rows = [row for version, csrc in sources.items() for row in measure(csrc, version)]
    compiler = subprocess.run(["nvcc", "--version"], check=True, capture_output=True, text=True).stdout
    release = re.search(r"release ([\d.]+)", compiler)
    counted = {"rows": [asdict(row) for row in rows], "visits": [asdict(row) for row in visits()]}
    return {"before": commit, "nvcc": release[1] if release else "", **counted}


def measure(csrc: Path, version: str) -> list[Measured]:
    """The numbers of all kernels in the table, compiled from ``csrc``."""
    rows = []
    for source, kernels in PAIR_KERNELS.items():
        for p in FEATURES:
            machine = compiled(csrc, source, TYPES | {"MMP_P": str(part_of(p))})
            rows += [
                machine.row(kernel, version, f"p = {p}", machine.pairs(kernel, p, compared[version == "after"]))
                for kernel, compared in kernels.items()
            ]
    for c in COMPONENTS:
        machine = compiled(csrc, "guttman_transform", {"MMP_DISTANCE": "float", "MMP_C": str(c), "MMP_ROWS": "4"})
        rows.append(machine.row("guttman_transform", version, f"C = {c}", machine.sweep("guttman_transform")))
    return rows


def part_of(p: int) -> int:
    """Features of one pass, as the launcher passes them to the compiler."""
    return -(-p // -(-p // MOST_FEATURES))


@dataclass(frozen=True)
class Machine:
    """A compiled file: its machine code, and the resources that ptxas reports, by kernel."""

    code: dict[str, str]
    resources: dict[str, tuple[int, int, int]]  # registers, bytes of shared memory, bytes spilled

    def row(self, kernel: str, version: str, size: str, per_pair: float) -> Measured:
        return Measured(kernel, version, size, round(per_pair, 1), *self.resources[kernel])

    def pairs(self, kernel: str, p: int, n_compared: int) -> float:
        """Instructions of a tile divided by the pairs of a lane, in the mean of the loops over tiles."""
        graph = sass.Graph.of(sass.instructions(self.code[kernel]))
        tiles = [_tile(graph, loop, p, n_compared) for loop in _loops_over_parts(graph)]
        return sum(tiles) / len(tiles) / PAIRS_OF_A_LANE

    def sweep(self, kernel: str) -> float:
        """Instructions for a pair in the innermost loop with the most roots, one for each pair."""
        graph = sass.Graph.of(sass.instructions(self.code[kernel]))
        loop = max(sass.loops(graph), key=lambda loop: (_number(graph, loop, SQUARE_ROOT), -len(loop.blocks)))
        turn = sass.path(graph, loop, {}, [SQUARE_ROOT, "MUFU.RCP"], 2 * PAIRS_OF_A_LANE)
        return sum(turn.values()) / turn[SQUARE_ROOT]


def _number(graph: sass.Graph, loop: sass.Loop, name: str) -> int:
    return sum(instruction.name == name for start in loop.blocks for instruction in graph.blocks[start])


def _loops_over_parts(graph: sass.Graph) -> list[sass.Loop]:
    """The loops over the passes of a tile: the smallest loops with products and copies."""
    both = [
        loop
        for loop in sass.loops(graph)
        if _number(graph, loop, "FFMA") >= PAIRS_OF_A_LANE
        and _number(graph, loop, "STS") + _number(graph, loop, "LDGSTS")
    ]
    return [loop for loop in both if not any(other.blocks < loop.blocks for other in both)]


def _tile(graph: sass.Graph, parts: sass.Loop, p: int, n_compared: int) -> float:
    """Instructions of a warp for a tile: for the features, pass by pass, and for the squares."""
    tiles = min((loop for loop in sass.loops(graph) if parts.blocks < loop.blocks), key=lambda loop: len(loop.blocks))
    within = [loop for loop in sass.loops(graph) if loop.blocks < parts.blocks]
    by_feature = [loop for loop in within if _number(graph, loop, "FFMA") >= PAIRS_OF_A_LANE]
    if by_feature:
        n_parts = -(-p // FEATURES_AT_ONCE)
        whole = n_parts * sum(sass.path(graph, parts, {}).values()) + _by_feature(graph, within, p, n_parts > 1)
    else:
        n_parts, part = -(-p // part_of(p)), part_of(p)
        copies = -(-part // FEATURES_OF_A_COPY)
        whole = n_parts * sum(sass.path(graph, parts, {}, ["FFMA", "LDGSTS"], PAIRS_OF_A_LANE * part + copies).values())
    compared = n_compared * PAIRS_OF_A_LANE
    return whole + sum(sass.path(graph, tiles, {}, ["FSETP", "FMNMX"], compared).values())


def _by_feature(graph: sass.Graph, within: list[sass.Loop], p: int, reloads: bool) -> float:
    """Instructions of the loops with an iteration for every feature: those with products, and those that copy."""

    def each(name: str, least: int) -> float:
        """Instructions executed for each instruction ``name`` in the loop that is unrolled most."""
        candidates = [loop for loop in within if _number(graph, loop, name) >= least]
        loop = max(candidates, key=lambda loop: (_number(graph, loop, name), -len(loop.blocks)))
        return sum(sass.path(graph, loop, {}, [name], 999).values()) / _number(graph, loop, name)

    elements = p * TILE / PAIR_THREADS * (2 if reloads else 1)  # of the columns, and of the rows
    return p * PAIRS_OF_A_LANE * each("FFMA", PAIRS_OF_A_LANE) + elements * each("STS", 1)


def compiled(csrc: Path, source: str, defines: dict[str, str]) -> Machine:
    """``csrc``/cuda/``source``.cu compiled by nvcc for sm_90, with the options of the launcher."""
    with tempfile.TemporaryDirectory() as folder:
        text, binary = Path(folder) / "kernel.cu", Path(folder) / "kernel.cubin"
        text.write_text(sources.one_text(csrc / "cuda" / f"{source}.cu"))
        command = ["nvcc", "-cubin", *OPTIONS, *(f"-D{name}={value}" for name, value in defines.items())]
        command += ["-Xptxas", "-v", str(text), "-o", str(binary)]
        messages = subprocess.run(command, check=True, capture_output=True, text=True).stderr
        dump = subprocess.run([cuobjdump(), "--dump-sass", str(binary)], check=True, capture_output=True, text=True)
    code = dict(re.findall(r"Function : (\w+)\n(.*?)(?=\n\s*Function : |\Z)", dump.stdout, re.DOTALL))
    return Machine(code, {name: _resources(part) for name, part in _by_kernel(messages).items()})


def _by_kernel(messages: str) -> dict[str, str]:
    return dict(re.findall(r"Compiling entry function '(\w+)'(.*?)(?=Compiling entry|\Z)", messages, re.DOTALL))


def _resources(messages: str) -> tuple[int, int, int]:
    """Registers, bytes of shared memory, and bytes spilled by the kernel and the functions it calls."""
    registers, shared = re.search(r"Used (\d+) registers", messages), re.search(r"(\d+) bytes smem", messages)
    if registers is None:
        raise ValueError(f"ptxas reports no registers in: {messages}")
    spilled = sum(map(int, re.findall(r"(\d+) bytes spill stores", messages)))
    return int(registers[1]), int(shared[1]) if shared else 0, spilled


def table(result: dict[str, Any]) -> str:
    """A line for each kernel and size: before, after, and how many times fewer."""
    rows = {(row["kernel"], row["size"], row["version"]): Measured(**row) for row in result["rows"]}
    lines = []
    for kernel, size in dict.fromkeys(key[:2] for key in rows):
        old, new = rows[kernel, size, "before"], rows[kernel, size, "after"]
        fewer = f"{old.per_pair / new.per_pair:.2f}"
        uses = [
            f"{measured.registers} / {measured.shared_bytes / 1024:.1f} KiB / {measured.spilled_bytes} B"
            for measured in (old, new)
        ]
        lines.append([f"`{kernel}`", size, f"{old.per_pair:.1f}", f"{new.per_pair:.1f}", fewer, *uses])
    head = ["kernel", "size", "before", "after", "times fewer", "before: registers / shared / spilled", "after"]
    note = f"Instructions a pair and lane, nvcc {result['nvcc']} for sm_90; before: {result['before']}. "
    note += "Shared memory is what the compiler knows of; a launch adds up to 27 KiB for tiles after."
    return f"{markdown_table(head, lines)}\n\n{note}\n\n{_visits_table(result['visits'])}\n"


def _visits_table(rows: list[dict[str, Any]]) -> str:
    head = ["kernel", "scenario", "tiles in reach, points in time", "points in a kd-tree", "visited", "times fewer"]
    lines = []
    for row in rows:
        shares = (row["in_order_of_time"], row["in_reach"], row["visited"])
        cells = ["" if share is None else f"{100 * share:.1f} %" for share in shares]
        lines.append([f"`{row['kernel']}`", row["scenario"], *cells, f"{1 / row['visited']:.1f}"])
    return markdown_table(head, lines)


def cuobjdump() -> str:
    """The program, on PATH or in Triton's wheel."""
    program = shutil.which("cuobjdump")
    if program is None:
        import triton

        program = str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump")
    return program


if __name__ == "__main__":
    sys.exit(main())
