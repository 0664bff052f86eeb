"""What the CUDA kernels over pairs read beside the points: tiles in float32, boxes, and an order of the points."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import NamedTuple

import torch

# Points of a tile (csrc/cuda/pair_block.h).
TILE = 64
# The most features of a pass, a number that the compiler knows: a kernel is compiled for each number up to this that
# occurs. More features are split into equal passes, which bounds the number of kernels.
MOST_FEATURES = 27
# Features of TILE points that fit in shared memory (`mmp_resident`), and the most features of a box.
RESIDENT, BOX_FEATURES = 108, 64
# Pairs of larger sets are counted in the order of a kd-tree.
ORDERED_ABOVE = 2 * TILE


def blocks_of(items: int, each: int) -> int:
    return -(-items // each)


class Stack(NamedTuple):
    """The arguments of the kernels over pairs beside the points (B, n, p): MmpStack of csrc/cuda/pair_block.h.

    The t tiles of a set hold its points in order; the last tile may be partly empty. Tiles have passes x part >= p
    features.
    """

    rough: torch.Tensor  # (B, t, passes part, TILE) float32
    boxes: torch.Tensor  # (B, 2, up to BOX_FEATURES, t) float32
    spans: torch.Tensor  # (B,) float64
    order: torch.Tensor | None  # (B, n) int32, the point at a place; None: point i is at place i
    passes: int
    part: int

    @property
    def arguments(self) -> tuple[torch.Tensor, ...]:
        return self.rough, self.boxes, self.spans

    def inputs(self, points: torch.Tensor) -> tuple[torch.Tensor | int | None, ...]:
        """The first arguments of the kernels that take the points in ``order``."""
        return points, *self.arguments, self.order, *points.shape[1:], self.passes

    @property
    def blocks(self) -> int:
        """A block for every tile."""
        return self.rough.shape[0] * self.rough.shape[1]

    @property
    def shared_bytes(self) -> int:
        held = (self.passes + 2) * self.part
        return 4 * TILE * (held if held <= RESIDENT else 4 * self.part)

    def made_by(self, points: torch.Tensor) -> Iterator[tuple[str, tuple[torch.Tensor | int | None, ...]]]:
        """The kernels of pair_screen.cu that fill the stack, in order, and their arguments."""
        _, n, p = points.shape
        yield "pair_span", (points, n, p, self.spans)
        yield "pair_screen", (points, self.order, self.spans, n, p, self.rough.shape[2], self.rough, self.boxes)


class KeptStack:
    """The last stack, for as long as its points live and do not change.

    Another use saves a pass over the points. The stack is half as large as the points, and a single one is enough,
    because uses of the same order follow one another. The object is safe in threads: each method reads ``_last`` once
    or assigns it once.
    """

    def __init__(self) -> None:
        # The points, the key that they must still have, and their stack.
        self._last: tuple[weakref.ref[torch.Tensor], tuple[int, ...], Stack] | None = None

    def get(self, points: torch.Tensor, ordered: bool) -> Stack | None:
        last = self._last
        if last is None or last[0]() is not points or last[1] != self._key_of(points, ordered):
            return None
        return last[2]

    def put(self, points: torch.Tensor, ordered: bool, stack: Stack) -> None:
        if not points.is_inference():  # inference tensors do not record when they change
            self._last = weakref.ref(points, self._forget), self._key_of(points, ordered), stack

    def _forget(self, points: weakref.ref[torch.Tensor]) -> None:
        """Drop the stack of points that died, and perhaps one that another thread puts meanwhile: it is made again."""
        last = self._last
        if last is not None and last[0] is points:
            self._last = None

    @staticmethod
    def _key_of(points: torch.Tensor, ordered: bool) -> tuple[int, ...]:
        stream = torch.cuda.current_stream(points.device).cuda_stream if points.is_cuda else 0
        return points._version, ordered, stream


def new_stack(points: torch.Tensor, order: torch.Tensor | None) -> Stack:  # (B, n, p) float64, (B, n) int32
    """An empty stack for ``points``, which the kernels of `Stack.made_by` fill."""
    (n_sets, n, p), device = points.shape, points.device
    n_tiles, passes = blocks_of(n, TILE), blocks_of(p, MOST_FEATURES)
    part = blocks_of(p, passes)
    width = passes * part
    rough = torch.empty(n_sets, n_tiles, width, TILE, dtype=torch.float32, device=device)
    boxes = torch.empty(n_sets, 2, min(width, BOX_FEATURES), n_tiles, dtype=torch.float32, device=device)
    spans = torch.zeros(n_sets, dtype=torch.float64, device=device)
    return Stack(rough, boxes, spans, order, passes, part)
