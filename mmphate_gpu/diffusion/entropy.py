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
from ..runtime.isolation import isolated
from ..runtime.memory import available_bytes
from .knee import KNEE_TIE, knee, knee_errors
from .power import check_square
from .time_range import time_range

# Components of up to this many landmarks get their singular values from a plain SVD. Larger ones get them from the Gram
# matrix, which is several times faster. Its error is bounded; if the error could change t, the plain SVD decides. The
# limit for CUDA is low, because there the SVD of more than 32 rows is a loop of Jacobi sweeps.
SVD_UP_TO = {"cpu": 1000, "cuda": 32}
# Bound of the error in the eigenvalues of the float64 Gram matrix, relative to the largest eigenvalue. Measured errors
# are 5e-15 at 1200 rows and 8e-15 at 2400, and grow with the square root of the number of rows.
GRAM_ERROR = 1e-13
# The number that is added to the weights (step 9 of docs/method.md).
ENTROPY_FLOOR = torch.finfo(torch.float64).eps
# Singular values that should be 0 are computed as this many float64 epsilons of the largest one, at most, in the mean.
# Measured for equal entries in 50 to 1000 rows: 1.2 to 1.3, or far less, depending on the processor.
ZERO_ROUNDING = 4
# Components of more landmarks than this have their singular values sampled. The time of the Gram matrix and its
# eigenvalues grows with the cube of the number of landmarks, the time of a sample with the square. On a GPU a sample
# runs near the peak rate, because it multiplies matrices, and eigenvalues of a few thousand rows are slow. The limit
# for CUDA is an estimate, not measured.
SAMPLE_ABOVE = {"cpu": 8000, "cuda": 1500}
# Probes of the sample, round by round, until the knee is certain. If it stays uncertain, all singular values are
# computed, if they fit in memory.
PROBES = (32, 64)
# Groups of probes; the jackknife leaves out one group at a time.
N_GROUPS = 32
# Standard errors in the margin: with this many groups, one error in 2700 is larger.
N_ERRORS = 4


def _limit(by_device: dict[str, int], device: torch.device) -> int:
    """The limit for ``device``; a device that is not listed has the CPU's."""
    return by_device.get(device.type, by_device["cpu"])


@dataclass(frozen=True, eq=False)
class EntropyEstimate:
    """A von Neumann entropy with its error, its knee ``t``, and the error bar ``t_low`` to ``t_high`` of the knee.

    The bar holds the knees that other landmarks of the same nodes could give (docs/method.md, step 9), and the breaks
    ``possible``.
    """

    entropy: torch.Tensor  # (t_max,) float64
    error: torch.Tensor  # (t_max,) float64, the error of sampling; 0 if nothing was sampled
    possible: tuple[int, int]  # the first and the last break that could be the knee; equal if nothing was sampled
    t: int
    t_low: int
    t_high: int

    @classmethod
    def of(
        cls,
        entropy: torch.Tensor,  # (t_max,)
        values: torch.Tensor,  # (n,)
        counts: torch.Tensor,  # (n,)
        largest: torch.Tensor,  # ()
        error: torch.Tensor | None = None,  # (t_max,)
        possible: tuple[int, int] | None = None,
    ) -> EntropyEstimate:
        """The estimate of a curve of singular ``values`` with ``counts``. ``largest`` is the largest eigenvalue."""
        t = knee(entropy)
        possible = (t, t) if possible is None else possible
        low, high = time_range(t, entropy, values, counts, largest)
        error = torch.zeros_like(entropy) if error is None else error
        return cls(entropy, error, possible, t, min(low, possible[0]), max(high, possible[1]))

    @property
    def is_certain(self) -> bool:
        """Whether the sample leaves one knee."""
        return self.possible[0] == self.possible[1]


