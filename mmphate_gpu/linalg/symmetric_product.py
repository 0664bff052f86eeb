"""Matrix products that are known to be symmetric, at half of the work and with exactly symmetric results."""

from __future__ import annotations

import torch

# Row blocks of a product. The diagonal blocks are computed whole, so with 8 blocks 9/16 of the work remains.
BLOCKS = 8


def symmetric_product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:  # (n, k), (k, n) -> (n, n)
    """``left @ right`` where that is symmetric, as for a Gram matrix or powers of a symmetric matrix.

    The blocks on and above the diagonal are computed, the others mirrored. O(n^2 k) time, O(n^2) memory. Deterministic.
    """
    n = left.shape[0]
    out = left.new_empty(n, n)
    step = max(64, -(-n // BLOCKS))
    # One buffer for all blocks: the C allocator would keep memory for each of their sizes.
    buffer = left.new_empty(min(step, n) * n)
    for start in range(0, n, step):
        stop = min(start + step, n)
        block = buffer[: (stop - start) * (n - start)].view(stop - start, n - start)
        torch.mm(left[start:stop], right[:, start:], out=block)
        diagonal = block[:, : stop - start]
        out[start:stop, start:stop] = (diagonal + diagonal.T) / 2
        out[start:stop, stop:] = block[:, stop - start :]
        out[stop:, start:stop] = block[:, stop - start :].T
    return out
