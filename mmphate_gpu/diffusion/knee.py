"""The knee of a curve: the break at which two straight lines fit it best (step 9 of docs/method.md)."""

from __future__ import annotations

import torch

from ..errors import InputError
from ..ops.chunks import row_chunks
from ..runtime.arrays import takes_arrays

# Entries of a block: 512 KiB, which stay in the cache of a processor. For 10,000 points, blocks of 16 MiB take 2.5
# times as long.
ENTRIES = 1 << 16
# Breaks whose errors differ by less than this share of the largest entropy are equal. A sum of a hundred residuals has
# rounding of this order. The errors of a flat curve (converged training) are only rounding, which differs by device.
KNEE_TIE = 1e-12


@takes_arrays("curve")
def knee(curve: torch.Tensor) -> int:
    """The break at which two straight lines fit ``curve`` (n >= 4 points) best; the first of several equal breaks.

    The error of a break is the sum of absolute residuals of `knee_errors`. Errors are equal if they differ by less than
    `KNEE_TIE`, which is rounding. The scale of the curve does not matter. O(n^2) time. Deterministic.

    Raises
    ------
    InputError
        ``curve`` has another shape, or values that are not finite.
    """
    if curve.ndim != 1 or curve.numel() < 4:
        raise InputError(f"curve has shape {tuple(curve.shape)}; accepted: one axis of at least 4 points")
    curve = curve.double().cpu()
    if not bool(torch.isfinite(curve).all()):
        raise InputError("curve contains NaN or infinity; accepted: finite numbers")
    largest = float(curve.abs().max())
    if largest == 0:
        return 1  # every break fits
    errors = knee_errors(curve / largest)  # scaled, because squares of large values overflow
    return 1 + int(torch.nonzero(errors <= errors.min() + KNEE_TIE)[0])


def knee_errors(curve: torch.Tensor) -> torch.Tensor:  # (..., n) -> (..., n - 2)
    """Sum of absolute residuals of two least-squares lines at each break b = 1 .. n - 2.

    The left line is fitted to the points 0 .. b and judged on them. The right line is fitted to b - 1 .. n - 1 and
    judged on b .. n - 1.
    """
    n = curve.shape[-1]
    x = torch.arange(n, device=curve.device)
    errors = []
    for breaks in row_chunks(n - 2, curve.numel(), ENTRIES):
        at = x[1 + breaks.start : 1 + breaks.stop, None]
        left = _residual(curve, fitted=x <= at, judged=x <= at)
        errors.append(left + _residual(curve, fitted=x >= at - 1, judged=x >= at))
    return torch.cat(errors, -1)


def _residual(curve: torch.Tensor, *, fitted: torch.Tensor, judged: torch.Tensor) -> torch.Tensor:
    """Sum of absolute residuals at the ``judged`` points of the least-squares line through the ``fitted`` points.

    The shapes are (..., n), twice (B, n) bool -> (..., B).
    """
    inside, y = fitted.double(), curve[..., None, :]
    count = inside.sum(-1, keepdim=True)
    x = torch.arange(fitted.shape[-1], dtype=torch.float64, device=fitted.device)
    x = (x - (x * inside).sum(-1, keepdim=True) / count) * inside
    slope = (x * y).sum(-1, keepdim=True) / x.square().sum(-1, keepdim=True)
    return ((y - (y * inside).sum(-1, keepdim=True) / count - slope * x).abs() * judged).sum(-1)