def _singular_value_bounds(
    matrix: torch.Tensor, groups: Components
) -> tuple[torch.Tensor, torch.Tensor]:  # 2 x (L,) float64
    """Lower and upper bounds of the singular values, component by component; equal bounds come from the plain SVD."""
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
) -> torch.Tensor:  # (L,) or (g, L) -> (t_max,) or (g, t_max) float64
    """H(i) = -sum w ln w with w = s^(i+1) / sum s^(i+1), plus the float64 epsilon, for i = 0 .. t_max - 1.

    w does not depend on the scale of s. s is first divided by its largest value, so that no power overflows.
    ``counts`` (g, L) is how often each of the values (L,) occurs. Each of its rows gives a curve: (g, t_max).
    """
    values = values / values.amax(-1, keepdim=True)
    n_curves = max(values.numel(), 0 if counts is None else counts.numel()) // values.shape[-1]
    powers, entropy = torch.ones_like(values[..., None, :]), []
    # About five temporaries of this size are in memory at once.
    for part in row_chunks(t_max, n_curves * values.shape[-1], chunk_elements(values.device) // 4):
        # The powers of this part, row by row. The first row continues from the last power of the part before.
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

    Singular values that should be 0 are computed as a few roundings (`ZERO_ROUNDING`), whose powers vanish. If all
    other singular values are equal, nothing else changes the curve, and this change would be mistaken for the knee.
    """
    start = entropy[..., :1]
    rounding = -math.log(ENTROPY_FLOOR) * ENTROPY_FLOOR * n_values * ZERO_ROUNDING
    return torch.where((entropy - start).abs().amax(-1, keepdim=True) <= rounding, start, entropy)


@takes_arrays("landmark_op")
def von_neumann_entropy(landmark_op: torch.Tensor, t_max: int = 100) -> torch.Tensor:  # (L, L) -> (t_max,) float64
    """Entropy, in nats, of the singular values s of landmark_op, raised to the powers 1 .. t_max.

    H(i) = -sum w ln w with w = s^(i+1) / sum s^(i+1), plus the float64 epsilon, for i = 0 .. t_max - 1. landmark_op is
    not symmetric, so its singular values differ from its eigenvalues.

    Parameters
    ----------
    landmark_op : (L, L)
    t_max : int
        Length of the curve.

    Returns
    -------
    (t_max,) float64, in the array type of landmark_op

    Raises
    ------
    InputError
        landmark_op is not square or finite, or contains only zeros; t_max is not an integer from 4 to 100,000.

    Warns
    -----
    RuntimeWarning
        If the sample leaves several values of `optimal_t` possible and the exact singular values do not fit in memory.

    Notes
    -----
    The singular values are computed for every connected component. A component of more than 1000 landmarks (on CUDA 32)
    uses the float64 Gram matrix, if the error bound proves that `optimal_t` is that of the SVD. A component of more
    than 8000 (on CUDA 1500) is sampled, if the error estimate leaves only one `optimal_t` (`entropy_with_error`).

    A component takes O(L^3) time, a sampled component O(6500 L^2). O(L^2) memory. Deterministic for the same device,
    dtype and thread count, because the seed of the sample is fixed.
    """
    return entropy_of_components(landmark_op, None, t_max).entropy


def entropy_of_components(landmark_op: torch.Tensor, groups: Components | None, t_max: int) -> EntropyEstimate:
    """`von_neumann_entropy` of an operator whose `components` are ``groups``, with its knee; None computes them."""
    estimate = _entropy_with_error(landmark_op, groups, t_max)
    if not estimate.is_certain:
        low, high = estimate.possible
        warnings.warn(
            f"the diffusion time of {landmark_op.shape[0]:,} landmarks is only known to lie between {low} and {high}: "
            "the singular values are sampled, because all of them do not fit in memory. To avoid this, use a smaller "
            "n_landmark or set t to a number",
            RuntimeWarning,
            stacklevel=4,
        )
    return estimate


@takes_arrays("landmark_op")
def entropy_with_error(landmark_op: torch.Tensor, t_max: int = 100) -> EntropyEstimate:  # (L, L)
    """`von_neumann_entropy` of (L, L) with its error, its knee, and the error bar of the knee.

    The bar takes milliseconds. It assumes that the rows of landmark_op have equal sums. Components of up to 8000
    landmarks (on CUDA 1500) are not sampled: ``error`` is 0, and one break is ``possible``. Larger components are
    sampled by stochastic Lanczos quadrature. Then ``error`` is four standard errors over the probes (jackknife), plus
    twice the change by the last quarter of the Lanczos steps, plus rounding. A break is ``possible`` if its two lines
    fit as well as those of the best break, within the error of the difference. Probes are added until one break is
    left. If several stay and all singular values fit in memory, all are computed. Deterministic for the same device,
    dtype and thread count, because the seed is fixed.
    Source: Ubaru, Chen & Saad, "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature", 2017.
    """
    return _entropy_with_error(landmark_op, None, t_max)


def _entropy_with_error(landmark_op: torch.Tensor, groups: Components | None, t_max: int) -> EntropyEstimate:
    check_t_max(t_max)
    check_square(landmark_op)
    if not bool(landmark_op.any()):
        raise InputError("landmark_op contains only zeros; accepted: a matrix with an entry that is not 0")
    scale = safe_scale(landmark_op)  # the entropy does not depend on the scale
    matrix = landmark_op.double() if scale == 1 else landmark_op.double() * scale
    groups = components(matrix) if groups is None else groups
    if max(members.shape[1] for members in groups) > _limit(SAMPLE_ABOVE, matrix.device):
        estimate = _sampled(matrix, groups, t_max)
        if estimate.is_certain or not _exact_fits(groups, matrix.device):
            return estimate
    entropy, values = _exact(matrix, groups, t_max)
    return EntropyEstimate.of(entropy, values, torch.ones_like(values), _largest(matrix))


def _largest(matrix: torch.Tensor) -> torch.Tensor:  # (L, L) -> ()
    """The largest eigenvalue of a nonnegative matrix whose rows have equal sums; of another, a bound of it."""
    return matrix.sum(1).max()


def _exact_fits(groups: Components, device: torch.device) -> bool:
    """Whether `_exact` fits in memory.

    It holds all components of one size, and either their SVD, which takes as much again, or the Gram matrix of one
    component with its eigenvalues.
    """
    needed = max((2 * members.shape[0] + 1) * 8 * members.shape[1] ** 2 for members in groups)
    return needed <= available_bytes(device)


def _exact(matrix: torch.Tensor, groups: Components, t_max: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The curve (t_max,) and the singular values (L,)."""
    low, high = _singular_value_bounds(matrix, groups)
    values = (low + high) / 2
    entropy = entropy_of_singular_values(values, t_max)
    if torch.equal(low, high) or _certain(entropy, low, high):
        return entropy, values
    # The default on CUDA, cuSOLVER's Jacobi method, is expected to take tens of seconds for a few thousand rows.
    driver = "gesvd" if matrix.is_cuda else None
    parts = [torch.linalg.svdvals(diagonal_blocks(matrix, members), driver=driver).flatten() for members in groups]
    values = torch.cat(parts)
    return entropy_of_singular_values(values, t_max), values


def _sampled(matrix: torch.Tensor, groups: Components, t_max: int) -> EntropyEstimate:
    """The entropy with sampled large components. Probes are added until the knee is certain or `PROBES` ends."""
    known, samples = _known_and_samples(matrix, groups)
    for n_probes in PROBES:
        for sample in samples:
            sample.draw(n_probes)
        estimate = _estimate(known, samples, t_max, _largest(matrix))
        if estimate.is_certain:
            break
    return estimate


def _known_and_samples(matrix: torch.Tensor, groups: Components) -> tuple[torch.Tensor, list[SingularValueSample]]:
    """The singular values of the small components, and a sample without probes for each large one."""
    most = _limit(SAMPLE_ABOVE, matrix.device)
    small = [members for members in groups if members.shape[1] <= most]
    known = torch.stack(_singular_value_bounds(matrix, small)).mean(0) if small else matrix.new_empty(0)
    large = [block for members in groups if members.shape[1] > most for block in diagonal_blocks(matrix, members)]
    return known, [SingularValueSample(block, random_state=seed) for seed, block in enumerate(large)]


@isolated()
def leading_singular_values(landmark_op: torch.Tensor, groups: Components) -> torch.Tensor:  # (L, L) -> (n,) float64
    """The singular values of an operator whose components are ``groups``, the largest first.

    n is L, unless a component is so large that `von_neumann_entropy` samples its values: of such a component only
    the leading ones are computed, at most 200. Values below 3e-7 of the largest may be rounding. O(L^3) time, for a
    sampled component O(2200 L^2). Deterministic as the entropy is.
    """
    known, samples = _known_and_samples(landmark_op.double(), groups)
    return torch.cat([known, *(sample.leading.sqrt() for sample in samples)]).sort(descending=True).values


def _estimate(
    known: torch.Tensor, samples: list[SingularValueSample], t_max: int, largest: torch.Tensor
) -> EntropyEstimate:
    n_probes = samples[0].n_probes
    all_probes = known.new_full((1, n_probes), 1 / n_probes)
    left_out = torch.eye(N_GROUPS, dtype=known.dtype, device=known.device).repeat(1, n_probes // N_GROUPS)
    without_group = (1 - left_out) / (1 - left_out).sum(1, keepdim=True)
    values, counts = _measured(known, samples, torch.cat([all_probes, without_group]))
    curves = entropy_of_singular_values(values, t_max, counts)
    coarse_values, coarse_counts = _measured(known, samples, all_probes, coarse=True)
    coarse = entropy_of_singular_values(coarse_values, t_max, coarse_counts)
    errors, coarse_errors = knee_errors(curves.cpu()), knee_errors(coarse.cpu())
    best = int(errors[0].argmin())
    excess, coarse_excess = (e - e[:, best : best + 1] for e in (errors, coarse_errors))
    rounding = KNEE_TIE * float(curves[0].abs().max())
    breaks = 1 + torch.nonzero(excess[0] <= _margin(excess, coarse_excess) + rounding).flatten()
    error, possible = _margin(curves, coarse) + rounding, (int(breaks[0]), int(breaks[-1]))
    return EntropyEstimate.of(curves[0], values, counts[0], largest, error, possible)


def _measured(
    known: torch.Tensor, samples: list[SingularValueSample], shares: torch.Tensor, coarse: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:  # (q,), (g, q)
    """The ``known`` singular values and the samples, with counts for every row of ``shares`` (g, n_probes)."""
    measures = [sample.measure(shares, coarse=coarse) for sample in samples]
    values = torch.cat([known, *(values for values, _ in measures)])
    counts = torch.cat([known.new_ones(len(shares), len(known)), *(counts for _, counts in measures)], 1)
    return values, counts


def _margin(curves: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:  # (1 + N_GROUPS, n), (1, n) -> (n,)
    """The error of the first row. Every other row leaves out a group of probes; ``coarse`` leaves out Lanczos steps."""
    standard_error = (N_GROUPS - 1) ** 0.5 * curves[1:].std(0, correction=0)
    return N_ERRORS * standard_error + 2 * (coarse[0] - curves[0]).abs()


def _certain(entropy: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> bool:
    """Whether all singular values within the bounds have the same knee."""
    bounds = entropy_of_singular_values(torch.stack([low, high]), entropy.numel())
    # An error e in H changes the absolute residuals of one line by less than 3 sum |e|, the residuals of a line fit to
    # e. Some points belong to both lines of a break, so the sum of a break changes by less than 6 sum |e|, and the
    # difference of two breaks by less than 12 sum |e|. The curvature of H between the bounds is of second order.
    shift = 12 * (bounds - entropy).abs().amax(0).sum()
    best, second = torch.topk(knee_errors(entropy.cpu()), 2, largest=False).values
    return bool(second - best > shift + 2 * KNEE_TIE * entropy.abs().max())


@takes_arrays("landmark_op")
def optimal_t(landmark_op: torch.Tensor, t_max: int = 100) -> int:
    """Diffusion time of (L, L): the knee of `von_neumann_entropy`, whose errors, warnings and cost it has."""
    return knee(von_neumann_entropy(landmark_op, t_max))
