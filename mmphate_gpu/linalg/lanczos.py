"""Lanczos tridiagonal matrices of many start vectors at once, and the Gauss quadratures that they give."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch


class Tridiagonal(NamedTuple):
    """The tridiagonal matrices of m Lanczos steps from each of c start vectors, in float64."""

    diagonal: torch.Tensor  # (c, m)
    beside: torch.Tensor  # (c, m - 1)
    mass: torch.Tensor  # (c,), the squared lengths of the start vectors


def lanczos(
    matmul: Callable[[torch.Tensor], torch.Tensor],
    starts: torch.Tensor,
    n_steps: int,
    *,
    beside: torch.Tensor | None = None,
) -> Tridiagonal:
    """Tridiagonal matrices of a symmetric operator in the Krylov spaces of the columns of ``starts`` (n, c) float64.

    Parameters
    ----------
    matmul : callable
        (n, c) -> (n, c), the product with the operator.
    n_steps : int
        Products with c columns, at most n.
    beside : (n, r), optional
        Orthonormal vectors that span an invariant subspace, to which ``starts`` are orthogonal. Every vector is made
        orthogonal to it again, against rounding.

    Notes
    -----
    Every vector is orthogonalized twice against all before it. An exhausted Krylov space continues with zeros, which
    have no weight in the quadrature. O(n_steps) products, O(n n_steps^2 c) time, O(n n_steps c) memory.
    Deterministic. Source: Golub & Meurant, "Matrices, Moments and Quadrature with Applications", 2010.
    """
    n, c = starts.shape
    n_steps = min(n_steps, n)
    basis = starts.new_empty(c, n_steps, n)
    diagonal, off = starts.new_zeros(c, n_steps), starts.new_zeros(c, n_steps)
    length = starts.norm(dim=0)
    newest = (starts / length.clamp_min(torch.finfo(starts.dtype).tiny)).T.contiguous()
    for step in range(n_steps):
        basis[:, step] = newest
        image = matmul(newest.T).T.contiguous()
        diagonal[:, step] = (image * newest).sum(1)
        scale = image.norm(dim=1)
        for _ in range(2):  # twice is enough (Kahan, Parlett)
            if beside is not None:
                image -= (image @ beside) @ beside.T
            earlier = basis[:, : step + 1]
            image -= ((earlier @ image[:, :, None]).mT @ earlier)[:, 0]
        rest = image.norm(dim=1)
        goes_on = rest > 50 * torch.finfo(starts.dtype).eps * scale
        off[:, step] = torch.where(goes_on, rest, 0)
        newest = torch.where(goes_on[:, None], image / torch.where(goes_on, rest, 1)[:, None], 0)
    return Tridiagonal(diagonal, off[:, :-1], length.square())


def gauss_quadrature(krylov: Tridiagonal, n_steps: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Nodes and weights (c, m) with ``sum(weights * f(nodes))`` near ``start^T f(operator) start``, start by start.

    The sum is exact for polynomials of degree up to 2 m - 1. ``n_steps`` takes the first steps only. Computed on the
    CPU, because the matrices are tiny.
    """
    m = krylov.diagonal.shape[1] if n_steps is None else min(n_steps, krylov.diagonal.shape[1])
    matrix = torch.diag_embed(krylov.diagonal[:, :m].cpu())
    off = torch.diag_embed(krylov.beside[:, : m - 1].cpu(), 1)
    nodes, vectors = torch.linalg.eigh(matrix + off[:, :m, :m] + off[:, :m, :m].mT)
    weights = krylov.mass.cpu()[:, None] * vectors[:, 0].square()
    return nodes.to(krylov.mass.device), weights.to(krylov.mass.device)
