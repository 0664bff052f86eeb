"""What the CUDA kernels over pairs read beside the points: tiles in float32, boxes, an order, and features present."""

from __future__ import annotations

import math
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
# Numbers that tell which points of a tile have which features of a pass (`mmp_words` of csrc/cuda/pair_block.h).
WORDS = TILE + 4


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
    presence: torch.Tensor | None = None  # (B, t, passes, WORDS) int32 for masked points

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
        defines = {"MMP_P": str(self.part)} | types | masked_define(self.presence is not None)
        inputs = (*arguments, self.presence)
        launch = Launch(source, kernel, inputs, blocks, PAIR_THREADS, self.shared_bytes, defines)
        gpu.run(launch, self.rough.device)


def masked_define(masked: bool) -> dict[str, str]:
    """The define of kernels for points that may lack features."""
    return {"MMP_MASKED": "1"} if masked else {}


def stack_of(
    gpu: Gpu, points: torch.Tensor, ordered: bool = False, masked: bool = False
) -> Stack:  # (B, n, p) float64, contiguous
    """The stack of ``points``, in the order of a kd-tree if ``ordered``: O(B n p) time, little beside the pairs.

    Points that are ``masked`` may lack features. Their order is first that of which features they have, and then that
    of a kd-tree: so most tiles hold points with the same features.
    """
    form = 2 * masked + ordered
    stack: Stack | None = gpu.kept.get(points, form)
    if stack is None:
        order = (order_by_presence if masked else kd_order)(points).to(torch.int32) if ordered else None
        stack = new_stack(points, order, masked)
        _, n, p = points.shape
        span = (points, n, p, stack.spans)
        screen = (points, stack.order, stack.spans, n, p, stack.rough.shape[2], stack.rough, stack.boxes)
        presence = (points, stack.order, n, p, stack.part, stack.passes, stack.presence)
        kernels = {"pair_span": span, "pair_screen": screen} | ({"pair_presence": presence} if masked else {})
        for kernel, arguments in kernels.items():
            defines = masked_define(masked)
            launch = Launch("pair_screen", kernel, arguments, stack.blocks, PAIR_THREADS, defines=defines)
            gpu.run(launch, points.device)
        gpu.kept.put(points, form, stack)
    return stack


def order_by_presence(points: torch.Tensor) -> torch.Tensor:  # (B, n, p) float64 -> (B, n) int64
    """Every set in the order of which features the points have, and among equals in that of a kd-tree.

    It is the order of a kd-tree with one more coordinate. This is the sum of the weights of the features that a point
    has, times more than any other coordinate can span. Every set of features has another sum, but for unlikely
    accidents, and that of a part is smaller. So neighbors in the order lack nearly the same features.
    """
    lacking = points.isnan()
    keys = torch.nn.functional.pad(points, (0, 1))
    coordinates, extra = keys[..., :-1], keys[..., -1]
    coordinates.masked_fill_(lacking, 0)
    weights = 1 + torch.arange(points.shape[2], dtype=points.dtype, device=points.device) * math.sqrt(2) % 1
    extra.copy_((~lacking * weights).sum(-1)).mul_(2 * coordinates.abs().max())
    return kd_order(keys)


def new_stack(
    points: torch.Tensor, order: torch.Tensor | None, masked: bool = False
) -> Stack:  # (B, n, p) float64, (B, n) int32
    """An empty stack for ``points``, which the kernels of pair_screen.cu fill."""
    (n_sets, n, p), device = points.shape, points.device
    n_tiles, passes = blocks_of(n, TILE), blocks_of(p, MOST_FEATURES)
    part = blocks_of(p, passes)
    width = passes * part
    rough = torch.empty(n_sets, n_tiles, width, TILE, dtype=torch.float32, device=device)
    boxes = torch.empty(n_sets, 2, min(width, BOX_FEATURES), n_tiles, dtype=torch.float32, device=device)
    spans = torch.zeros(n_sets, dtype=torch.float64, device=device)
    presence = torch.empty(n_sets, n_tiles, passes, WORDS, dtype=torch.int32, device=device) if masked else None
    return Stack(rough, boxes, spans, order, passes, part, presence)
