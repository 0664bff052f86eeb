"""The von Neumann entropy of diffusion, and the diffusion time at its knee (step 9 of docs/method.md)."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch

from ..errors import InputError
from ..linalg.components import Components, components, diagonal_blocks
from ..linalg.eigenvalues import symmetric_eigenvalues
from ..linalg.safe_scale import safe_scale
from ..linalg.singular_value_sample import SingularValueSample
from ..linalg.symmetric_product import symmetric_product
from ..ops.chunks import chunk_elements, row_chunks
from ..params import check_t_max
from ..runtime.arrays import takes_arrays
from ..runtime.memory import available_bytes
from .knee import KNEE_TIE, knee, knee_errors
from .power import check_square

# Up to this many landmarks of one component the singular values come from a plain SVD. Above it the Gram matrix is
# several times faster; what it may lose is bounded, and where that could change t the plain SVD decides. On CUDA the
# limit is low, because the SVD of more than 32 rows is a loop of Jacobi sweeps there.
SVD_UP_TO = {"cpu": 1000, "cuda": 32}
# Error allowed for in the eigenvalues of the float64 Gram matrix, relative to the largest: measured 5e-15 at 1200 rows
# and 8e-15 at 2400, growing as the root of their number. Where t is clear the bounds leave a thousandfold margin.
GRAM_ERROR = 1e-13
# METHOD's floor inside the logarithm: the float64 epsilon.
ENTROPY_FLOOR = torch.finfo(torch.float64).eps


# Above this many landmarks in one component its singular values are sampled: Gram matrix and eigenvalues take time with
# the cube of their number, the sample with the square. A GPU multiplies matrices near its peak rate, which is what the
# sample does, but finds the eigenvalues of a few thousand rows slowly. The limit for CUDA is an estimate, not measured.
SAMPLE_ABOVE = {"cpu": 8000, "cuda": 1500}
# Probes of the sample, round by round, until the knee is certain; then the exact way is taken, if it fits. On landmark
# operators of 1149 to 4000 nodes (the limit lowered) the first round was enough.
PROBES = (32, 64)
# Groups of probes that the jackknife leaves out, one after the other.
N_GROUPS = 32
# Standard errors allowed for: with as many groups, one error in 2700 is beyond.
N_ERRORS = 4


def _limit(by_device: dict[str, int], device: torch.device) -> int:
    """The limit for ``device``; a device that is not listed has the CPU's."""
    return by_device.get(device.type, by_device["cpu"])


@dataclass(frozen=True, eq=False)
class EntropyEstimate:
    """A von Neumann entropy, how far it may be off, and the breaks that could be its knee."""

    entropy: torch.Tensor  # (t_max,) float64
    error: torch.Tensor  # (t_max,) float64, that of sampling: 0 where there was none
    t_low: int
    t_high: int


def _singular_value_bounds(
    matrix: torch.Tensor, groups: Components
) -> tuple[torch.Tensor, torch.Tensor]:  # 2 x (L,) float64
    """Lower and upper bounds of the singular values, component by component; equal where the plain SVD gave them."""
    bounds = []
    for members in groups:
        blocks = diagonal_blocks(matrix, members)
        if blocks.shape[-1] > _limit(SVD_UP_TO, matrix.device):
            bounds.append(_gram_bounds(blocks))
        else:
            values = torch.linalg.svdvals(blocks).flatten()
            bounds.append((values, values))
    low, high = zip(*bounds, strict=True)
    return torch.cat(low), torch.cat(high)


# Blocks of up to this many rows have their eigenvalues computed side by side.
BATCHED_UP_TO = 512


