"""What the launchers of the CUDA twins have in common.

Outputs come from torch and kernels run on torch's current stream, so that nothing has to synchronize and there is one
memory pool.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..point_tiles import kd_order
from .kernel import Argument, Launch, Start
from .native import NativeError
from .pair_stack import KeptStack, Stack, new_stack

# Threads of a block in the kernels over pairs (csrc/cuda/pair_block.h).
PAIR_THREADS = 256
C_TYPES = {torch.int32: "mmp_i32", torch.int64: "mmp_i64", torch.float32: "float", torch.float64: "double"}


def storage_types(indices: torch.dtype, values: torch.dtype) -> dict[str, str]:
    """The defines of a kernel that reads or writes the entries of a sparse matrix."""
    return {"MMP_INDEX": C_TYPES[indices], "MMP_VALUE": C_TYPES[values]}


class Gpu:
    """Starts kernels by the function ``start``: CuPy's on a GPU, that of an emulation on the CPU in the tests."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._kept = KeptStack()

    def run(self, launch: Launch, device: torch.device) -> None:
        for tensor in launch.arguments:
            if isinstance(tensor, torch.Tensor) and tensor.device != device:
                raise NativeError(f"{launch.kernel}: a tensor is on {tensor.device}; accepted: {device}, as the others")
        if launch.blocks > 0:
            self._start(launch, device)

    def run_over_pairs(
        self, source: str, kernel: str, blocks: int, stack: Stack, arguments: Sequence[Argument], **types: str
    ) -> None:
        """Run a kernel over pairs: each of ``blocks`` pairs some points of a set with all points of it."""
        defines = {"MMP_P": str(stack.part)} | types
        launch = Launch(source, kernel, tuple(arguments), blocks, PAIR_THREADS, stack.shared_bytes, defines)
        self.run(launch, stack.rough.device)

    def stack_of(self, points: torch.Tensor, ordered: bool = False) -> Stack:  # (B, n, p) float64, contiguous
        """The stack of ``points``, in the order of a kd-tree if ``ordered``: O(B n p) time, little beside the pairs."""
        stack = self._kept.get(points, ordered)
        if stack is None:
            stack = new_stack(points, kd_order(points).to(torch.int32) if ordered else None)
            for kernel, arguments in stack.made_by(points):
                self.run(Launch("pair_screen", kernel, arguments, stack.blocks, PAIR_THREADS), points.device)
            self._kept.put(points, ordered, stack)
        return stack
