"""The rate of exponentials on a CUDA device, by a Triton kernel that does little else."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

# Numbers of a program: eight for each of its 128 threads, whose exponentials are independent of one another.
SIZE = 1024


@triton.jit
def _exp_loop(source, target, rounds, SIZE: tl.constexpr):
    place = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    x = tl.load(source + place)
    for _ in range(rounds):
        x = tl.exp2(-x)  # stays within (0, 1]
    tl.store(target + place, x)


def exp_loop(source: torch.Tensor, rounds: int) -> torch.Tensor:  # (n,) float32 -> (n,)
    """``x = 2^-x``, ``rounds`` times, in registers; n is a multiple of `SIZE`."""
    target = torch.empty_like(source)
    _exp_loop[(source.numel() // SIZE,)](source, target, rounds, SIZE=SIZE, num_warps=4)
    return target
