"""The machine instructions of one iteration of a loop in a CUDA kernel, on its usual path.

They are read from the output of ``cuobjdump --dump-sass``. The path skips all code that a branch can skip, because code
that is rarely needed lies behind branches. It does not skip the instructions that are named as the work of the loop.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

_LINE = re.compile(
    r"^\s*/\*(?P<at>[0-9a-f]{4,})\*/\s+(?:@(?P<guard>!?U?P\w+)\s+)?(?P<code>[A-Z][\w.]*)(?P<rest>[^;]*);", re.M
)
_TARGET = re.compile(r"0x([0-9a-f]+)\s*$")
_NONE: Counter[str] = Counter()


@dataclass(frozen=True)
class Instruction:
    at: int
    code: str  # FFMA.FTZ
    guarded: bool
    target: int | None  # address, of a branch
    barrier: str  # of BSSY and BSYNC

    @property
    def name(self) -> str:
        """The name without modifiers, such as FFMA; MUFU keeps its function, such as MUFU.RSQ."""
        parts = self.code.split(".")
        return ".".join(parts[: 2 if parts[0] == "MUFU" else 1])


def instructions(text: str) -> list[Instruction]:
    """The instructions of a kernel in the order of their addresses."""
    listed = []
    for match in _LINE.finditer(text):
        target = _TARGET.search(match["rest"].strip())
        barrier = re.search(r"\bB\d+\b", match["rest"]) if match["code"].startswith(("BSSY", "BSYNC")) else None
        listed.append(
            Instruction(
                int(match["at"], 16),
                match["code"],
                match["guard"] is not None and match["guard"] not in ("PT", "UPT"),
                int(target[1], 16) if target else None,
                barrier[0] if barrier else "",
            )
        )
    return listed


@dataclass
class Graph:
    """Blocks of instructions without a branch, by the address of the first, and the blocks that follow each."""

    blocks: dict[int, list[Instruction]] = field(default_factory=dict)
    after: dict[int, list[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, listed: list[Instruction]) -> Graph:
        leaves = {"BRA", "EXIT", "RET", "BRX", "JMP"}
        jumps = [i.target for i in listed if i.name in ("BRA", "BSSY") and i.target is not None]
        behind = [later.at for i, later in zip(listed, listed[1:], strict=False) if i.name in leaves]
        starts = {listed[0].at, *jumps, *behind}
        graph = cls()
        for instruction in listed:
            if instruction.at in starts:
                block = graph.blocks.setdefault(instruction.at, [])
            block.append(instruction)
        order = sorted(graph.blocks)
        for start, following in zip(order, [*order[1:], None], strict=True):
            last = graph.blocks[start][-1]
            jumps = [last.target] if last.name == "BRA" and last.target in graph.blocks else []
            falls = following is not None and (last.name not in leaves or last.guarded or ".DIV" in last.code)
            graph.after[start] = [*([following] if falls else []), *jumps]
        return graph


@dataclass(frozen=True)
class Loop:
    """A loop of a graph: the address where it begins, and the blocks in it."""

    head: int
    blocks: frozenset[int]


def loops(graph: Graph) -> list[Loop]:
    """The natural loops, ordered by their number of blocks."""
    entry = min(graph.blocks)
    before: dict[int, list[int]] = {start: [] for start in graph.blocks}
    reached, order = {entry}, [entry]
    for start in order:
        for later in graph.after[start]:
            before[later].append(start)
            if later not in reached:
                reached.add(later)
                order.append(later)
    over = {start: set(reached) for start in reached}
    over[entry] = {entry}
    changed = True
    while changed:
        changed = False
        for start in order[1:]:
            new = {start} | set.intersection(*(over[start_of] for start_of in before[start] if start_of in reached))
            changed |= new != over[start]
            over[start] = new
    bodies: dict[int, set[int]] = {}
    for start in order:
        for head in set(graph.after[start]) & over[start]:
            body, open_ends = bodies.setdefault(head, {head}), [start]
            while open_ends:
                start_of = open_ends.pop()
                if start_of not in body:
                    body.add(start_of)
                    open_ends += [earlier for earlier in before[start_of] if earlier in reached]
    return sorted((Loop(head, frozenset(body)) for head, body in bodies.items()), key=lambda loop: len(loop.blocks))


Way = tuple[int, Counter[str]]  # the number of instructions, and the number of each name


def path(
    graph: Graph, loop: Loop, inner: Mapping[int, Counter[str]], work: Collection[str] = (), need: int = 0
) -> Counter[str]:
    """The instructions of one iteration, counted by name, on the shortest path with enough work.

    Enough are ``need`` instructions of the names in ``work``, or as many as any path has. A loop inside this one counts
    as one block. ``inner`` has the instructions of all its iterations by its head; a loop that is not in it has none.
    """
    within = [nested for nested in loops(graph) if nested.blocks < loop.blocks]
    outermost = [nested for nested in within if not any(nested.blocks < other.blocks for other in within)]
    head_of = {start: nested.head for nested in outermost for start in nested.blocks}
    members = {nested.head: nested.blocks for nested in outermost}
    best: dict[int, dict[int, Way]] = {}

    def rest(start: int) -> dict[int, Way]:
        """The shortest way from this block to the end of the iteration, by the amount of work on it."""
        if start in best:
            return best[start]
        blocks = members.get(start, frozenset([start]))
        later = {following for block in blocks for following in graph.after[block]}
        ways = [{0: (0, _NONE)}] if loop.head in later else []
        ways += [rest(head_of.get(block, block)) for block in (later - blocks) & loop.blocks - {loop.head}]
        here = inner.get(start, _NONE) if start in members else Counter(i.name for i in graph.blocks[start])
        done = sum(number for name, number in here.items() if name in work)
        best[start] = {}
        for way in ways:
            for more, (size, counts) in way.items():
                total, fewest = min(need, done + more), size + sum(here.values())
                if total not in best[start] or fewest < best[start][total][0]:
                    best[start][total] = (fewest, counts + here)
        return best[start]

    whole = rest(loop.head)
    return whole[max(whole)][1]
