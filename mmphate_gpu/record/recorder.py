"""`Recorder`: the states of a network's layers on a fixed probe, one snapshot at a time."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import nn

from ..errors import InputError, InputTypeError, check_choice
from ..trace import Trace
from ..trace.coordinates import as_label
from .assemble import as_dtype, joined, rounded
from .failures import FATAL, Failures, is_of_the_disk
from .folder import FolderStore
from .forward import Forwards
from .layers import Layer, find_layers
from .lengths import Presence
from .metrics import check_finite, checked_metrics
from .probe import Probe
from .schedule import as_schedule, checked_timesteps, chosen_timesteps
from .store import MemoryStore, Recording, Snapshot, Store
from .values import LARGEST_INTEGER

Listener = Callable[["Recorder", float], Any]


class Recorder:
    """Records what layers of a network return on ``probe``, and does not change the training.

    Each `snapshot` runs the model on the probe in evaluation mode, without gradients, and not compiled. It records what
    the layers returned, before the rest of the forward can change it. Afterwards the model is restored, so that the
    training reaches the same bits as without a recorder.

    Parameters
    ----------
    model : torch.nn.Module.
    layers : dotted name of a layer within ``model``, or a list of names, whose units lie side by side in the
        trace (`Trace.unit_layer` has the layer of each); "" is the model itself. A layer is an RNN, LSTM or GRU, one of
        their cells called in a loop, or any module that returns (batch, timestep, unit) or (batch, unit), which is one
        time step. The names are those of the plain model, also where it is compiled or wrapped.
    probe : the model's input: a tensor, a tuple of positional arguments, a dict of keywords, a NumPy array (which
        becomes a tensor on the device and in the dtype of the model), or a DataLoader or another iterable of batches.
        A batch is again one of the first four, or a list of positional arguments; leave out targets, as in
        ``[x for x, _ in loader]``. The samples of all batches lie one after the other in the trace. The recorder keeps
        a copy, and gives the model a fresh copy in each snapshot.
    labels : (P,) integer class of each probe sample; becomes `Trace.label`.
    lengths : (P,) number of time steps of each sample that are present.
    mask : (P, T) booleans, or 0 and 1, True where a time step of a sample is present.
    padding_mask : name of a keyword of the model, (P, T), True where a sample is padded, such as
        "src_key_padding_mask"; the probe is a dict with this keyword. A time step is present if it is present by
        ``lengths``, ``mask``, ``padding_mask`` and the layers. The others are False in `Trace.mask`, with the value 0.
    state : "h", the hidden state or output; "c", the cell state of an LSTM; "gates" of an LSTM or GRU; or a function
        of (module, output) that returns (batch, timestep, unit) or (batch, unit).
    layer : number of the layer of a stacked RNN, LSTM or GRU, from the end if negative, or "all".
    direction : "both", "forward" or "backward" units of a bidirectional layer.
    batch_first : whether the batch axis precedes the time steps, for modules whose type does not fix the order.
    time_axis : number of the axis of time in the output, for modules whose type does not fix the order.
    epochs : which snapshots are taken: `every`, a collection of numbers, or a function epoch -> bool; None takes all.
        The model does not run for a snapshot that is left out.
    timesteps : slice, or rising indices, of the time steps that are kept; `Trace.timestep` has their numbers.
    dtype : "float16", "float32" or "float64" to round the values to; by default they are kept as returned.
    path : folder, new or empty (hidden files do not count), where each snapshot is written as it is taken
        instead of being kept in memory; `load_trace` reads it, also after a crash. The folder belongs to one recorder:
        others, of this or another process, are refused.
    resume : continue the recording of an earlier process in ``path``, or begin one in an empty folder. Epochs that the
        folder already has are not recorded again, so a script that restarts from an earlier checkpoint runs unchanged.
        Another probe, other layers or other options for their states are refused at the first new snapshot.
    on_error : "warn": after the first snapshot, an error of the store, of the layers or of the values (NaN, infinity,
        also in a metric) does not end the training. The first becomes a RuntimeWarning with its epoch. The later ones
        are counted, and a warning at the end of the with-block has their number. The snapshots so far stay readable.
        "raise" raises every error.

    Raises
    ------
    InputError, InputTypeError
        The message names the argument; for a missing layer it lists those of the model.

    Notes
    -----
    A snapshot restores parameters and their gradients, buffers, the attributes of every module, training flags, the
    random states of torch (CPU, and CUDA where in use), NumPy and `random`, and torch's default dtype and device. No
    hook stays on the model between snapshots. While a snapshot runs, it holds a copy of the tensors of the model.
    Between snapshots the recorder keeps a copy of attributes, buffers and small frozen parameters.

    A model may carry a state from one forward to the next, such as a hidden state in an attribute or a buffer. Each
    batch of each snapshot starts from one state, so that snapshots of an unchanged model are equal, and the probe may
    have another batch size than the training. This is the state when the recorder was made, or the state at the first
    snapshot, if no trained parameter had changed until then. If the model cannot run from one of the two on the probe,
    snapshots start from the other. If the state is None at a snapshot, that snapshot starts from None.

    The recorder finds the state by itself. It consists of the attributes, buffers and frozen parameters that a forward
    in evaluation mode changes, in modules where the output of the layer depends on such a tensor of two or more axes.
    All others have their present values: running statistics, counters, outputs that a module only keeps, and attributes
    that only the training changes. A forward that draws random numbers draws other numbers in each snapshot, because
    the random state of the training changes.

    Examples
    --------
    >>> import torch
    >>> model = nn.Sequential(nn.GRU(2, 3))
    >>> with Recorder(model, "0", torch.zeros(5, 4, 2)) as recorder:
    ...     for epoch in range(2):
    ...         taken = recorder.snapshot(epoch, loss=0.5 / (epoch + 1))  # after an epoch of training
    >>> recorder.trace()
    Trace(epoch: 2, timestep: 5, unit: 3, sample: 4; float32 on cpu, metrics loss)
    """

    def __init__(
        self,
        model: nn.Module,
        layers: str | Sequence[str] | None = None,
        probe: Any = None,
        *,
        labels: Any = None,
        lengths: Any = None,
        mask: Any = None,
        padding_mask: str | None = None,
        state: str | Callable[[nn.Module, Any], Any] = "h",
        layer: int | str = -1,
        direction: str = "both",
        batch_first: bool | None = None,
        time_axis: int | None = None,
        epochs: Any = None,
        timesteps: Any = None,
        dtype: Any = None,
        path: str | os.PathLike[str] | None = None,
        resume: bool = False,
        on_error: str = "warn",
    ) -> None:
        _check_required(model, layers, probe, layer)
        self._model, self._layers = model, "" if layers is None else layers
        axes = {"batch_first": batch_first, "time_axis": time_axis}
        self._options: Any = {"state": state, "layer": layer, "direction": direction} | axes
        self._find_layers()  # raises on a mistake now rather than at the first snapshot
        self._schedule, self._timesteps = as_schedule(epochs), checked_timesteps(timesteps)
        self._label, self._dtype = as_label(labels, "labels"), as_dtype(dtype)
        kept = Probe(probe, model)
        self._presence = Presence(kept, lengths=lengths, mask=mask, padding_mask=padding_mask)
        _check_order(kept, labels=labels, lengths=lengths, mask=mask)
        self._digest = "" if path is None else kept.digest()
        self._forwards = Forwards(model, kept)
        self._store, self._resume = _store(path, resume), resume
        self._on_error = check_choice("on_error", on_error, ("raise", "warn"))
        self._recording: Recording | None = None  # of the snapshots of this process
        self._shape: tuple[int, ...] = ()
        self._earlier: frozenset[float] = frozenset()  # the epochs of a resumed folder
        self._listeners: list[Listener] = []
        where = "" if path is None else f" in {os.fspath(path)}"
        self._lost_snapshots = Failures(f"a snapshot was not recorded{where}")
        self._listener_errors = Failures("a listener of the recorder failed")
        self._active = False

    def __enter__(self) -> Recorder:
        if self._active:
            raise InputError("the recorder is already open; leave its with-block before entering it again")
        self._store.open()
        if self._resume and self._recording is None:
            self._earlier = frozenset(self._store.epochs)
        self._active = True
        return self

    def __exit__(self, *exc: object) -> None:
        self._active = False
        self._store.close()
        self._lost_snapshots.warn_of_count()
        self._listener_errors.warn_of_count()

    @property
    def epochs(self) -> list[float]:
        """The epochs recorded so far, with those of a resumed folder."""
        return list(self._store.epochs)

    def add_listener(self, listener: Listener) -> None:
        """Call ``listener(recorder, epoch)`` after each recorded snapshot; ``on_error`` applies to its errors too."""
        self._listeners.append(listener)

    def snapshot(self, epoch: float, **metrics: Any) -> bool:
        """Record what the layers return on the probe under the coordinate ``epoch``; True if it was recorded.

        The ``metrics`` are numbers, such as ``loss=0.31``, and become `Trace.metrics`. False means that the schedule
        leaves the epoch out, that a resumed folder already has it, or that an error became a warning.

        Raises
        ------
        InputError, InputTypeError
            Outside the with-block; an epoch that repeats or is no finite number; a metric that is no number. In the
            first snapshot, or with ``on_error="raise"``: a metric that is infinite; a probe that the model refuses
            because of its type, its device, or a state of another batch size; a layer that did not run; an output of
            another shape than before, not finite, or not real; a folder that cannot be written. Nothing is recorded
            then. Other errors of the model are raised in the same cases; running out of memory is always raised.

        Warns
        -----
        RuntimeWarning
            The first snapshot repeats the forward. Another output then shows that the model carries a state
            which the recorder cannot restore, so that snapshots of an unchanged model differ.
        """
        number = self._checked_epoch(epoch)
        if not self._schedule(number) or number in self._earlier:
            return False
        if number in self._store.epochs:
            raise InputError(f"epoch={epoch!r} is recorded already; accepted: a number not used before")
        if not self._record(number, checked_metrics(metrics)):
            return False
        self._call_listeners(number)
        return True

    def trace(self) -> Trace:
        """The snapshots so far as a trace (epoch, timestep, unit, sample), masked where sequences end early."""
        if not self._store.epochs:
            raise InputError("the recorder holds no snapshot; call snapshot(epoch) within the with-block first")
        return self._store.trace()

    def _checked_epoch(self, epoch: Any) -> float:
        if not self._active:
            raise InputError(
                "snapshot was called outside the recorder's with-block; accepted: with recorder: "
                "recorder.snapshot(epoch)"
            )
        if isinstance(epoch, bool) or not isinstance(epoch, numbers.Real) or not math.isfinite(epoch):
            raise InputTypeError(f"epoch={epoch!r} is no finite number; accepted: a number such as 3 or 0.5")
        number = int(epoch) if isinstance(epoch, numbers.Integral) else float(epoch)
        if abs(number) > LARGEST_INTEGER:
            raise InputError(
                f"epoch={epoch!r} is out of range; accepted: up to 2**53, where float64 holds each integer"
            )
        return number

    def _record(self, epoch: float, metrics: dict[str, float]) -> bool:
        is_first = self._recording is None
        try:
            self._store.add(*self._observed(epoch, metrics))
        except FATAL:
            raise
        except Exception as error:  # a model may raise anything, and the training must go on
            if self._on_error == "raise" or (is_first and not is_of_the_disk(error)):
                raise
            self._lost_snapshots.add(epoch, error)
            return False
        return True

    def _observed(self, epoch: float, metrics: dict[str, float]) -> tuple[Snapshot, Recording]:
        check_finite(metrics)
        layers = self._find_layers()
        calls = self._forwards.calls(layers, is_first=self._recording is None)
        whole = joined(layers, calls, self._presence)
        chosen = chosen_timesteps(self._timesteps, len(whole.values))
        values = rounded(whole.values[chosen], self._dtype, whole.unit_layer)
        self._check(values)
        recording = Recording(
            layers=tuple(layer.name for layer in layers),
            timestep=chosen,
            unit=np.arange(values.shape[1]),
            unit_layer=whole.unit_layer,
            mask=None if whole.present is None else whole.present[chosen],
            label=self._label,
            dtype=values.dtype,
            options={name: _text(value) for name, value in self._options.items()},
            probe=self._digest,
        )
        self._check_unchanged(recording, values.shape)
        self._recording, self._shape = recording, values.shape
        return Snapshot(epoch, values, metrics), recording

    def _find_layers(self) -> list[Layer]:
        return find_layers(self._model, self._layers, **self._options)

    def _check(self, values: np.ndarray) -> None:
        shape = values.shape
        if values.size == 0:
            raise InputError(f"the layers return (timestep, unit, sample) = {shape}; accepted: at least one of each")
        if self._label is not None and self._label.shape != shape[2:]:
            raise InputError(
                f"labels has shape {self._label.shape}; accepted: one class for each of the probe's {shape[2]} samples"
            )

    def _check_unchanged(self, now: Recording, shape: tuple[int, ...]) -> None:
        before = self._recording
        if before is None:
            return
        accepted = "accepted: the same dtype, shape and sequence lengths in every snapshot"
        if shape != self._shape or now.dtype != before.dtype:
            raise InputError(
                f"the layers return {now.dtype} (timestep, unit, sample) = {shape}, before "
                f"{before.dtype} {self._shape}; {accepted}"
            )
        for name in ("timestep", "unit_layer", "mask"):
            if not np.array_equal(getattr(before, name), getattr(now, name)):
                raise InputError(f"the layers return another {name} than in the snapshots before; {accepted}")

    def _call_listeners(self, epoch: float) -> None:
        for listener in self._listeners:
            try:
                listener(self, epoch)
            except FATAL:
                raise
            except Exception as error:  # a picture that fails must not end the training
                if self._on_error == "raise":
                    raise
                self._listener_errors.add(epoch, error)


def _check_required(model: Any, layers: Any, probe: Any, layer: Any) -> None:
    if not isinstance(model, nn.Module):
        raise InputTypeError(f"model is a {type(model).__name__}; accepted: a torch.nn.Module")
    if isinstance(layer, str) and layer != "all":
        raise InputError(
            f"layer={layer!r} is the number of a layer within an RNN, or 'all'; accepted: layers={layer!r} for a name"
        )
    for name, value in (("layers", layers), ("probe", probe)):
        if value is None:
            raise InputTypeError(f"{name} is missing; accepted: Recorder(model, layers, probe)")


def _check_order(probe: Probe, **by_sample: Any) -> None:
    names = [name for name, value in by_sample.items() if value is not None]
    if probe.is_shuffled and names:
        raise InputError(
            f"probe is a loader that shuffles, so {names[0]} cannot follow its samples; accepted: DataLoader(..., "
            "shuffle=False)"
        )


def _text(option: Any) -> str:
    return getattr(option, "__qualname__", type(option).__qualname__) if callable(option) else str(option)


def _store(path: Any, resume: bool) -> Store:
    if not isinstance(resume, bool):
        raise InputTypeError(f"resume={resume!r} is no boolean; accepted: True or False")
    if path is None and resume:
        raise InputError("resume=True has no path; accepted: resume=True together with path=")
    return MemoryStore() if path is None else FolderStore(path, resume=resume)
