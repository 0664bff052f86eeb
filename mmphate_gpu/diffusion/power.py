"""Powers of the landmark operator: diffusion for t steps."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..errors import InputError
from ..linalg.components import Components, components, diagonal_blocks
from ..linalg.low_rank_power import low_rank_power
from ..linalg.symmetric_power import symmetric_power
from ..params import check_steps
from ..runtime.arrays import takes_arrays


@takes_arrays("landmark_op", "degrees")
def diffuse(
    landmark_op: torch.Tensor,
    t: int,
    degrees: torch.Tensor | None = None,
    *,
    groups: Components | None = None,
    low_rank: bool = False,
) -> torch.Tensor:
    """landmark_op^t in float64: (L, L) -> (L, L).

    Parameters
    ----------
    landmark_op : (L, L)
    t : int
        At least 1.
    degrees : (L,), optional
        Degrees of a reversible operator (`Landmarks.degrees`). The power is then taken of the symmetric form, whose
        products cost half.
    groups : list of (k, n), optional
        The `components` of landmark_op, if they are known.
    low_rank : bool
        Allows errors of about 1e-14 in the entries of the symmetric form, and 0 for entries below 1e-16. On a CPU the
        power of a large component then comes from its leading eigenpairs if few are enough, in a quarter of the time.
        On CUDA it has no effect, because by operation count the products take less time than the eigensolver.

    Raises
    ------
    InputError
        landmark_op is not square or finite, or t is out of range.

    Notes
    -----
    Repeated squaring, component by component: about 1.5 log2(t) products of O(L^3). The error of an entry is a small
    multiple of its rounding, and an entry that should be 0 is 0. Deterministic.
    """
    check_steps(t)
    check_square(landmark_op)
    if degrees is None:
        matrix = landmark_op.to(torch.float64, copy=True)
        return _power(matrix, components(matrix) if groups is None else groups, t, torch.linalg.matrix_power)
    root = degrees.double().sqrt()
    matrix = _symmetric_form(landmark_op, root)
    groups = components(matrix) if groups is None else groups
    large = _low_rank_or_exact if low_rank and matrix.device.type == "cpu" else symmetric_power
    del landmark_op
    return _power(matrix, groups, t, large).mul_(root).div_(root[:, None])


# Components of at least this many landmarks may take their power from leading eigenpairs.
LOW_RANK_FROM = 1000


def _low_rank_or_exact(matrix: torch.Tensor, t: int) -> torch.Tensor:
    power = low_rank_power(matrix, t) if len(matrix) >= LOW_RANK_FROM else None
    if power is not None:
        return power
    whole = [matrix]
    del matrix  # so that `symmetric_power` can free it after its last use
    return symmetric_power(whole.pop(), t)


def _symmetric_form(landmark_op: torch.Tensor, root: torch.Tensor) -> torch.Tensor:
    matrix = (landmark_op.double() * root[:, None]).div_(root)
    return matrix.add_(matrix.T.clone()).div_(2)


def _power(
    matrix: torch.Tensor, groups: Components, t: int, power: Callable[[torch.Tensor, int], torch.Tensor]
) -> torch.Tensor:
    """``matrix^t``, component by component, in place. ``power`` computes a component that is alone in its size."""
    if groups[0].shape == (1, matrix.shape[0]):
        whole = [matrix]
        del matrix  # so that ``power`` can free it after its last use
        return power(whole.pop(), t)
    for members in groups:
        if len(members) == 1:
            powers = power(diagonal_blocks(matrix, members)[0], t)
        else:
            powers = torch.linalg.matrix_power(diagonal_blocks(matrix, members), t)
        matrix[members[:, :, None], members[:, None, :]] = powers
    return matrix


def check_square(landmark_op: torch.Tensor) -> None:
    """Raise `InputError` if ``landmark_op`` is not a square matrix of finite numbers."""
    if landmark_op.ndim != 2 or landmark_op.shape[0] != landmark_op.shape[1] or landmark_op.numel() == 0:
        raise InputError(f"landmark_op has shape {tuple(landmark_op.shape)}; accepted: a square matrix")
    if not bool(torch.isfinite(landmark_op).all()):
        raise InputError("landmark_op contains NaN or infinity; accepted: finite numbers")
