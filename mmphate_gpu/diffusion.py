"""Diffusion time from the von Neumann entropy, and diffusion for that time (METHOD step 9)."""

from __future__ import annotations

import torch

from ._arrays import takes_arrays
from .ops.components import components, diagonal_blocks
from .ops.symmetric_power import symmetric_power
from .ops.symmetric_product import symmetric_product
from .params import InputError, check_number

# Up to this many landmarks of one component the singular values come from a plain SVD. Above it the Gram matrix is
# several times faster; what it may lose is bounded, and where that could change t the plain SVD decides.
SVD_UP_TO = 1000
# Error allowed for in the eigenvalues of the float64 Gram matrix, relative to the largest: measured 5e-15 at 1200 rows
# and 8e-15 at 2400, growing as the root of their number. Where t is clear the bounds leave a thousandfold margin.
GRAM_ERROR = 1e-13
# Breaks whose errors differ by less than this share of the largest entropy are equals: a sum of a hundred residuals
# carries rounding of that order, and on a flat curve (converged training) nothing else, which is another on every
# device.
KNEE_TIE = 1e-12
# METHOD's floor inside the logarithm: the float64 epsilon.
ENTROPY_FLOOR = torch.finfo(torch.float64).eps


def _singular_value_bounds(landmark_op: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # 2 x (L,) float64
    """Lower and upper bounds of the singular values, component by component; equal where the plain SVD gave them."""
    matrix = landmark_op.double()
    bounds = []
    for members in components(matrix):
        blocks = diagonal_blocks(matrix, members)
        if blocks.shape[-1] > SVD_UP_TO:
            bounds += [_gram_bounds(block) for block in blocks]
        else:
            values = torch.linalg.svdvals(blocks).flatten()
            bounds.append((values, values))
    low, high = zip(*bounds, strict=True)
    return torch.cat(low), torch.cat(high)


def _gram_bounds(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Bounds by the eigenvalues of the float64 Gram matrix."""
    squares = torch.linalg.eigvalsh(symmetric_product(matrix.T, matrix))
    error = GRAM_ERROR * squares[-1].clamp_min(0)
    return (squares - error).clamp_min(0).sqrt(), (squares + error).clamp_min(0).sqrt()


def entropy_of_singular_values(values: torch.Tensor, t_max: int = 100) -> torch.Tensor:  # (L,) -> (t_max,) float64
    """H(i) = -sum w ln w with w = s^(i+1) / sum s^(i+1), plus the float64 epsilon, for i = 0 .. t_max - 1."""
    powers, entropy = values.clone(), []
    for _ in range(t_max):
        weights = powers / powers.sum() + ENTROPY_FLOOR
        entropy.append(-(weights * weights.log()).sum())
        powers = powers * values
    return torch.stack(entropy)


@takes_arrays("landmark_op")
def von_neumann_entropy(landmark_op: torch.Tensor, t_max: int = 100) -> torch.Tensor:  # (L, L) -> (t_max,) float64
    """Entropy of the singular values of landmark_op^(i+1), i = 0 .. t_max - 1.

    landmark_op is not symmetric: its singular values, not its eigenvalues, are meant. Each connected component has its
    own; above 1000 landmarks in one they come from the float64 Gram matrix, if that can be shown to give the same
    `optimal_t` as the SVD. O(L^3) time for one component, O(L^2) memory. Deterministic.
    """
    check_number("t_max", t_max, low=4, integer=True)
    _check_square(landmark_op)
    low, high = _singular_value_bounds(landmark_op)
    entropy = entropy_of_singular_values((low + high) / 2, t_max)
    if torch.equal(low, high) or _certain(entropy, low, high):
        return entropy
    return entropy_of_singular_values(torch.linalg.svdvals(landmark_op.double()), t_max)


def _certain(entropy: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> bool:
    """Whether no singular values within the bounds could have another knee."""
    bounds = [entropy_of_singular_values(values, entropy.numel()) for values in (low, high)]
    # An error e in H moves the absolute residuals of one line by less than 3 sum |e| (those of a line fit to e itself).
    # The point at the break belongs to both lines, so one break moves by less than 6, the difference of two by less
    # than 12; the bend of H between the bounds is of second order in them.
    shift = 12 * torch.stack([(bound - entropy).abs() for bound in bounds]).max(0).values.sum()
    best, second = torch.topk(knee_errors(entropy.cpu()), 2, largest=False).values
    return bool(second - best > shift + 2 * KNEE_TIE * entropy.abs().max())


def knee_errors(curve: torch.Tensor) -> torch.Tensor:  # (n,) -> (n - 2,)
    """Sum of absolute residuals of the two least-squares lines that meet at each break 1 .. n - 2."""
    x = torch.arange(curve.numel(), dtype=torch.float64, device=curve.device)
    pairs = [(slice(0, b + 1), slice(b, None)) for b in range(1, curve.numel() - 1)]
    return torch.stack([_residual(x[left], curve[left]) + _residual(x[right], curve[right]) for left, right in pairs])


def _residual(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:  # (n,), (n,) -> ()
    x = x - x.mean()
    slope = (x * y).sum() / (x * x).sum()
    return (y - y.mean() - slope * x).abs().sum()


@takes_arrays("curve")
def knee(curve: torch.Tensor) -> int:
    """The break at which two straight lines fit ``curve`` (n >= 4 points) best; the first one among equals.

    Equal are errors that differ by less than rounding does (`KNEE_TIE`).
    """
    if curve.ndim != 1 or curve.numel() < 4:
        raise InputError(f"curve has shape {tuple(curve.shape)}; accepted: one axis of at least 4 points")
    curve = curve.double().cpu()
    errors = knee_errors(curve)
    return 1 + int(torch.nonzero(errors <= errors.min() + KNEE_TIE * curve.abs().max())[0])


@takes_arrays("landmark_op")
def optimal_t(landmark_op: torch.Tensor, t_max: int = 100) -> int:
    """Diffusion time: the knee of the von Neumann entropy."""
    return knee(von_neumann_entropy(landmark_op, t_max))


@takes_arrays("landmark_op", "degrees")
def diffuse(landmark_op: torch.Tensor, t: int, degrees: torch.Tensor | None = None) -> torch.Tensor:
    """landmark_op^t in float64: (L, L) -> (L, L).

    With the ``degrees`` (L,) of a reversible operator (`Landmarks.degrees`) through its symmetric form, whose products
    cost half; component by component; by repeated squaring, about 1.5 log2(t) products of O(L^3). Entries are right to
    a small multiple of their own rounding, and what is 0 stays 0.
    """
    check_number("t", t, low=1, integer=True)
    _check_square(landmark_op)
    if degrees is None:
        return _power(landmark_op.double(), t, symmetric=False)
    root = degrees.double().sqrt()
    matrix = (landmark_op.double() * root[:, None]).div_(root)
    matrix = matrix.add_(matrix.T.clone()).div_(2)
    return _power(matrix, t, symmetric=True).mul_(root).div_(root[:, None])


def _power(matrix: torch.Tensor, t: int, *, symmetric: bool) -> torch.Tensor:
    out = torch.zeros_like(matrix)
    for members in components(matrix):
        blocks = diagonal_blocks(matrix, members)
        if symmetric and blocks.shape[0] == 1:
            powers = symmetric_power(blocks[0], t)[None]
        else:
            powers = torch.linalg.matrix_power(blocks, t)
        if powers.shape == (1, *matrix.shape):
            return powers[0]
        out[members[:, :, None], members[:, None, :]] = powers
    return out


def _check_square(landmark_op: torch.Tensor) -> None:
    if landmark_op.ndim != 2 or landmark_op.shape[0] != landmark_op.shape[1] or landmark_op.numel() == 0:
        raise InputError(f"landmark_op has shape {tuple(landmark_op.shape)}; accepted: a square matrix")
    if not bool(torch.isfinite(landmark_op).all()):
        raise InputError("landmark_op contains NaN or infinity; accepted: finite numbers")
