"""The label of every sample, and the slices of a trace by the samples that they have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from ..errors import InputError, InputTypeError, check_choice
from ..ops.chunks import row_chunks
from ..runtime.arrays import to_numpy
from ..trace import Trace
from ..trace.stored import ALL, BLOCK_ELEMENTS, blockwise

TARGETS = ("auto", "classes", "real")


@dataclass(frozen=True, eq=False)
class SampleLabels:
    """The label of every sample: one of several classes, or a real number."""

    values: torch.Tensor  # (P,) int64 number of the class, or float64
    classes: np.ndarray | None  # the labels of the classes in rising order; None for real targets

    @property
    def target(self) -> str:
        return "real" if self.classes is None else "classes"

    @property
    def strata(self) -> torch.Tensor:  # (P,) int64
        """The groups over which folds are stratified: the classes, or a single group."""
        return torch.zeros_like(self.values, dtype=torch.int64) if self.classes is None else self.values

    @property
    def n_classes(self) -> int:
        return 0 if self.classes is None else len(self.classes)

    def counts(self, samples: torch.Tensor) -> torch.Tensor:  # (classes,) int64
        """The number of ``samples`` in each class."""
        return torch.bincount(self.values[samples], minlength=self.n_classes)

    def are_enough(self, samples: torch.Tensor) -> bool:
        """Whether ``samples`` have two of every class, or two different real numbers."""
        if self.classes is None:
            return len(samples) > 1 and bool((self.values[samples] != self.values[samples[0]]).any())
        return int(self.counts(samples).min()) >= 2

    def entropy(self, samples: torch.Tensor) -> float:
        """Entropy of the frequencies of the classes, in bits."""
        shares = self.counts(samples).double() / len(samples)
        return float(torch.special.entr(shares).sum()) / np.log(2)


def sample_labels(trace: Trace, labels: Any, target: str = "auto") -> SampleLabels:
    """``labels``, or those of ``trace`` for None, as classes or as real numbers on the device of the trace.

    Floating-point numbers of which at least one has a fraction are real numbers, everything else is classes, unless
    ``target`` decides it. `InputError` refuses labels that are missing, not finite, of another length, or too few.
    """
    check_choice("target", target, TARGETS)
    if labels is None and trace.label is None:
        raise InputError("labels is None, and the trace has no label; accepted: one label per sample")
    values = to_numpy("labels", trace.label if labels is None else labels)
    if values.dtype == object and all(isinstance(value, str) for value in values.flat):
        values = values.astype(str)  # a column of text in pandas
    if values.shape != (trace.n_samples,):
        raise InputError(f"labels has shape {values.shape}; accepted: ({trace.n_samples},), one label per sample")
    if values.dtype.kind not in "biufU":
        raise InputTypeError(f"labels has dtype {values.dtype}; accepted: integers, real numbers, booleans or text")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError("labels has NaN or infinity; accepted: finite numbers, integers or text")
    make = _real_numbers if is_real(values, target) else _classes
    return make(values, trace.data.device)


def is_real(values: np.ndarray, target: str) -> bool:
    """Whether ``values`` are real numbers and no classes; ``target`` is "auto", "classes" or "real"."""
    fractions = values.dtype.kind == "f" and bool((values != np.trunc(values)).any())
    return target == "real" or (target == "auto" and fractions)


def _real_numbers(values: np.ndarray, device: torch.device) -> SampleLabels:
    if values.dtype.kind == "U":
        raise InputTypeError(f"labels has dtype {values.dtype}; accepted with target='real': real numbers")
    numbers = values.astype(np.float64)
    if (numbers == numbers[0]).all():
        raise InputError(f"labels is {numbers[0]:g} for every sample; accepted: at least two different numbers")
    largest = np.abs(numbers).max()
    if not 1e-100 <= largest <= 1e150:  # squares would vanish or overflow
        raise InputError(f"labels holds numbers up to {largest:g} in size; accepted: 1e-100 to 1e+150")
    return SampleLabels(torch.as_tensor(numbers, device=device), None)


def _classes(values: np.ndarray, device: torch.device) -> SampleLabels:
    classes, members, counts = np.unique(values, return_inverse=True, return_counts=True)
    if len(classes) == 1:
        raise InputError(f"labels has the one class {classes[0]}; accepted: at least two classes")
    if counts.min() < 2:
        rare = classes[counts.argmin()]
        hint = "" if values.dtype.kind == "U" else ", or target='real' for a regression"
        raise InputError(f"labels has one sample of class {rare}; accepted: at least two samples of every class{hint}")
    return SampleLabels(torch.as_tensor(members.ravel(), device=device), classes)


class SliceGroup(NamedTuple):
    """Slices that have the same samples."""

    slices: torch.Tensor  # (B,) int64
    samples: torch.Tensor  # (P,) int64: those of which every unit of these slices is present
    states: torch.Tensor  # (B, P, M) float64, of these samples


def slice_groups(trace: Trace) -> Iterator[SliceGroup]:
    """All slices of ``trace``, at most 32 MiB at a time. A file that has changed since is refused at the end."""
    sources = [blockwise(array) for array in (trace.data, trace.mask) if array is not None]
    for part in row_chunks(trace.n_slices, trace.n_units * trace.n_samples, BLOCK_ELEMENTS):
        states, *present = (source.block(part, ALL, ALL) for source in sources)  # (B, M, P)
        rows = torch.arange(part.start, part.stop, device=states.device)
        states = states.double().mT
        yield from (
            _by_presence(rows, states, present[0].all(1))
            if present
            else [SliceGroup(rows, torch.arange(trace.n_samples, device=states.device), states)]
        )
    for source in sources:
        source.check()


def _by_presence(
    rows: torch.Tensor, states: torch.Tensor, present: torch.Tensor
) -> Iterator[SliceGroup]:  # (B,), (B, P, M), (B, P)
    patterns, group = torch.unique(present, dim=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        members, samples = (group == number).nonzero()[:, 0], pattern.nonzero()[:, 0]
        yield SliceGroup(rows[members], samples, states[members][:, samples])
