"""Matrix products that are known to be symmetric: half of the work, exactly symmetric results."""

from __future__ import annotations

import torch

# Row blocks of one product: the diagonal blocks are done whole, so 8 leave 9/16 of the work.
BLOCKS = 8


def symmetric_product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:  # (n, k), (k, n) -> (n, n)
    """``left @ right`` where it is symmetric (a Gram matrix; powers of one symmetric matrix): the blocks on and above
    the diagonal are computed, the others mirrored. O(n^2 k) time, O(n^2) memory. Deterministic.
    """
    n = left.shape[0]
    out = left.new_empty(n, n)
    step = max(64, -(-n // BLOCKS))
    room = left.new_empty(
        min(step, n) * n
    )  # of one block after the other: the C allocator would keep each of their sizes
    for start in range(0, n, step):
        stop = min(start + step, n)
        block = room[: (stop - start) * (n - start)].view(stop - start, n - start)
        torch.mm(left[start:stop], right[:, start:], out=block)
        own = block[:, : stop - start]
        out[start:stop, start:stop] = (own + own.T) / 2
        out[start:stop, stop:] = block[:, stop - start :]
        out[stop:, start:stop] = block[:, stop - start :].T
    return out
