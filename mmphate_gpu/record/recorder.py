"""`Recorder`: the hidden states of a recurrent layer on a fixed probe, one snapshot per epoch."""

from __future__ import annotations

import contextlib
import math
import numbers
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from .._trace_input import as_label
from ..params import InputError, InputTypeError
from ..trace import Trace
from .store import FolderStore, MemoryStore


class Recorder:
    """Records the output sequence of a layer on ``probe``, without a trace in the training itself.

    Each `snapshot` runs the model once on the probe, in evaluation mode and without gradients; the
    training flag of every module and the random state of torch (CPU, and CUDA where in use) are then
    as they were, so that training goes on to the same bits. No hook stays on the model in between.

    Parameters
    ----------
    model : torch.nn.Module.
    layer : dotted name within ``model`` of an RNN, LSTM or GRU (any layers and directions: the last
        layer's hidden states of all directions are the units); "" is the model itself. Any other
        module that returns (batch, timestep, unit) once per forward is accepted with ``batch_first``.
    probe : the model's input, a tensor or a tuple of positional arguments; held, not copied.
    label : (S,) integer class of each probe sample.
    path : folder, new or empty, where each snapshot is written as it is taken instead of being kept in
        memory; `load_trace` reads it, also after a crash.
    batch_first : for layers other than RNN, LSTM and GRU: whether the batch axis precedes the timesteps.

    Raises
    ------
    InputError, InputTypeError
        The message names the argument; a layer that is missing comes with those there are.

    Examples
    --------
    >>> model = nn.Sequential(nn.GRU(2, 3))
    >>> with Recorder(model, "0", probe=torch.zeros(5, 4, 2)) as rec:
    ...     for epoch in range(2):
    ...         rec.snapshot(epoch)  # after an epoch of training
    >>> rec.trace()
    Trace(epoch: 2, timestep: 5, unit: 3, sample: 4; float32 on cpu)
    """

    def __init__(
        self,
        model: nn.Module,
        layer: str,
        *,
        probe: Any,
        label: Any = None,
        path: str | os.PathLike[str] | None = None,
        batch_first: bool | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise InputTypeError(f"model is a {type(model).__name__}; accepted: a torch.nn.Module")
        self._model, self._name = model, layer
        self._layer = _find_layer(model, layer)
        self._batch_first = _batch_first(self._layer, layer, batch_first)
        # A PackedSequence is a tuple too, and yet one argument.
        self._args = probe if type(probe) is tuple else (probe,)
        self._label = as_label(label)
        self._store = MemoryStore() if path is None else FolderStore(path, layer)
        self._epochs: list[float] = []
        self._shape: tuple[int, ...] = ()
        self._mask: np.ndarray | None = None
        self._active = False

    def __enter__(self) -> Recorder:
        if self._active:
            raise InputError("the recorder is already open; leave its with-block before entering it again")
        self._store.open()
        self._active = True
        return self

    def __exit__(self, *exc: object) -> None:
        self._active = False

    def snapshot(self, epoch: float) -> None:
        """Record the layer's output on the probe under the coordinate ``epoch`` (a number not used before).

        Raises
        ------
        InputError, InputTypeError
            Outside the with-block; an epoch that repeats or is no finite number; a layer that did not run,
            or ran more than once; an output of another shape than before, or not finite. Nothing is
            recorded then.
        """
        epoch = self._checked_epoch(epoch)
        values, mask = self._sequence(self._probe_output())
        self._check(epoch, values, mask)
        extra = {"mask": mask, "label": self._label}
        self._store.add(epoch, values, {name: array for name, array in extra.items() if array is not None})
        self._epochs.append(epoch)
        self._shape, self._mask = values.shape, mask

    def trace(self) -> Trace:
        """The snapshots so far as a trace (epoch, timestep, unit, sample), masked where sequences end early."""
        if not self._epochs:
            raise InputError("the recorder holds no snapshot; call snapshot(epoch) within the with-block first")
        return self._store.trace()

    def _checked_epoch(self, epoch: Any) -> float:
        if not self._active:
            raise InputError("snapshot was called outside the recorder's with-block")
        if isinstance(epoch, bool) or not isinstance(epoch, numbers.Real) or not math.isfinite(epoch):
            raise InputTypeError(f"epoch={epoch!r} is no finite number")
        if epoch in self._epochs:
            raise InputError(f"epoch={epoch!r} is recorded already; accepted: a number not used before")
        return int(epoch) if isinstance(epoch, numbers.Integral) else float(epoch)

    def _probe_output(self) -> Any:
        outputs: list[Any] = []
        handle = self._layer.register_forward_hook(lambda module, args, output: outputs.append(output))
        try:
            with _undisturbed(self._model), torch.no_grad():
                self._model(*self._args)
        finally:
            handle.remove()
        if len(outputs) != 1:
            ran = "did not run" if not outputs else f"ran {len(outputs)} times"
            raise InputError(f"layer={self._name!r} {ran} in one forward of the probe; accepted: exactly once")
        return outputs[0]

    def _sequence(self, output: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """Values (timestep, unit, sample) and mask (timestep, unit, sample), from what the layer returned."""
        if isinstance(output, (tuple, list)) and not isinstance(output, PackedSequence):
            output = output[0]
        lengths = None
        if isinstance(output, PackedSequence):
            output, lengths = pad_packed_sequence(output)  # (T, B, H), in the order of the user's batch
        elif not isinstance(output, torch.Tensor) or output.ndim not in self._accepted_axes():
            found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
            raise InputError(f"layer={self._name!r} returns {found}; accepted: a (batch, timestep, unit) sequence")
        elif output.ndim == 2:  # an unbatched sequence
            output = output.unsqueeze(1)
        elif self._batch_first:
            output = output.transpose(0, 1)
        kind = torch.float64 if output.dtype == torch.float64 else torch.float32
        values = output.detach().permute(0, 2, 1).to("cpu", kind, copy=True).contiguous().numpy()
        return values, None if lengths is None else _length_mask(lengths, values.shape)

    def _accepted_axes(self) -> tuple[int, ...]:
        return (2, 3) if isinstance(self._layer, nn.RNNBase) else (3,)

    def _check(self, epoch: float, values: np.ndarray, mask: np.ndarray | None) -> None:
        where = f"snapshot of epoch {epoch}: layer={self._name!r}"
        if self._epochs and (values.shape != self._shape or not _same_mask(mask, self._mask)):
            raise InputError(
                f"{where} returns (timestep, unit, sample) = {values.shape}, before {self._shape}; "
                "accepted: the same shape and sequence lengths in every snapshot"
            )
        if self._label is not None and self._label.shape != values.shape[2:]:
            raise InputError(
                f"label has shape {self._label.shape}; accepted: one class for each of the probe's "
                f"{values.shape[2]} samples"
            )
        if not np.isfinite(values).all():
            raise InputError(f"{where} returns NaN or infinity; the training has diverged, or the probe holds them")


@contextlib.contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; training flags and torch's random state as before afterwards.

    Flags are set one by one: ``model.train()`` would wake modules the user has frozen in evaluation mode.
    """
    flags = [(module, module.training) for module in model.modules()]
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    # Older torch (its issue 112583) hands weights that autocast cached without gradients to the next training step.
    caching = torch.is_autocast_cache_enabled()
    try:
        torch.set_autocast_cache_enabled(False)
        with torch.random.fork_rng(devices=devices):
            for module, _ in flags:
                module.training = False
            yield
    finally:
        torch.set_autocast_cache_enabled(caching)
        for module, training in flags:
            module.training = training


def _find_layer(model: nn.Module, layer: Any) -> nn.Module:
    if not isinstance(layer, str):
        raise InputTypeError(f"layer is a {type(layer).__name__}; accepted: the dotted name of a module of the model")
    names = dict(model.named_modules(remove_duplicate=False))
    if layer in names:
        return names[layer]
    recurrent = [name for name, module in names.items() if isinstance(module, nn.RNNBase)]
    shown = ", ".join(map(repr, recurrent or [name for name in names if name])) or "none"
    kind = "RNN, LSTM and GRU layers" if recurrent else "modules (no RNN, LSTM or GRU among them)"
    raise InputError(f"layer={layer!r} is no module of the model; its {kind}: {shown}")


def _batch_first(layer: nn.Module, name: str, given: bool | None) -> bool:
    if not isinstance(layer, nn.RNNBase):
        if not isinstance(given, bool):
            raise InputError(
                f"layer={name!r} is a {type(layer).__name__}; accepted: RNN, LSTM or GRU, or another module that "
                "returns a sequence together with batch_first=True or False"
            )
        return given
    if given is not None and given != layer.batch_first:
        raise InputError(f"batch_first={given!r} contradicts layer={name!r}, which has {layer.batch_first}")
    return layer.batch_first


def _length_mask(lengths: torch.Tensor, shape: tuple[int, ...]) -> np.ndarray:  # (T, S)
    return np.arange(shape[0])[:, None] < lengths.numpy()[None, :]


def _same_mask(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    return (one is None) == (other is None) and (one is None or np.array_equal(one, other))
