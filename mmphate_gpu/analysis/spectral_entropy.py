"""Diffusion spectral entropy: how many eigenvalues of a point set's diffusion operator matter."""

from __future__ import annotations

import torch

from ..errors import InputError, check_number
from ..ops.chunks import row_chunks
from ..ops.distances import distances_by_difference
from ..runtime.isolation import isolated

# Entries of a float64 matrix per chunk: 32 MiB, so that the few temporaries of a chunk stay below 200 MiB.
_CHUNK_ENTRIES = 2**22
# The leading eigenvalue 1 is rounded, and vanishes in much larger powers.
MOST_T = 10**9


@isolated()
def diffusion_spectral_entropy(
    points: torch.Tensor, t: int = 1, base: float = 2, *, bandwidth: float | torch.Tensor | None = None
) -> torch.Tensor:  # (B, n, p) -> (B,) float64
    """Entropy of the eigenvalues of each set's diffusion operator: from 0 (one point) to log n (points far apart).

    ``-sum_i a_i log a_i`` with ``a_i = |lambda_i^t| / sum_j |lambda_j^t|``, where ``lambda`` are the eigenvalues of
    ``P = D^-1 K``. ``K = G / (sqrt(g_i) sqrt(g_j))`` is the kernel ``G = exp(-|x_i - x_j|^2 / (2 bandwidth^2))``
    divided by the roots of its row sums g, and D has the row sums of K. This definition is published (arXiv
    2312.04823); the default bandwidth is this library's own.

    Parameters
    ----------
    points : (B, n, p) real
        B sets. A row of NaN is not part of its set.
    t : int
        Diffusion time, at least 1. Larger values leave only the leading eigenvalues.
    base : float
        Of the logarithm; 2 gives bits.
    bandwidth : float or (B,) tensor, optional
        By default that of `median_distance`, so that the entropy does not depend on the scale of a set. Sets whose
        entropies are compared or subtracted need one bandwidth. A bandwidth of 0 joins equal points only.

    Returns
    -------
    (B,) float64 tensor; NaN for a set without points.

    Raises
    ------
    InputError, InputTypeError
        Points without three axes, or t, base or bandwidth out of range.

    Notes
    -----
    O(B n^3) time and O(n^2) memory beside chunks of 32 MiB. Deterministic. The entropy is at most log n, so sets of
    different sizes are not on one scale.

    Examples
    --------
    >>> corners = torch.tensor([[[0.0, 0.0], [0.0, 9.0], [9.0, 0.0], [9.0, 9.0]]], dtype=torch.float64)
    >>> diffusion_spectral_entropy(corners, bandwidth=0.1)
    tensor([2.], dtype=torch.float64)
    """
    points = _checked(points)
    t = int(check_number("t", t, low=1, high=MOST_T, integer=True))
    base = check_number("base", base, low=1, open_low=True)
    widths = median_distance(points) if bandwidth is None else _widths(bandwidth, points)
    parts = [
        _entropy(_diffusion_eigenvalues(points[sets], widths[sets]) ** t)
        for sets in row_chunks(len(points), points.shape[1] ** 2, _CHUNK_ENTRIES)
    ]
    return torch.cat([points.new_empty(0), *parts]) / torch.log(points.new_tensor(base))


@isolated()
def median_distance(points: torch.Tensor) -> torch.Tensor:  # (B, n, p) -> (B,) float64
    """The median distance between two different points of each set; of an even number the lower of the middle two.

    Rows of NaN do not count; sets with fewer than two points have 0. O(B n^2 p) time.
    """
    points = _checked(points)
    n = points.shape[1]
    medians = points.new_zeros(len(points))
    if n > 1:
        first, second = torch.triu_indices(n, n, 1, device=points.device)
        for sets in row_chunks(len(points), n * n, _CHUNK_ENTRIES):
            medians[sets] = distances_by_difference(points[sets], points[sets])[:, first, second].nanmedian(1).values
    return medians.nan_to_num_(0)


def _checked(points: torch.Tensor) -> torch.Tensor:  # (B, n, p) float64
    if points.ndim != 3:
        raise InputError(f"points has shape {tuple(points.shape)}; accepted: (sets, points, features)")
    return points.double()


def _widths(bandwidth: float | torch.Tensor, points: torch.Tensor) -> torch.Tensor:  # (B,)
    widths = torch.as_tensor(bandwidth, dtype=torch.float64, device=points.device)
    if widths.ndim > 1 or (widths.ndim == 1 and len(widths) != len(points)):
        raise InputError(f"bandwidth has shape {tuple(widths.shape)}; accepted: a number, or ({len(points)},)")
    if not bool(((widths >= 0) & widths.isfinite()).all()):
        raise InputError("bandwidth has a negative or infinite entry; accepted: finite numbers >= 0")
    return widths.expand(len(points))


def _diffusion_eigenvalues(points: torch.Tensor, widths: torch.Tensor) -> torch.Tensor:  # (B, n, p) -> (B, n)
    """Absolute eigenvalues of D^-1 K, computed from its symmetric conjugate; 0 for rows of NaN."""
    reach = distances_by_difference(points, points) / widths[:, None, None]
    present = points.isfinite().all(-1)
    equal = reach.isnan() & present[:, None] & present[:, :, None]  # a bandwidth of 0 divides their distance of 0
    kernel = reach.masked_fill_(equal, 0).square_().mul_(-0.5).exp_().nan_to_num_(0)
    return torch.linalg.eigvalsh(_by_row_sums(_by_row_sums(kernel))).abs()


def _by_row_sums(kernel: torch.Tensor) -> torch.Tensor:  # (B, n, n)
    """``kernel`` divided by the roots of its row sums on both sides."""
    roots = kernel.sum(-1).sqrt()
    inverse = torch.where(roots > 0, 1 / roots, 0)
    return kernel * inverse[:, :, None] * inverse[:, None, :]


def _entropy(weights: torch.Tensor) -> torch.Tensor:  # (B, n) -> (B,), nats
    shares = weights / weights.sum(-1, keepdim=True)
    return torch.special.entr(shares).sum(-1)
