"""`KerasRecorder`: a callback of Keras 3 that records while a model fits, with the torch backend."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import nn

from ..errors import InputError
from ..runtime.optional import available, require
from .callbacks import RecorderCallback

if TYPE_CHECKING:
    from keras.callbacks import Callback
else:
    Callback = object  # the class of the framework joins when the first instance is made

_ACCEPTED = "accepted: 'torch', with KERAS_BACKEND=torch in the environment before keras is imported"


class KerasRecorder(RecorderCallback, Callback):
    """Records the states of a Keras model while ``model.fit`` trains it. Keras runs on its torch backend.

    The recorder opens when the fit begins, and closes when it ends. The first snapshot is taken before the first step.
    The training gets the same bits as without it.

    Parameters
    ----------
    layers : str or list of str
        Keras names of layers, such as "lstm", or "encoder.lstm" for a layer of a nested model. Every time step of an
        LSTM, GRU, SimpleRNN or RNN is recorded, also if the layer returns the last one only. A layer that returns
        (batch, unit) has a single time step.
    probe
        As for `Recorder`. A dict or a tuple is what a model with several inputs takes.
    when : {"epoch", "step"}
        "epoch" records at the end of every epoch, under the number of epochs that have ended, so the snapshot before
        the training is 0. "step" records after every batch, under the number of batches.
    **options
        As for `Recorder`: ``path``, ``labels``, ``epochs=every(5)`` and so on. ``epochs`` applies to what ``when``
        counts.

    Attributes
    ----------
    recorder : Recorder or None
        None before the first fit.

    Notes
    -----
    Metrics are the ``logs`` of Keras, such as ``loss`` and ``val_loss``. Characters that an identifier cannot have
    become "_", and infinity becomes NaN.

    Raises
    ------
    InputError
        Keras is not installed (``pip install "mmphate-gpu[keras]"``) or has another backend; an unknown ``when``; when
        a fit begins, what `Recorder` refuses.

    Examples
    --------
    ::

        callback = KerasRecorder("lstm", probe)
        model.fit(x, y, epochs=20, callbacks=[callback])
        trace = callback.trace()
    """

    def __init__(self, layers: Any, probe: Any, *, when: str = "epoch", **options: Any) -> None:
        axes = {} if "time_axis" in options else {"batch_first": True, "state": sequence}
        super().__init__(layers, probe, when=when, **axes | options)
        self._began, self._steps = False, 0

    @classmethod
    def _framework(cls) -> tuple[type, ...]:
        try:
            keras = require("keras", purpose="KerasRecorder", extra="keras")
        except InputError as error:
            if available("keras"):  # but not its backend
                raise InputError(f"Keras cannot be imported ({error.__cause__}); {_ACCEPTED}") from error
            raise
        if keras.config.backend() != "torch":
            raise InputError(f"Keras has the backend {keras.config.backend()!r}; {_ACCEPTED}")
        return (keras.callbacks.Callback,)

    def on_train_begin(self, logs: Any = None) -> None:
        """Open the recorder."""
        kept = self._recorded
        is_same = isinstance(kept, _Named) and kept.model is self.model
        self._open(kept if kept is not None and is_same else _Named(self.model, self._arguments[0]))
        self._began, self._steps = False, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Record the model before its first step."""
        if not self._began:
            self._began = True
            self._snapshot(epoch if self._when == "epoch" else self._steps)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Record a snapshot if ``when`` and the schedule ask for one."""
        if self._when == "epoch":
            self._snapshot(epoch + 1, lambda: logs or {})

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Record a snapshot if ``when`` and the schedule ask for one."""
        self._steps += 1
        if self._when == "step":
            self._snapshot(self._steps, lambda: logs or {})

    def on_train_end(self, logs: Any = None) -> None:
        """Close the recorder."""
        self._close()


def sequence(layer: Any, output: Any) -> Any:  # (B, n) -> (B, 1, n)
    """What a layer of Keras returned, with an axis of time: a layer without it has a single time step."""
    while isinstance(output, (list, tuple)) and output:
        output = output[0]
    return output.unsqueeze(1) if getattr(output, "ndim", 0) == 2 else output


class _Named(nn.Module):
    """A Keras model as a module whose submodules have the names of Keras, and which runs it as for inference."""

    def __init__(self, model: Any, layers: Any) -> None:
        super().__init__()
        self._keras = [model]  # within a list it is no submodule, whose name a layer might have
        self._modules |= dict(_named_layers(model, ""))
        chosen = {layers} if isinstance(layers, str) else set(layers)
        last_only = {name for name, layer in self._modules.items() if not getattr(layer, "return_sequences", True)}
        self._last_only = [_recurrent(name, self._modules[name]) for name in sorted(chosen & last_only)]

    @property
    def model(self) -> Any:
        """The Keras model."""
        return self._keras[0]

    def forward(self, *args: Any, **inputs: Any) -> Any:
        """The output for one input, for a tuple of inputs, or for inputs by name."""
        several: Any = inputs or list(args)
        with contextlib.ExitStack() as stack:
            for layer in self._last_only:
                stack.enter_context(_all_steps(layer))
            return self.model(args[0] if len(args) == 1 else several, training=False)


def _named_layers(layer: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for sublayer in getattr(layer, "layers", ()):
        yield f"{prefix}{sublayer.name}", sublayer
        yield from _named_layers(sublayer, f"{prefix}{sublayer.name}.")


def _recurrent(name: str, layer: Any) -> Any:
    if not hasattr(layer, "cell"):
        raise InputError(
            f"layer {name!r} is a {type(layer).__name__} that returns its last time step only; accepted: "
            "return_sequences=True"
        )
    return layer


@contextlib.contextmanager
def _all_steps(layer: Any) -> Iterator[None]:
    """Show every time step of a recurrent layer to the hooks that it has, and only the last one to the model."""

    def begin(*_: Any) -> None:
        layer.return_sequences = True

    def end(_: Any, __: Any, output: Any) -> Any:
        layer.return_sequences = False
        return [output[0][:, -1], *output[1:]] if isinstance(output, (list, tuple)) else output[:, -1]

    handles = [layer.register_forward_pre_hook(begin), layer.register_forward_hook(end)]
    try:
        yield
    finally:
        layer.return_sequences = False
        for handle in handles:
            handle.remove()
