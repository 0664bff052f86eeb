"""One SMACOF sweep: distances, stress and update together."""

from __future__ import annotations

import torch

from .chunks import row_chunks
from .distances import distances_by_difference
from .launch.twins import twins

# Elements of one block of the portable sweep, so that its temporaries stay within a CPU's second-level cache.
SWEEP_ELEMENTS = 1 << 18


@twins("(Tensor distances, Tensor points, float share) -> (Tensor, Tensor)")
def guttman_transform(
    distances: torch.Tensor,  # (L, L) float32 or float64, symmetric, zero diagonal
    points: torch.Tensor,  # (L, C) float64, centred
    share: float,
) -> tuple[torch.Tensor, torch.Tensor]:  # (L, C), () float64
    """The Guttman transform of ``points`` and the sum of squared residuals *before* it, over ordered pairs.

    ``x_i <- (1/L) sum_j D_ij / d_ij (x_i - x_j)`` with 0 where d_ij is at most ``share`` of the largest coordinate; the
    stress comes free with the distances. Pairs are computed in the dtype of ``distances``: float32 gives the sums to
    about 1e-7, and moves half of the bytes. The CUDA twin's distances are off by up to 2^-22 of themselves in float32
    (a root by 2^-22.9). O(L^2 C) time, chunks of memory. Deterministic. Source: de Leeuw 1977; Borg & Groenen 2005.
    """
    n, together = points.shape[0], share * points.abs().max()
    with_one = torch.nn.functional.pad(points, (0, 1), value=1).to(distances.dtype)  # one product: row sums as well
    own_points = with_one[:, :-1].contiguous()
    sums = torch.zeros_like(with_one)
    raw = torch.zeros((), dtype=torch.float64, device=points.device)
    for rows in row_chunks(n, n, SWEEP_ELEMENTS):
        # The pairs on and right of the diagonal block serve both ends.
        right, own = slice(rows.start, n), rows.stop - rows.start
        wanted, between = distances[rows, right], distances_by_difference(own_points[rows], own_points[right])
        squares = torch.dist(wanted, between).double() ** 2
        raw += 2 * squares - torch.dist(wanted[:, :own], between[:, :own]).double() ** 2
        ratio = (wanted / between).masked_fill_(between <= together, 0)
        sums[rows] += ratio @ with_one[right]
        sums[rows.stop :] += ratio[:, own:].T @ with_one[rows]
    sums = sums.double()
    return (sums[:, -1:] * points - sums[:, :-1]) / n, raw