def _gram_bounds(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # (k, s, s) -> 2 x (k s,)
    """Bounds by the eigenvalues of the float64 Gram matrices."""
    if blocks.shape[1] <= BATCHED_UP_TO:
        squares = torch.linalg.eigvalsh(blocks.mT @ blocks)
    else:
        squares = torch.stack([symmetric_eigenvalues(symmetric_product(block.T, block)) for block in blocks])
    error = GRAM_ERROR * squares[:, -1:].clamp_min(0)
    return tuple((squares + side * error).clamp_min(0).sqrt().flatten() for side in (-1, 1))


def entropy_of_singular_values(
    values: torch.Tensor, t_max: int = 100, counts: torch.Tensor | None = None
) -> torch.Tensor:  # (L,) or (G, L) -> (t_max,) or (G, t_max) float64
    """H(i) = -sum w ln w with w = s^(i+1) / sum s^(i+1), plus the float64 epsilon, for i = 0 .. t_max - 1.

    w does not depend on the scale of s. s is first divided by its largest value, so that no power overflows.
    ``counts`` (G, L) says how often each of the values (L,) occurs, and gives one curve for every row: (G, t_max).
    """
    values = values / values.amax(-1, keepdim=True)
    n_curves = max(values.numel(), 0 if counts is None else counts.numel()) // values.shape[-1]
    powers, entropy = torch.ones_like(values[..., None, :]), []
    # Some five temporaries of this size are held at once.
    for part in row_chunks(t_max, n_curves * values.shape[-1], chunk_elements(values.device) // 4):
        # The powers of this part, row by row: the first row continues from the last power of the part before.
        factors = values[..., None, :].repeat_interleave(part.stop - part.start, -2)
        factors[..., 0, :] *= powers[..., -1, :]
        powers = factors.cumprod(-2)
        weighted = powers if counts is None else counts[:, None] * powers
        weights = powers / weighted.sum(-1, keepdim=True) + ENTROPY_FLOOR
        terms = weights * weights.log()
        entropy.append(-(terms if counts is None else counts[:, None] * terms).sum(-1))
    return _flat_if_rounding(torch.cat(entropy, -1), values.shape[-1])


def _flat_if_rounding(entropy: torch.Tensor, n_values: int) -> torch.Tensor:  # (..., t_max)
    """``entropy``, made constant if it changes by no more than the rounding of ``n_values`` singular values.

    Singular values that should be 0 come out near 1e-17, and their powers vanish. If all other singular values are
    equal, nothing else changes the curve, and this change would be taken for its knee.
    """
    start = entropy[..., :1]
    rounding = -math.log(ENTROPY_FLOOR) * ENTROPY_FLOOR * n_values
    return torch.where((entropy - start).abs().amax(-1, keepdim=True) <= rounding, start, entropy)


@takes_arrays("landmark_op")
def von_neumann_entropy(landmark_op: torch.Tensor, t_max: int = 100) -> torch.Tensor:  # (L, L) -> (t_max,) float64
    """Entropy of the singular values of landmark_op^(i+1), i = 0 .. t_max - 1.

    landmark_op is not symmetric: its singular values, not its eigenvalues, are meant. Each connected component has its
    own; above 1000 landmarks in one (on CUDA 32) they come from the float64 Gram matrix, if that can be shown to give
    the same `optimal_t` as the SVD. Above 8000 (on CUDA 1500) they are sampled, if that can be shown to give the same
    `optimal_t` (`entropy_with_error`).

    O(L^3) time for one component, O(6500 L^2) for a sampled one, O(L^2) memory. Deterministic for one device, dtype and
    thread count: the sample has a seed of its own.

    Warns
    -----
    RuntimeWarning
        If the sample leaves `optimal_t` open and an exact decomposition does not fit in memory.
    """
    return entropy_of_components(landmark_op, None, t_max)


def entropy_of_components(landmark_op: torch.Tensor, groups: Components | None, t_max: int) -> torch.Tensor:
    """`von_neumann_entropy` of an operator whose `components` are ``groups``."""
    estimate = _entropy_with_error(landmark_op, groups, t_max)
    if estimate.t_low < estimate.t_high:
        warnings.warn(
            f"the diffusion time of {landmark_op.shape[0]:,} landmarks is only known to lie between {estimate.t_low} "
            f"and {estimate.t_high}: the singular values are sampled, and there is no memory for all of them. A "
            "smaller n_landmark, or a t that is given, settles it",
            RuntimeWarning,
            stacklevel=4,
        )
    return estimate.entropy


@takes_arrays("landmark_op")
def entropy_with_error(landmark_op: torch.Tensor, t_max: int = 100) -> EntropyEstimate:  # (L, L)
    """`von_neumann_entropy`, how far it may be off, and the breaks that could be its knee.

    Not sampled (``error`` 0, one break) up to 8000 landmarks in every component (on CUDA 1500). Above, stochastic
    Lanczos quadrature: ``error`` is four standard errors over the probes (jackknife) and twice what the last quarter of
    the Lanczos steps and rounding change, and a break could be the knee if the lines that meet there fit no worse than
    the best, within the same error of that difference. More probes follow until one break is left; if it is not, all
    singular values are computed, where there is memory for them. On landmark operators of 4000 nodes (the limit
    lowered) 32 probes were enough; see docs/performance.md. Deterministic for one device, dtype and thread count: the
    seed is fixed.
    Source: Ubaru, Chen & Saad, "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature", 2017.
    """
    return _entropy_with_error(landmark_op, None, t_max)


def _entropy_with_error(landmark_op: torch.Tensor, groups: Components | None, t_max: int) -> EntropyEstimate:
    check_t_max(t_max)
    check_square(landmark_op)
    if not bool(landmark_op.any()):
        raise InputError("landmark_op contains only zeros; accepted: a matrix with an entry that is not 0")
    scale = safe_scale(landmark_op)  # the entropy does not depend on it
    matrix = landmark_op.double() if scale == 1 else landmark_op.double() * scale
    groups = components(matrix) if groups is None else groups
    if max(members.shape[1] for members in groups) > _limit(SAMPLE_ABOVE, matrix.device):
        estimate = _sampled(matrix, groups, t_max)
        if estimate.t_low == estimate.t_high or not _exact_fits(groups, matrix.device):
            return estimate
    entropy = _exact(matrix, groups, t_max)
    t = knee(entropy)
    return EntropyEstimate(entropy, torch.zeros_like(entropy), t, t)


def _exact_fits(groups: Components, device: torch.device) -> bool:
    """Whether there is memory for what `_exact` takes: components of one size, and as much for their SVD, or a Gram
    matrix of one and its eigenvalues."""
    needed = max((2 * members.shape[0] + 1) * 8 * members.shape[1] ** 2 for members in groups)
    return needed <= available_bytes(device)


def _exact(matrix: torch.Tensor, groups: Components, t_max: int) -> torch.Tensor:  # (t_max,)
    low, high = _singular_value_bounds(matrix, groups)
    entropy = entropy_of_singular_values((low + high) / 2, t_max)
    if torch.equal(low, high) or _certain(entropy, low, high):
        return entropy
    # The default on CUDA, cuSOLVER's Jacobi method, is expected to take tens of seconds for a few thousand rows.
    driver = "gesvd" if matrix.is_cuda else None
    values = [torch.linalg.svdvals(diagonal_blocks(matrix, members), driver=driver).flatten() for members in groups]
    return entropy_of_singular_values(torch.cat(values), t_max)


def _sampled(matrix: torch.Tensor, groups: Components, t_max: int) -> EntropyEstimate:
    """Entropy with the large components sampled, by as many probes as it takes."""
    most = _limit(SAMPLE_ABOVE, matrix.device)
    small = [members for members in groups if members.shape[1] <= most]
    known = torch.stack(_singular_value_bounds(matrix, small)).mean(0) if small else matrix.new_empty(0)
    large = [block for members in groups if members.shape[1] > most for block in diagonal_blocks(matrix, members)]
    samples = [SingularValueSample(block, random_state=seed) for seed, block in enumerate(large)]
    for n_probes in PROBES:
        for sample in samples:
            sample.draw(n_probes)
        estimate = _estimate(known, samples, t_max)
        if estimate.t_low == estimate.t_high:
            break
    return estimate


def _estimate(known: torch.Tensor, samples: list[SingularValueSample], t_max: int) -> EntropyEstimate:
    n_probes = samples[0].n_probes
    everyone = known.new_full((1, n_probes), 1 / n_probes)
    left_out = torch.eye(N_GROUPS, dtype=known.dtype, device=known.device).repeat(1, n_probes // N_GROUPS)
    others = (1 - left_out) / (1 - left_out).sum(1, keepdim=True)
    curves = _sampled_entropy(known, samples, torch.cat([everyone, others]), t_max)
    coarse = _sampled_entropy(known, samples, everyone, t_max, coarse=True)
    errors, coarse_errors = knee_errors(curves.cpu()), knee_errors(coarse.cpu())
    best = int(errors[0].argmin())
    behind, coarse_behind = (e - e[:, best : best + 1] for e in (errors, coarse_errors))
    rounding = KNEE_TIE * float(curves[0].abs().max())
    near = 1 + torch.nonzero(behind[0] <= _margin(behind, coarse_behind) + rounding).flatten()
    return EntropyEstimate(curves[0], _margin(curves, coarse) + rounding, int(near[0]), int(near[-1]))


def _sampled_entropy(
    known: torch.Tensor, samples: list[SingularValueSample], shares: torch.Tensor, t_max: int, coarse: bool = False
) -> torch.Tensor:  # (G, t_max)
    """Curves of the ``known`` singular values and the samples, for every row of the ``shares`` (G, P) of the probes."""
    measures = [sample.measure(shares, coarse=coarse) for sample in samples]
    values = torch.cat([known, *(values for values, _ in measures)])
    counts = torch.cat([known.new_ones(len(shares), len(known)), *(counts for _, counts in measures)], 1)
    return entropy_of_singular_values(values, t_max, counts)


def _margin(found: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:  # (1 + N_GROUPS, n), (1, n) -> (n,)
    """How far the first row may be off: the others leave out a group of probes each, ``coarse`` some of the steps."""
    standard_error = (N_GROUPS - 1) ** 0.5 * found[1:].std(0, correction=0)
    return N_ERRORS * standard_error + 2 * (coarse[0] - found[0]).abs()


def _certain(entropy: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> bool:
    """Whether no singular values within the bounds could have another knee."""
    bounds = entropy_of_singular_values(torch.stack([low, high]), entropy.numel())
    # An error e in H moves the absolute residuals of one line by less than 3 sum |e| (those of a line fit to e itself).
    # The points next to the break belong to both lines, so the sum for one break moves by less than 6 times that, and
    # the difference of two by less than 12 times; the bend of H between the bounds is of second order in them.
    shift = 12 * (bounds - entropy).abs().amax(0).sum()
    best, second = torch.topk(knee_errors(entropy.cpu()), 2, largest=False).values
    return bool(second - best > shift + 2 * KNEE_TIE * entropy.abs().max())


@takes_arrays("landmark_op")
def optimal_t(landmark_op: torch.Tensor, t_max: int = 100) -> int:
    """Diffusion time: the knee of the von Neumann entropy."""
    return knee(von_neumann_entropy(landmark_op, t_max))
