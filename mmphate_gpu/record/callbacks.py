"""The common base of the callbacks for Lightning and Keras: a recorder that is open during a fit."""

from __future__ import annotations

import functools
import math
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ..errors import InputError, check_choice
from ..trace import Trace
from .metrics import RESERVED
from .recorder import Recorder
from .schedule import as_schedule


class RecorderCallback:
    """A recorder that is made when a fit begins, takes snapshots meanwhile, and is closed when the fit ends.

    An instance is also an instance of the callback class of its framework, which is imported for the first instance.
    """

    WHEN: tuple[str, ...] = ("epoch", "step")

    def __new__(cls, *_: Any, **__: Any) -> Any:
        made: Any = cls
        bases = cls._framework()
        return object.__new__(made if issubclass(cls, bases) else _joined(made, bases))

    def __init__(self, layers: Any, probe: Any, *, when: str, **options: Any) -> None:
        super().__init__()
        self.recorder: Recorder | None = None
        self._when = check_choice("when", when, self.WHEN)
        self._epochs = options.pop("epochs", None)
        as_schedule(self._epochs)  # raises on a mistake now rather than when the fit begins
        self._arguments: tuple[Any, ...] = (layers, probe)
        self._options = options
        self._listeners: list[Callable[[Recorder, float], Any]] = []
        self._recorded: nn.Module | None = None
        self._is_open, self._last = False, -math.inf

    def __reduce__(self) -> Any:
        return _blank, (type(self).__bases__[0],), vars(self)  # pickle cannot look up a class that `_joined` has made

    @classmethod
    @abstractmethod
    def _framework(cls) -> tuple[type, ...]:
        """The callback classes of the framework. Raises `InputError` if it is not installed."""

    def add_listener(self, listener: Callable[[Recorder, float], Any]) -> None:
        """Call ``listener(recorder, epoch)`` after each recorded snapshot, as `Recorder.add_listener` does."""
        self._listeners.append(listener)
        if self.recorder is not None:
            self.recorder.add_listener(listener)

    def trace(self) -> Trace:
        """The snapshots so far, as `Recorder.trace` has them. Raises `InputError` where nothing was recorded."""
        if self.recorder is None:
            raise InputError(
                "nothing is recorded in this process; accepted: trace() after a fit began, in the process of rank 0"
            )
        return self.recorder.trace()

    def _open(self, model: nn.Module) -> None:
        """Open the recorder of the last fit if it had the same ``model``, else a new one."""
        self._close()
        if self.recorder is None or self._recorded is not model:
            self.recorder, self._recorded = Recorder(model, *self._arguments, **self._options), model
            self._last = -math.inf
            for listener in self._listeners:
                self.recorder.add_listener(listener)
        self.recorder.__enter__()
        self._is_open = True

    def _close(self) -> None:
        if self._is_open and self.recorder is not None:
            self._is_open = False
            self.recorder.__exit__(None, None, None)

    def _snapshot(self, number: float, metrics: Callable[[], Mapping[str, Any]] = dict) -> None:
        """Record under ``number`` if the schedule has it. ``metrics`` is called only then, because it may be slow."""
        due = self._is_open and number != self._last and as_schedule(self._epochs)(number)
        if due and self.recorder is not None:
            self._last = number
            self.recorder.snapshot(number, **usable_metrics(metrics()))


@functools.cache
def _joined(cls: Any, bases: Any) -> Any:
    return type(cls.__name__, (cls, *bases), {"__module__": cls.__module__, "__doc__": cls.__doc__})


def _blank(cls: Any) -> Any:
    return cls.__new__(cls)


def usable_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The single numbers in ``metrics``, under names that a trace can have.

    Other characters of a name become "_". What is no single number is left out. Infinity becomes NaN, because it must
    not end the training.

    Examples
    --------
    >>> usable_metrics({"val/loss": 0.5, "epoch": 3, "images": [1, 2], "2nd": float("inf")})
    {'val_loss': 0.5, 'epoch_': 3.0, '_2nd': nan}
    """
    numbers = {_usable_name(name): _number(value) for name, value in metrics.items()}
    return {name: number for name, number in numbers.items() if number is not None}


def _usable_name(name: str) -> str:
    cleaned = re.sub(r"\W", "_", name)
    cleaned = cleaned if cleaned.isidentifier() else f"_{cleaned}"
    return f"{cleaned}_" if cleaned in {*RESERVED, "self"} else cleaned


def _number(value: Any) -> float | None:
    if getattr(value, "ndim", 0) != 0:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else math.nan
