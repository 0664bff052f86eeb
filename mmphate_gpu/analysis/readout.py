"""Compare what a model returns with labels: loss and accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from ..errors import InputError, InputTypeError, check_choice
from ..record.axes import described
from ..record.values import first_tensor
from ..runtime.arrays import to_numpy
from .sample_labels import TARGETS, is_real

_OUTPUT = "or output= with a function of what the model returns"


class Performance(NamedTuple):
    """How well a model does on all samples."""

    loss: float
    accuracy: float  # NaN for real targets


class Readout:
    """The labels of P samples, and how the model's outputs are compared with them.

    The labels are classes, or real targets if ``target`` says so or one of them has a fraction. The model's outputs for
    classes are one logit a class, or a single logit for the second of two classes.
    """

    def __init__(
        self, labels: Any, target: str, loss: Callable[..., Any] | None, output: Callable[[Any], Any] | None
    ) -> None:
        check_choice("target", target, TARGETS)
        for name, function in (("loss", loss), ("output", output)):
            if function is not None and not callable(function):
                raise InputTypeError(f"{name}={function!r} is no function; accepted: a function, or None")
        self._labels = _checked(to_numpy("labels", labels), target)
        self._loss, self._output = loss, first_tensor if output is None else output

    @property
    def is_of_classes(self) -> bool:
        """Whether the labels are classes."""
        return not self._labels.is_floating_point()

    @property
    def loss_name(self) -> str:
        """What the loss is, for the settings of a result."""
        if self._loss is not None:
            return getattr(self._loss, "__qualname__", type(self._loss).__qualname__)
        return "cross-entropy (nats)" if self.is_of_classes else "mean squared error"

    def check_samples(self, n_samples: int) -> None:
        """Refuse another number of labels than of samples."""
        if len(self._labels) != n_samples:
            raise InputError(
                f"labels has {len(self._labels)} values; accepted: one for each of the probe's {n_samples} samples"
            )

    def performance(self, outputs: Sequence[torch.Tensor]) -> Performance:
        """The mean loss and the accuracy of what `read` returned for each batch."""
        values = torch.cat(list(outputs))
        labels = self._labels.to(values.device)
        if not self.is_of_classes:
            return Performance(self._mean_loss(self._fitting(values), labels), float("nan"))
        logits = self._logits(values)
        accuracy = (logits.argmax(1) == labels).double().mean()
        return Performance(self._mean_loss(logits, labels), float(accuracy))

    def read(self, output: Any) -> torch.Tensor:
        """The tensor with the logits or predictions in what the model returns."""
        value = self._output(output)
        if not isinstance(value, torch.Tensor):
            raise InputTypeError(f"the model's output is {described(value)}; accepted: a tensor, {_OUTPUT}")
        if value.ndim == 0:
            raise InputError(f"the model's output is a single number; accepted: a row for each sample, {_OUTPUT}")
        return value

    def _logits(self, values: torch.Tensor) -> torch.Tensor:  # (P, classes)
        n_classes = int(self._labels.max()) + 1
        if values.ndim == 1 or values.shape[1:] == (1,):  # the log-odds of the second class
            values = torch.stack([torch.zeros_like(values), values], 1).flatten(1)
        if values.ndim != 2 or len(values) != len(self._labels) or values.shape[1] < n_classes:
            raise InputError(
                f"the model's output has shape {tuple(values.shape)}; accepted: logits ({len(self._labels)}, n_classes)"
                f" of at least {n_classes} classes, {_OUTPUT}"
            )
        return values

    def _fitting(self, values: torch.Tensor) -> torch.Tensor:
        if values.numel() != self._labels.numel():
            raise InputError(
                f"the model's output has shape {tuple(values.shape)}; accepted: {tuple(self._labels.shape)}, as "
                f"labels, {_OUTPUT}"
            )
        return values.reshape(self._labels.shape)

    def _mean_loss(self, values: torch.Tensor, labels: torch.Tensor) -> float:
        if self._loss is not None:
            return float(torch.as_tensor(self._loss(values, labels), device=values.device).double().mean())
        loss: Any = F.cross_entropy if self.is_of_classes else F.mse_loss
        return float(loss(values.double(), labels))


def _checked(labels: np.ndarray, target: str) -> torch.Tensor:  # (P,) int64, or (P, ...) float64
    text = f"labels has shape {labels.shape} and dtype {labels.dtype}"
    if not labels.size or labels.ndim == 0 or labels.dtype.kind not in "biuf":
        raise InputError(f"{text}; accepted: one integer (the class) or one real number for each sample")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise InputError("labels has NaN or infinity; accepted: finite numbers")
    if is_real(labels, target):
        return torch.from_numpy(labels.astype(np.float64))
    classes = labels.astype(np.int64)
    if labels.ndim != 1 or classes.min() < 0 or (classes != labels).any():
        raise InputError(
            f"{text}, and the smallest is {labels.min()}; accepted: one class for each sample, 0 to n_classes - 1, "
            "numbered as the model's outputs"
        )
    return torch.from_numpy(classes)
