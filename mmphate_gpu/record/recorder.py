"""`Recorder`: the hidden states of a recurrent layer on a fixed probe, one snapshot per epoch."""

from __future__ import annotations

import functools
import math
import numbers
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy

from ..errors import InputError, InputTypeError
from ..trace import Trace
from ..trace.coordinates import as_label
from .carried import MISFITS, Run, settled, warn_of_other_states
from .output import LARGEST_INTEGER, copied_output, sequence_values
from .state import Attributes, Key, Start, copied, undisturbed
from .folder import FolderStore
from .store import MemoryStore, Recording, Snapshot
from .walk import Walk


class Recorder:
    """Records the output sequence of a layer on ``probe``, without a trace in the training itself.

    Each `snapshot` runs the model on the probe, in evaluation mode, without gradients, and not compiled.
    It records what the layer returned, before the rest of the forward can change it. Afterwards the model
    is restored, so that training goes on to the same bits: parameters and their gradients, buffers, the
    attributes of every module, training flags, and the random states of torch (CPU, and CUDA where in
    use), NumPy and `random`. No hook stays on the model between snapshots. A snapshot copies the tensors of the
    model while it runs; between snapshots the recorder keeps a copy of attributes, buffers and small frozen parameters.

    A model may carry a state from one forward to the next, such as a hidden state in an attribute or a
    buffer. Each snapshot starts from the state that the model had when the recorder was made, or had at
    the first snapshot, if no trained parameter had changed until then. If the model cannot run from one of
    the two on the probe, snapshots start from the other; if the state is None at a snapshot, that one starts
    from None. So snapshots of an unchanged model are equal, and the probe may have another batch size than
    the training. Attributes, buffers and frozen parameters that an evaluation forward changes count as such
    a state, in modules where the output of the layer depends on one that holds a tensor of two or more
    axes. Running statistics, counters, outputs that a module only keeps, and attributes that only the
    training changes have their present values.

    Parameters
    ----------
    model : torch.nn.Module.
    layer : dotted name within ``model`` of an RNN, LSTM or GRU (any layers and directions: the last
        layer's hidden states of all directions are the units); "" is the model itself. Any other
        module that returns (batch, timestep, unit) once per forward is accepted with ``batch_first``.
    probe : the model's input, a tensor or a tuple of positional arguments; the recorder keeps a
        copy of it, and gives the model a fresh copy in each snapshot.
    label : (P,) integer class of each probe sample.
    path : folder, new or empty (hidden files do not count), where each snapshot is written as it is taken
        instead of being kept in memory; `load_trace` reads it, also after a crash. The folder belongs to the
        recorder that first takes a snapshot in it: other recorders, of this or another process, are refused.
    batch_first : for layers other than RNN, LSTM and GRU: whether the batch axis precedes the timesteps.

    Raises
    ------
    InputError, InputTypeError
        The message names the argument; for a missing layer it lists those of the model.

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
        self._batch_first = batch_first
        _batch_first(_find_layer(model, layer), layer, batch_first)
        # A PackedSequence is a tuple, but a single argument.
        self._args = _copied_probe(probe if type(probe) is tuple else (probe,))
        self._label = as_label(label)
        self._start, self._weights = Start(model), _versions(model)
        self._carried: set[Key] = set()
        self._store = MemoryStore() if path is None else FolderStore(path, resume=False)
        self._epochs: list[float] = []
        self._shape: tuple[int, ...] = ()
        self._mask: Any = None
        self._active = False

    def __enter__(self) -> Recorder:
        if self._active:
            raise InputError("the recorder is already open; leave its with-block before entering it again")
        self._store.open()
        self._active = True
        return self

    def __exit__(self, *exc: object) -> None:
        self._active = False
        self._store.close()

    def snapshot(self, epoch: float) -> None:
        """Record the layer's output on the probe under the coordinate ``epoch`` (a number not used before).

        Raises
        ------
        InputError, InputTypeError
            Outside the with-block; an epoch that repeats or is no finite number; a probe that the model refuses
            because of its type, its device, or a state of another batch size; a layer that did not run, or ran
            more than once; an output of another shape than before, not finite, or not real; a folder that
            another recorder has taken. Nothing is recorded then. All other errors of the model come through.

        Warns
        -----
        RuntimeWarning
            The first snapshot repeats the forward. Another output then shows that the model carries a state
            which the recorder cannot restore, so that snapshots of an unchanged model differ.
        """
        epoch = self._checked_epoch(epoch)
        layer = _find_layer(self._model, self._name)
        batch_first = _batch_first(layer, self._name, self._batch_first)
        output = self._probe_output(layer)
        unbatched = isinstance(layer, nn.RNNBase)
        values, mask = sequence_values(output, self._name, batch_first=batch_first, unbatched=unbatched)
        self._check(epoch, values, mask)
        self._store.add(Snapshot(epoch, values), self._recording(values, mask))
        self._epochs.append(epoch)
        self._shape, self._mask = values.shape, mask

    def _recording(self, values: np.ndarray, mask: np.ndarray | None) -> Recording:
        n_timesteps, n_units, _ = values.shape
        layers = np.full(n_units, self._name)
        return Recording(
            (self._name,), np.arange(n_timesteps), np.arange(n_units), layers, mask, self._label, values.dtype
        )

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
        number = int(epoch) if isinstance(epoch, numbers.Integral) else float(epoch)
        if abs(number) > LARGEST_INTEGER:
            raise InputError(
                f"epoch={epoch!r} is out of range; accepted: up to 2**53, where float64 holds each integer"
            )
        if number in self._epochs:
            raise InputError(f"epoch={epoch!r} is recorded already; accepted: a number not used before")
        return number

    def _probe_output(self, layer: nn.Module) -> Any:
        """The output of the layer, from the carried state that all snapshots start from."""
        if not self._epochs and any(map(is_lazy, (*self._model.parameters(), *self._model.buffers()))):
            raise InputError(
                "model has lazy modules without parameters yet; call it on a batch before the first snapshot"
            )
        last = self._settled(layer)
        if len(last.outputs) != 1:
            ran = "did not run" if not last.outputs else f"ran {len(last.outputs)} times"
            raise InputError(f"layer={self._name!r} {ran} in one forward of the probe; accepted: exactly once")
        return last.outputs[0]

    def _settled(self, layer: nn.Module) -> Run:
        failure: Any = None
        for start in [self._start] if self._epochs else self._possible_starts():
            run = functools.partial(self._run, layer, start)
            try:
                last, carried = settled(run, start, self._carried)
            except torch.OutOfMemoryError:
                raise
            except MISFITS as error:
                failure = failure or error
                continue
            if not self._epochs:
                warn_of_other_states(run, carried, last, self._name)
            self._start, self._carried = start, carried
            return last
        self._explain(failure)
        raise failure

    def _possible_starts(self) -> list[Start]:
        """For the first snapshot: the state when the recorder was made, and that of now, in the order of preference."""
        if not self._start.moved():
            return [self._start]
        starts = [self._start, Start(self._model)]
        return starts if self._weights != _versions(self._model) else starts[::-1]

    def _run(self, layer: nn.Module, start: Start, keys: set[Key], vectors: Mapping[Key, Any] | None = None) -> Run:
        with undisturbed(self._model, start.objects() if keys else ()) as changes:
            start.put_back(keys)
            for key, value in (vectors or {}).items():
                Attributes(self._model).set(key, value)
            outputs = self._forward(layer)
            touched = start.moved(keys) if keys else set()
        return Run(outputs, {key: change for key, change in changes.items() if key not in keys or key in touched})

    def _forward(self, layer: nn.Module) -> list[Any]:
        outputs: list[Any] = []

        def keep(module: nn.Module, args: Any, output: Any) -> None:
            outputs.append(None if outputs else copied_output(output))  # more than one is refused

        handle = layer.register_forward_hook(keep)
        try:
            with torch.no_grad():
                _unwrapped(self._model)(*_copied_probe(self._args))
        finally:
            handle.remove()
        return outputs

    def _explain(self, error: Exception) -> None:
        """Raise `InputError` if the type, the device or the batch size of the probe may have caused ``error``."""
        refused = f"the model refuses the probe ({type(error).__name__}: {error})"
        probe = {value.device for value in Walk([]).visited(self._args) if isinstance(value, torch.Tensor)}
        if not probe or isinstance(self._args[0], list):
            raise InputTypeError(
                f"{refused}; probe is a {type(self._args[0]).__name__}; accepted: a tensor, or a tuple of the model's "
                "arguments"
            ) from error
        devices = {weight.device for weight in self._model.parameters()}
        if probe and devices and not probe & devices:
            raise InputError(
                f"probe is on {_listed(probe)}, the model's parameters on {_listed(devices)}; accepted: a probe on the "
                f"device of the model ({error})"
            ) from error
        states = {f"{name} {shape}" for (_, name), shape in Attributes(self._model).shapes().items()}
        if states:
            raise InputError(
                f"{refused}. It holds {_listed(states)}: a state "
                "carried from batch to batch fits no other batch size; accepted: a probe of that batch size, or a "
                "recorder made while the model has no such state"
            ) from error

    def _check(self, epoch: float, values: np.ndarray, mask: Any) -> None:
        where = f"snapshot of epoch {epoch}: layer={self._name!r}"
        if self._epochs and (values.shape != self._shape or not np.array_equal(mask, self._mask)):
            raise InputError(
                f"{where} returns (timestep, unit, sample) = {values.shape}, before {self._shape}; "
                "accepted: the same shape and sequence lengths in every snapshot"
            )
        if self._label is not None and self._label.shape != values.shape[2:]:
            raise InputError(
                f"label has shape {self._label.shape}; accepted: one class for each of the probe's "
                f"{values.shape[2]} samples"
            )
        if values.size == 0:
            raise InputError(
                f"{where} returns (timestep, unit, sample) = {values.shape}; accepted: at least one of each"
            )
        if not np.isfinite(values).all():
            raise InputError(f"{where} returns NaN or infinity; the training has diverged, or the probe holds them")


def _copied_probe(args: tuple[Any, ...]) -> tuple[Any, ...]:
    tensors = [value for value in Walk([]).visited([args]) if isinstance(value, torch.Tensor)]
    try:
        return copied(args, tensors)
    except (TypeError, RuntimeError) as error:
        raise InputTypeError(f"probe cannot be copied ({error}); accepted: tensors, or containers of them") from error


def _versions(model: nn.Module) -> list[tuple[int, int]]:
    """The parameters that are trained, and how often each has been written to."""
    weights = [weight for weight in model.parameters() if weight.requires_grad and not is_lazy(weight)]
    return [(id(weight), 0 if weight.is_inference() else weight._version) for weight in weights]


def _unwrapped(module: nn.Module) -> nn.Module:
    """The module inside wrappers that compile it or spread a forward over devices and processes."""
    parallel = isinstance(module, (nn.DataParallel, DistributedDataParallel))
    inner: Any = module.module if parallel else getattr(module, "_orig_mod", module)
    return module if inner is module else _unwrapped(inner)


def _listed(values: set[Any]) -> str:
    return ", ".join(sorted(map(str, values)))


def _find_layer(model: nn.Module, layer: Any) -> nn.Module:
    if not isinstance(layer, str):
        raise InputTypeError(f"layer is a {type(layer).__name__}; accepted: the dotted name of a module of the model")
    names = dict(model.named_modules(remove_duplicate=False))
    if isinstance(names.get(layer), torch.jit.ScriptModule):
        raise InputTypeError(
            f"layer={layer!r} is a scripted module, which takes no hooks; accepted: a module that is not scripted"
        )
    if layer in names:
        return _unwrapped(names[layer])
    recurrent = [name for name, module in names.items() if isinstance(module, nn.RNNBase)]
    shown = ", ".join(map(repr, recurrent or [name for name in names if name])) or "none"
    what = "RNN, LSTM and GRU layers" if recurrent else "modules (no RNN, LSTM or GRU among them)"
    raise InputError(f"layer={layer!r} is no module of the model; its {what}: {shown}")


def _batch_first(layer: nn.Module, name: str, option: bool | None) -> bool:
    if not isinstance(layer, nn.RNNBase):
        if not isinstance(option, bool):
            raise InputError(
                f"layer={name!r} is a {type(layer).__name__}; accepted: RNN, LSTM or GRU, or another module that "
                "returns a sequence together with batch_first=True or False"
            )
        return option
    if option is not None and option != layer.batch_first:
        raise InputError(f"batch_first={option!r} contradicts layer={name!r}, which has {layer.batch_first}")
    return layer.batch_first
