"""Linear probes: how well the labels can be read linearly from the states, at every epoch and time step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import InputError, check_number, warn_caller
from ..linalg.random import seeded_generator
from ..ops.chunks import row_chunks
from ..runtime.isolation import isolated
from ..stages import Callback
from ..trace import Trace, as_trace
from .probe_features import Features, permuted_within, stratified_folds
from .probe_fits import ClassFits, Evaluation, Fits, RealFits
from .progress import Advance, progress
from .result import Result, long_columns
from .sample_labels import SampleLabels, SliceGroup, sample_labels, slice_groups
from .seeds import drawn_seed

# Entries of the features of the fits that are solved together: 4 MiB, which a cache holds.
_CHUNK_ENTRIES = 2**19
# Equal scores are sums in different orders, and differ by rounding. Scores that differ by less are equal.
_TIE = 1e-12


@dataclass(frozen=True, eq=False, repr=False)
class LinearProbe(Result):
    """How well labels can be read from the states, NaN in slices with too few samples; made by `linear_probe`.

    Attributes
    ----------
    epoch, timestep : (E,), (T,) coordinates of the trace.
    score : (E, T) balanced accuracy of the classes, or R^2 of real targets, of held-out samples.
    cross_entropy : (E, T) mean of -log2 of the probability of the class of each sample, in bits; for real targets the
        mean squared error.
    low, high : (E, T) limits of a 95 % interval of the score.
    permuted_score, permuted_cross_entropy : (E, T) the same with permuted labels, mean over the permutations.
    p : (E, T) p-value of the score: (1 + the permuted scores that are as high) / (1 + their number), over all slices
        with the same number of samples.
    chance : score of a guess: 1 / classes, or 0.
    measure : "balanced accuracy" or "R2".
    n_skipped : number of slices with too few samples.
    settings : what was asked.
    """

    epoch: np.ndarray
    timestep: np.ndarray
    score: np.ndarray
    cross_entropy: np.ndarray
    low: np.ndarray
    high: np.ndarray
    permuted_score: np.ndarray
    permuted_cross_entropy: np.ndarray
    p: np.ndarray
    chance: float
    measure: str
    n_skipped: int
    settings: Mapping[str, Any]

    def _columns(self) -> dict[str, np.ndarray]:
        names = ("score", "cross_entropy", "low", "high", "permuted_score", "permuted_cross_entropy", "p")
        axes = {"epoch": self.epoch, "timestep": self.timestep}
        return long_columns(axes, **{name: getattr(self, name) for name in names})

    def _summary(self) -> str:
        if np.isnan(self.score).all():
            return f"{self.measure}: every slice has too few samples"
        at = np.unravel_index(np.nanargmax(self.score), self.score.shape)
        best = f"{self.score[at]:.2f} at epoch {self.epoch[at[0]]}, time step {self.timestep[at[1]]}"
        return f"best {self.measure} {best}; permuted {np.nanmean(self.permuted_score):.2f}, chance {self.chance:.2f}"


@isolated()
def linear_probe(
    trace: Any,
    labels: Any = None,
    *,
    folds: int = 5,
    C: float = 1.0,
    permutations: int = 1,
    target: str = "auto",
    random_state: int | None = None,
    verbose: int | bool = 0,
    callback: Callback | None = None,
) -> LinearProbe:
    """Cross-validated linear probe of the labels at every epoch and time step.

    The states (samples x units) of a slice are standardized by the training samples. For classes the probe is
    multinomial logistic regression with the objective of scikit-learn's `LogisticRegression(C=C)`; for real targets
    it is ridge regression with the objective of `Ridge(alpha=1 / C)`. Every sample is predicted once, by the fit
    whose training folds leave it out. Folds are stratified by class and are the same in all slices. The measure is
    standard; the intervals and the form of the permutations are this library's own.

    The interval of the balanced accuracy is Wilson's, for the number of samples with which a share has the same
    variance. The interval of R^2 is a bootstrap over the samples. Neither includes the variance of the training.

    Parameters
    ----------
    trace : anything `as_trace` accepts
        A slice uses the samples whose units are all present. A slice with fewer than two samples of a class, or with
        fewer samples than folds, is NaN and is counted in `n_skipped`.
    labels : (P,) integers, text, booleans or real numbers, optional
        By default those of the trace. Numbers with a fraction are real targets.
    folds : int
        Number of folds, 2 to P. A fold may lack a class that has fewer samples than there are folds.
    C : float
        Inverse strength of the penalty, as in scikit-learn.
    permutations : int
        Number of permutations of the labels in each slice. Labels are permuted within folds, so the folds stay
        stratified.
    target : {"auto", "classes", "real"}
        Whether labels are classes; "auto" decides by their dtype and fractions.
    random_state : int, optional
        Seed of the folds and the permutations.
    verbose : int or bool
        Whether to draw a progress bar on stderr.
    callback : callable(stage, done, total), optional
        Called after each group of slices.

    Returns
    -------
    LinearProbe

    Raises
    ------
    InputError, InputTypeError
        Labels that are missing, of another length, of one class, or with one sample of a class; more folds than
        samples; an option out of range.

    Notes
    -----
    The fits of many slices are solved together in float64 by L-BFGS, to a gradient of 1e-5. There are S folds
    (1 + permutations) fits of O(P M classes) time per iteration: about 1 ms each for 60 samples, 30 units and 6
    classes. The memory beside the trace is about 200 MiB, or 6 ``folds`` float64 copies of a slice if that is more.
    Deterministic with a seed.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> label = np.arange(40) % 2
    >>> states = rng.normal(size=(3, 2, 4, 40))
    >>> states[2, :, 0] += 4 * label  # the last epoch holds the label
    >>> probe = linear_probe(states, label, random_state=0)
    >>> probe.score[2].round(1).tolist()
    [1.0, 1.0]
    """
    trace, seed = as_trace(trace), drawn_seed(random_state)
    targets = sample_labels(trace, labels, target)
    settings = _checked(trace.n_samples, folds, C, permutations)
    probe = _Probe(targets, **settings, generator=seeded_generator(seed))
    scores = _Scores.empty(trace.n_slices, permutations, trace.data.device)
    with progress(trace.n_slices, verbose, callback, "linear probe") as advance:
        for group in slice_groups(trace):
            probe.fill(scores, group, advance)
    if probe.n_unsolved:
        warn_caller(f"{probe.n_unsolved} fits of the linear probe did not converge; a smaller C makes them easier")
    return _result(trace, probe, scores, settings | {"target": targets.target, "random_state": seed})


def _checked(n_samples: int, folds: int, C: float, permutations: int) -> dict[str, Any]:
    if check_number("folds", folds, low=2, integer=True) > n_samples:
        raise InputError(f"folds={folds} is more than the {n_samples} samples; accepted: 2 to {n_samples}")
    check_number("permutations", permutations, low=1, integer=True)
    return {"folds": folds, "C": check_number("C", C, low=0, open_low=True), "permutations": permutations}


@dataclass(frozen=True)
class _Scores:
    """The numbers of every slice, NaN where it has none."""

    score: torch.Tensor  # (S,)
    loss: torch.Tensor  # (S,)
    low: torch.Tensor  # (S,)
    high: torch.Tensor  # (S,)
    n_samples: torch.Tensor  # (S,)
    permuted: torch.Tensor  # (permutations, S) scores
    permuted_loss: torch.Tensor  # (permutations, S)

    @classmethod
    def empty(cls, n_slices: int, permutations: int, device: torch.device) -> _Scores:
        table = torch.full((5 + 2 * permutations, n_slices), torch.nan, dtype=torch.float64, device=device)
        score, loss, low, high, n_samples = table[:5]
        return cls(score, loss, low, high, n_samples, table[5 : 5 + permutations], table[5 + permutations :])


class _Probe:
    """Fits and judges the probes of one group of slices after another."""

    def __init__(
        self, targets: SampleLabels, folds: int, C: float, permutations: int, generator: torch.Generator
    ) -> None:
        real = targets.classes is None
        self.fits: Fits = RealFits(C, generator) if real else ClassFits(targets.n_classes, C)
        self.targets, self.n_folds, self.permutations, self.generator = targets, folds, permutations, generator
        self.fold_seed = int(torch.randint(2**62, (), generator=generator, device="cpu"))
        self.n_unsolved = 0

    def fill(self, scores: _Scores, group: SliceGroup, advance: Advance) -> None:
        """Write the scores of the slices of ``group``, if their samples are enough."""
        n_samples = len(group.samples)
        if n_samples < self.n_folds or not self.targets.are_enough(group.samples):
            advance(len(group.slices))
            return
        labels = self.targets.values[group.samples]
        # The same samples are always divided into the same folds.
        seeded = torch.Generator("cpu").manual_seed(self.fold_seed)
        folds = stratified_folds(self.targets.strata[group.samples], self.n_folds, seeded)
        width = self.n_folds * group.states[0].numel()
        for part in row_chunks(len(group.slices), width, _CHUNK_ENTRIES):
            features = self.fits.features(group.states[part], folds)
            self._fill_part(scores, group.slices[part], features, labels)
            advance(part.stop - part.start)

    def _fill_part(self, scores: _Scores, slices: torch.Tensor, features: Features, labels: torch.Tensor) -> None:
        true = self._evaluate(features, labels)
        scores.score[slices], scores.loss[slices], scores.n_samples[slices] = true.score, true.loss, len(labels)
        scores.low[slices], scores.high[slices] = self.fits.interval(true, labels)
        for i in range(self.permutations):
            permuted = permuted_within(features.folds, labels, len(slices), self.generator)
            result = self._evaluate(features, permuted)
            scores.permuted[i, slices], scores.permuted_loss[i, slices] = result.score, result.loss

    def _evaluate(self, features: Features, labels: torch.Tensor) -> Evaluation:
        result = self.fits.evaluate(features, labels)
        self.n_unsolved += result.n_unsolved
        return result


def _result(trace: Trace, probe: _Probe, scores: _Scores, settings: Mapping[str, Any]) -> LinearProbe:
    shape = trace.shape[:2]
    means = {"permuted_score": scores.permuted.mean(0), "permuted_cross_entropy": scores.permuted_loss.mean(0)}
    values = {"score": scores.score, "cross_entropy": scores.loss, "low": scores.low, "high": scores.high} | means
    values["p"] = _pooled_p(scores)
    return LinearProbe(
        epoch=trace.epoch,
        timestep=trace.timestep,
        **{name: array.reshape(shape).cpu().numpy() for name, array in values.items()},
        chance=probe.fits.chance,
        measure=probe.fits.measure,
        n_skipped=int(scores.score.isnan().sum()),
        settings=settings,
    )


def _pooled_p(scores: _Scores) -> torch.Tensor:  # (S,)
    """For each score, (1 + the number of permuted scores that reach it) / (1 + their number); NaN for NaN.

    Scores of fewer samples vary more, so the permuted scores are those of slices with the same number of samples.
    """
    p = torch.full_like(scores.score, torch.nan)
    for n in scores.n_samples[~scores.n_samples.isnan()].unique():
        alike = scores.n_samples == n
        pool = scores.permuted[:, alike].flatten().sort().values
        below = torch.searchsorted(pool, scores.score[alike] - _TIE)
        p[alike] = (1 + len(pool) - below).double() / (1 + len(pool))
    return p
