"""How much information of the labels the states hold, in bits, at every epoch and time step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import InputError, InputTypeError, check_number
from ..linalg.random import seeded_generator
from ..ops.chunks import row_chunks
from ..runtime.isolation import isolated
from ..stages import Callback
from ..trace import Trace, as_trace
from ..trace.scale import power_of_two
from .label_neighbors import neighbor_information, without_ties
from .linear_probe import LinearProbe, linear_probe
from .progress import progress
from .result import Result, long_columns
from .sample_labels import SampleLabels, SliceGroup, sample_labels, slice_groups
from .seeds import drawn_seed
from .spectral_entropy import MOST_T, diffusion_spectral_entropy, median_distance

# Values of the point sets whose spectral entropy is computed together: 8 MiB.
_CHUNK_VALUES = 2**20
_MEAN = ("mean", "permuted_mean", "permuted_low", "permuted_high")
_DSMI = ("dsmi", "permuted_dsmi", "permuted_dsmi_low", "permuted_dsmi_high")


@dataclass(frozen=True, eq=False, repr=False)
class LabelInformation(Result):
    """Information of the states on the labels in bits, NaN in slices with too few samples; made by `label_information`.

    Attributes
    ----------
    epoch, timestep, unit : (E,), (T,), (M,) coordinates of the trace.
    per_unit : (E, T, M) information of each unit and the label; a negative value is an estimate of about 0.
    mean : (E, T) mean of `per_unit` over the units.
    permuted_mean, permuted_low, permuted_high : (E, T) the mean of `mean` over permutations of the labels, and its
        quantiles of 2.5 % and 97.5 %.
    bound : (E, T) lower bound of the information of the whole state: the entropy of the label minus the cross-entropy
        of the probe. It is negative where the probe is worse than the frequencies of the classes.
    permuted_bound : (E, T) the same with permuted labels.
    dsmi : (E, T) spectral entropy of all samples minus its mean over the classes.
    permuted_dsmi, permuted_dsmi_low, permuted_dsmi_high : (E, T) the same with permuted labels.
    label_entropy : entropy of the label, the most that a state can hold.
    n_skipped : number of slices with too few samples.
    settings : what was asked.
    """

    epoch: np.ndarray
    timestep: np.ndarray
    unit: np.ndarray
    per_unit: np.ndarray
    mean: np.ndarray
    permuted_mean: np.ndarray
    permuted_low: np.ndarray
    permuted_high: np.ndarray
    bound: np.ndarray
    permuted_bound: np.ndarray
    dsmi: np.ndarray
    permuted_dsmi: np.ndarray
    permuted_dsmi_low: np.ndarray
    permuted_dsmi_high: np.ndarray
    label_entropy: float
    n_skipped: int
    settings: Mapping[str, Any]

    def _columns(self) -> dict[str, np.ndarray]:
        axes = {"epoch": self.epoch, "timestep": self.timestep}
        names = (*_MEAN, "bound", "permuted_bound", *_DSMI)
        return long_columns(axes, **{name: getattr(self, name) for name in names})

    def _summary(self) -> str:
        if np.isnan(self.mean).all():
            return "every slice has too few samples"
        mean, permuted = (round(np.nanmean(values), 2) + 0.0 for values in (self.mean, self.permuted_mean))  # not -0.0
        unit = f"a unit {mean:.2f} bits, permuted {permuted:.2f}"
        if np.isnan(self.bound).all():
            return f"every slice has too few samples for the probe; {unit}"
        at = np.unravel_index(np.nanargmax(self.bound), self.bound.shape)
        where = f"at epoch {self.epoch[at[0]]}, time step {self.timestep[at[1]]}"
        return f"whole state at least {self.bound[at]:.2f} of {self.label_entropy:.2f} bits {where}; {unit}"


@isolated()
def label_information(
    trace: Any,
    labels: Any = None,
    *,
    k: int = 3,
    permutations: int = 20,
    t: int | None = 1,
    probe: LinearProbe | None = None,
    random_state: int | None = None,
    verbose: int | bool = 0,
    callback: Callback | None = None,
) -> LabelInformation:
    """Mutual information of the states and the class of the sample, at every epoch and time step, three ways.

    *Per unit*: the estimator of Ross (2014), which scikit-learn's `mutual_info_classif` uses too. Negative estimates
    are kept, so that the mean of a unit without information is 0. A unit that is constant in a slice has 0.
    With k = 3, estimates for units with information are too high on average: by up to 0.06 bits for 2 classes of 20
    samples, by up to 0.13 bits for 10 classes of 10, and by less with more samples. So an estimate may exceed the
    entropy of the label.

    *Whole state*: the entropy of the label minus the cross-entropy of a linear probe, which is a lower bound. It says
    how much a linear probe can read; a state may hold more. An overconfident probe makes the bound too low.

    *DSMI* (published, arXiv 2312.04823): the spectral entropy of all samples minus its mean over the classes, weighted
    by their frequencies. Both entropies use one bandwidth, the median distance of all samples of the slice; this choice
    is this library's own. The entropy of n samples is at most log n. So the difference is positive without any
    information, and larger for smaller classes. Compare it with that of permuted labels, whose classes have the same
    sizes.

    The comparison with permuted labels is this library's own.

    Parameters
    ----------
    trace : anything `as_trace` accepts
        A slice uses the samples whose units are all present. A slice with fewer than two samples of a class is NaN
        and is counted in `n_skipped`.
    labels : (P,) integers, text, booleans or whole numbers, optional
        By default those of the trace.
    k : int
        Number of neighbors of the estimator per unit, at least 1.
    permutations : int
        Number of permutations of the labels, for `mean` and `dsmi`. With 20, the interval spans nearly all of them.
    t : int, optional
        Diffusion time of the spectral entropy, at least 1. None leaves out DSMI, whose arrays are then NaN.
    probe : LinearProbe, optional
        The probe of the same trace and labels. By default ``linear_probe(trace, labels)`` runs with this seed.
    random_state : int, optional
        Seed of the permutations, of the noise of 1e-10 that breaks ties, and of the probe.
    verbose : int or bool
        Whether to draw a progress bar on stderr.
    callback : callable(stage, done, total), optional
        Called after each group of slices.

    Returns
    -------
    LabelInformation

    Raises
    ------
    InputError, InputTypeError
        Labels that are missing, real numbers, of another length, of one class, or with one sample of a class; a probe
        of another trace or of real targets; an option out of range.

    Notes
    -----
    Per permutation O(S M P (k + log P)) time for the units. DSMI takes O(S P^3) time, and O(S n^3) for every class of n
    samples and every permutation: leave it out with thousands of samples. The memory beside the trace is about
    200 MiB, or that of the probe. Deterministic with a seed.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> label = np.arange(60) % 2
    >>> states = rng.normal(size=(2, 1, 3, 60))
    >>> states[1] += 5 * label  # the last epoch holds the label, which has 1 bit
    >>> label_information(states, label, random_state=0).mean[1].round(1).tolist()
    [1.0]
    """
    trace, seed = as_trace(trace), drawn_seed(random_state)
    classes = _checked_labels(trace, labels)
    settings: dict[str, Any] = {
        "k": int(check_number("k", k, low=1, integer=True)),
        "t": None if t is None else int(check_number("t", t, low=1, high=MOST_T, integer=True)),
        "permutations": int(check_number("permutations", permutations, low=1, integer=True)),
    }
    if probe is None:
        probe = linear_probe(trace, labels, random_state=seed, verbose=verbose, callback=callback)
    _check_probe(probe, trace, classes)
    measures = _Measures(trace, classes, seeded_generator(seed), **settings)
    with progress(trace.n_slices, verbose, callback, "label information") as advance:
        for group in slice_groups(trace):
            measures.fill(group)
            advance(len(group.slices))
    return measures.result(trace, probe, settings | {"random_state": seed})


def _checked_labels(trace: Trace, labels: Any) -> SampleLabels:
    classes = sample_labels(trace, labels)
    if classes.classes is None:
        raise InputError("labels has numbers with a fraction; accepted: classes, one per sample")
    return classes


def _check_probe(probe: Any, trace: Trace, classes: SampleLabels) -> None:
    if not isinstance(probe, LinearProbe):
        raise InputTypeError(f"probe is a {type(probe).__name__}; accepted: what linear_probe returns")
    wanted = (
        f"the probe of these classes on this trace, of shape {trace.shape[:2]} and chance {1 / classes.n_classes:g}"
    )
    if probe.score.shape != trace.shape[:2] or probe.chance != 1 / classes.n_classes:
        text = f"shape {probe.score.shape} and chance {probe.chance:g}"
        raise InputError(f"probe has {text}; accepted: {wanted}")


class _Measures:
    """The numbers of every slice, NaN where it has none. Row 0 is of the true labels, the others of permuted ones."""

    def __init__(
        self, trace: Trace, labels: SampleLabels, generator: torch.Generator, k: int, t: int | None, permutations: int
    ) -> None:
        self.labels, self.generator, self.k, self.t, self.permutations = labels, generator, k, t, permutations
        empty = torch.full((permutations + 1, trace.n_slices), torch.nan, dtype=torch.float64, device=trace.data.device)
        self.mean, self.dsmi, self.entropy = empty, empty.clone(), empty[0].clone()
        self.per_unit = empty.new_full((trace.n_slices, trace.n_units), torch.nan)
        self.label_entropy = labels.entropy(torch.arange(trace.n_samples, device=empty.device))

    def fill(self, group: SliceGroup) -> None:
        """Write the numbers of the slices of ``group``, if their samples are enough."""
        if not self.labels.are_enough(group.samples):
            return
        labelings = self._labelings(self.labels.values[group.samples])
        self.entropy[group.slices] = self.labels.entropy(group.samples)
        units = group.states.mT  # (B, M, P)
        for part in row_chunks(len(units), units[0].numel(), _CHUNK_VALUES):
            values = without_ties(units[part].flatten(0, 1), self.generator)
            information = neighbor_information(values, labelings, self.k).unflatten(1, (-1, units.shape[1]))
            self.per_unit[group.slices[part]] = information[0]
            self.mean[:, group.slices[part]] = information.mean(-1)
            if self.t is not None:
                self.dsmi[:, group.slices[part]] = spectral_information(group.states[part], labelings, self.t)

    def _labelings(self, labels: torch.Tensor) -> torch.Tensor:  # (permutations + 1, P)
        keys = torch.rand(self.permutations, len(labels), generator=self.generator, dtype=torch.float64, device="cpu")
        return torch.cat([labels[None], labels[keys.argsort(1).to(labels.device)]])

    def result(self, trace: Trace, probe: LinearProbe, settings: Mapping[str, Any]) -> LabelInformation:
        entropy = self._by_step(self.entropy, trace)
        arrays = {"per_unit": self.per_unit}
        arrays |= _beside_permuted(self.mean, _MEAN) | _beside_permuted(self.dsmi, _DSMI)
        return LabelInformation(
            epoch=trace.epoch,
            timestep=trace.timestep,
            unit=trace.unit,
            **{name: self._by_step(values, trace) for name, values in arrays.items()},
            bound=entropy - probe.cross_entropy,
            permuted_bound=entropy - probe.permuted_cross_entropy,
            label_entropy=self.label_entropy,
            n_skipped=int(self.entropy.isnan().sum()),
            settings=settings,
        )

    @staticmethod
    def _by_step(values: torch.Tensor, trace: Trace) -> np.ndarray:  # (S, ...) -> (E, T, ...)
        return values.unflatten(0, trace.shape[:2]).cpu().numpy()


def _beside_permuted(table: torch.Tensor, names: Sequence[str]) -> dict[str, torch.Tensor]:  # (B, S)
    """The first row of ``table``, and the mean and the quantiles of the other rows, under these four names."""
    quantiles = torch.tensor([0.025, 0.975], dtype=torch.float64, device=table.device)
    return dict(zip(names, (table[0], table[1:].mean(0), *table[1:].quantile(quantiles, 0)), strict=True))


def spectral_information(states: torch.Tensor, labelings: torch.Tensor, t: int) -> torch.Tensor:
    """Spectral entropy of all samples minus the weighted mean of those of the classes, in bits.

    ``states`` is (B, P, M) and ``labelings`` is (B', P), with the same class sizes in each; the result is (B', B).
    """
    n_labelings, n_samples = labelings.shape
    states = states * power_of_two(states.abs().amax((1, 2), keepdim=True))  # no entropy depends on the scale
    widths = median_distance(states)
    total = diffusion_spectral_entropy(states, t, bandwidth=widths).repeat(n_labelings, 1)
    for number in range(int(labelings.max()) + 1):
        members = (labelings == number).nonzero()[:, 1].view(n_labelings, -1)
        for row, samples in enumerate(members):
            entropy = diffusion_spectral_entropy(states[:, samples], t, bandwidth=widths)
            total[row] -= len(samples) / n_samples * entropy
    return total
