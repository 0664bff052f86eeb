"""What the CUDA kernels over pairs read beside the points: tiles in float32, boxes, and an order of the points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from .launch.cuda import Gpu
from .launch.kernel import Argument, Launch, blocks_of
from .point_tiles import kd_order

# Points of a tile (csrc/cuda/pair_block.h).
TILE = 64
# Threads of a block in the kernels over pairs.
PAIR_THREADS = 256
# The most features of a pass, a number that the compiler knows: a kernel is compiled for each number up to this that
# occurs. More features are split into equal passes, which bounds the number of kernels.
MOST_FEATURES = 27
# Features of TILE points that fit in shared memory (`mmp_resident`), and the most features of a box.
RESIDENT, BOX_FEATURES = 108, 64
# Pairs of larger sets are counted in the order of a kd-tree.
ORDERED_ABOVE = 2 * TILE


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

    def run(self, gpu: Gpu, source: str, kernel: str, blocks: int, arguments: Sequence[Argument], **types: str) -> None:
        """Run a kernel over pairs: each of ``blocks`` pairs some points of a set with all points of it."""
        defines = {"MMP_P": str(self.part)} | types
        launch = Launch(source, kernel, tuple(arguments), blocks, PAIR_THREADS, self.shared_bytes, defines)
        gpu.run(launch, self.rough.device)


def stack_of(gpu: Gpu, points: torch.Tensor, ordered: bool = False) -> Stack:  # (B, n, p) float64, contiguous
    """The stack of ``points``, in the order of a kd-tree if ``ordered``: O(B n p) time, little beside the pairs."""
    stack: Stack | None = gpu.kept.get(points, ordered)
    if stack is None:
        stack = new_stack(points, kd_order(points).to(torch.int32) if ordered else None)
        _, n, p = points.shape
        span = (points, n, p, stack.spans)
        screen = (points, stack.order, stack.spans, n, p, stack.rough.shape[2], stack.rough, stack.boxes)
        for kernel, arguments in (("pair_span", span), ("pair_screen", screen)):
            gpu.run(Launch("pair_screen", kernel, arguments, stack.blocks, PAIR_THREADS), points.device)
        gpu.kept.put(points, ordered, stack)
    return stack


def new_stack(points: torch.Tensor, order: torch.Tensor | None) -> Stack:  # (B, n, p) float64, (B, n) int32
    """An empty stack for ``points``, which the kernels of pair_screen.cu fill."""
    (n_sets, n, p), device = points.shape, points.device
    n_tiles, passes = blocks_of(n, TILE), blocks_of(p, MOST_FEATURES)
    part = blocks_of(p, passes)
    width = passes * part
    rough = torch.empty(n_sets, n_tiles, width, TILE, dtype=torch.float32, device=device)
    boxes = torch.empty(n_sets, 2, min(width, BOX_FEATURES), n_tiles, dtype=torch.float32, device=device)
    spans = torch.zeros(n_sets, dtype=torch.float64, device=device)
    return Stack(rough, boxes, spans, order, passes, part)
