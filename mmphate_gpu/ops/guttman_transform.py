"""A sweep of SMACOF: the distances, the stress and the update at once."""

from __future__ import annotations

import torch

from .chunks import row_chunks
from .distances import distances_by_difference
from .launch import native
from .launch.cuda import C_TYPES, Gpu
from .launch.kernel import Launch, blocks_of
from .launch.rehearsal import POSITIONS
from .launch.twins import cpp_twin, cuda_twin, twins

# Elements of a block of the portable sweep: its temporaries fit in the second-level cache of a CPU.
SWEEP_ELEMENTS = 1 << 18
# Threads of a block of the CUDA twin, and of the block that reads the points before.
THREADS, POINT_THREADS = 128, 1024
# Rows of a block share the points that it reads. Of more components than NARROW the sums would not fit the registers.
ROWS, NARROW = 4, 10


@twins("(Tensor distances, Tensor points, float share) -> (Tensor, Tensor)")
def guttman_transform(
    distances: torch.Tensor,  # (L, L) float32 or float64, symmetric, zero diagonal
    points: torch.Tensor,  # (L, C) float64, centered
    share: float,
) -> tuple[torch.Tensor, torch.Tensor]:  # (L, C), () float64
    """The Guttman transform of ``points`` and the sum of squared residuals *before* it, over ordered pairs.

    ``x_i <- (1/L) sum_j D_ij / d_ij (x_i - x_j)``, where a pair with d_ij of at most ``share`` of the largest
    coordinate counts as 0. Pairs are computed in the dtype of ``distances``: float32 gives the sums to about 1e-7 and
    reads half of the bytes. In float32 the distances of the CUDA twin have relative errors up to 2^-22 (those of a root
    up to 2^-22.9). O(L^2 C) time, chunks of memory. Deterministic. Source: de Leeuw 1977; Borg & Groenen 2005.
    """
    n, together = points.shape[0], share * points.abs().max()
    with_one = torch.nn.functional.pad(points, (0, 1), value=1).to(distances.dtype)  # for the row sums
    positions = with_one[:, :-1].contiguous()
    sums = torch.zeros_like(with_one)
    raw = torch.zeros((), dtype=torch.float64, device=points.device)
    for rows in row_chunks(n, n, SWEEP_ELEMENTS):
        # Each pair is computed once, in the rows of its first point, and added to both.
        right, n_rows = slice(rows.start, n), rows.stop - rows.start
        target, between = distances[rows, right], distances_by_difference(positions[rows], positions[right])
        squares = torch.dist(target, between).double() ** 2
        raw += 2 * squares - torch.dist(target[:, :n_rows], between[:, :n_rows]).double() ** 2
        ratio = (target / between).masked_fill_(between <= together, 0)
        sums[rows] += ratio @ with_one[right]
        sums[rows.stop :] += ratio[:, n_rows:].T @ with_one[rows]
    sums = sums.double()
    return (sums[:, -1:] * points - sums[:, :-1]) / n, raw


@cpp_twin(guttman_transform)
def guttman_transform_cpp(distances, points, share):
    distances, points = distances.contiguous(), points.contiguous()
    moved, raw, together = torch.empty_like(points), points.new_empty(()), float(share * points.abs().max())
    arguments = (distances, distances.dtype, points, moved, raw, *points.shape, together)
    native.call("guttman_transform", "fddd", *arguments)
    return moved, raw


@cuda_twin(
    guttman_transform,
    rehearse=lambda sizes: [
        (sizes.zeros(POSITIONS, POSITIONS, dtype=dtype), sizes.zeros(POSITIONS, n_components), 0.0)
        for dtype, further in ((torch.float32, sizes.surplus), (torch.float64, ()))  # further starts need no float64
        for n_components in (sizes.n_components, *further)
    ],
)
def guttman_transform_cuda(gpu: Gpu, distances, points, share):
    distances, points, device = distances.contiguous(), points.contiguous(), points.device
    n, n_components = points.shape
    rows = ROWS if n_components <= NARROW and n >= ROWS else 1
    types = {"MMP_DISTANCE": C_TYPES[distances.dtype], "MMP_C": str(n_components), "MMP_ROWS": str(rows)}
    blocks, op = blocks_of(n, rows), "guttman_transform"
    by_axis, least = distances.new_empty(n_components, n), distances.new_empty(())
    n_done = torch.empty((), dtype=torch.int32, device=device)
    first = (points, n, float(share), by_axis, least, n_done)
    gpu.run(Launch(op, "guttman_points", first, 1, POINT_THREADS, defines=types), device)
    moved, by_block, raw = torch.empty_like(points), points.new_empty(blocks), points.new_empty(())
    arguments = (distances, by_axis, n, least, moved, by_block, n_done, raw)
    gpu.run(Launch(op, op, arguments, blocks, THREADS, defines=types), device)
    return moved, raw
