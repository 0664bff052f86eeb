"""Ablation: what a model loses when states of a recurrent layer are replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from ..errors import InputError, InputTypeError, check_choice, check_number
from ..record.schedule import checked_timesteps, chosen_timesteps
from ..runtime.isolation import isolated
from ..stages import Callback
from .progress import Advance, progress
from .readout import Performance, Readout
from .replaced_runs import ReplacedRuns, with_weights
from .result import Result, long_columns
from .seeds import drawn_seed, seeded
from .split_run import Change

REPLACEMENTS = ("zero", "mean", "shuffle")
STATES = ("both", "h", "c")


@dataclass(frozen=True, eq=False, repr=False)
class _Ablation(Result):
    epoch: np.ndarray  # (E,)
    loss: np.ndarray  # (E, T) or (E, M), as the arrays below
    accuracy: np.ndarray
    loss_change: np.ndarray
    accuracy_change: np.ndarray
    base_loss: np.ndarray  # (E,)
    base_accuracy: np.ndarray  # (E,)
    replacement: str
    settings: Mapping[str, Any]

    _axis: ClassVar[str]

    def _columns(self) -> dict[str, np.ndarray]:
        axes = {"epoch": self.epoch, self._axis: getattr(self, self._axis)}
        names = ("loss", "accuracy", "loss_change", "accuracy_change")
        return long_columns(axes, **{name: getattr(self, name) for name in names})

    def _summary(self) -> str:
        changes = np.where(np.isnan(self.loss_change), -np.inf, self.loss_change)  # NaN: the training has diverged
        number, place = np.unravel_index(np.argmax(changes), changes.shape)
        label = getattr(self, self._axis)
        return (
            f"epochs: {len(self.epoch)}, {self._axis}s: {len(label)}; replaced by: {self.replacement}; largest change "
            f"of loss: {self.loss_change[number, place]:+.3g} at {self._axis} {label[place]} of epoch "
            f"{self.epoch[number]}"
        )


@dataclass(frozen=True, eq=False, repr=False)
class TimestepAblation(_Ablation):
    """Loss and accuracy of a model whose states at one time step were replaced.

    Attributes
    ----------
    epoch, timestep : (E,) and (T,), the labels of the axes.
    loss, accuracy : (E, T), with the state of that time step replaced. The default loss is in nats for classes.
        Accuracy is a share from 0 to 1, and NaN for real targets.
    loss_change, accuracy_change : (E, T), the same minus the values of the intact run.
    base_loss, base_accuracy : (E,), of the intact run.
    replacement : "zero", "mean" or "shuffle".
    settings : what was asked.
    """

    timestep: np.ndarray  # (T,)

    _axis = "timestep"


@dataclass(frozen=True, eq=False, repr=False)
class UnitAblation(_Ablation):
    """Loss and accuracy of a model in which one unit was replaced at all time steps.

    Attributes
    ----------
    epoch, unit : (E,) and (M,), the labels of the axes.
    loss, accuracy : (E, M), with that unit replaced. The default loss is in nats for classes. Accuracy is a share from
        0 to 1, and NaN for real targets.
    loss_change, accuracy_change : (E, M), the same minus the values of the intact run.
    base_loss, base_accuracy : (E,), of the intact run.
    replacement : "zero", "mean" or "shuffle".
    settings : what was asked.
    """

    unit: np.ndarray  # (M,)

    _axis = "unit"


@isolated()
def ablate_timesteps(
    model: torch.nn.Module,
    layer: str,
    probe: Any,
    labels: Any,
    *,
    replacement: str = "zero",
    state: str = "both",
    target: str = "auto",
    depth: int = -1,
    timesteps: Any = None,
    states: Any = None,
    loss: Callable[[torch.Tensor, torch.Tensor], Any] | None = None,
    output: Callable[[Any], torch.Tensor] | None = None,
    repeats: int = 5,
    random_state: int | None = None,
    verbose: int = 0,
    callback: Callback | None = None,
) -> TimestepAblation:
    """How much loss and accuracy change if the state of a recurrent layer at one time step is replaced.

    The run is split at time step t. The states before t are those of the intact run. The state of all units at t is
    replaced, in the output of the layer and in what the next time step starts from, and the run goes on from there. The
    rest of the model runs unchanged. The result is exact (to rounding) for `torch.nn.RNN`, `LSTM` and `GRU`. This
    measure is this library's own definition.

    Parameters
    ----------
    model : torch.nn.Module
        It is not disturbed: weights, gradients, buffers, flags, hooks and random states are the same afterwards.
    layer : str
        The dotted name of an nn.RNN, nn.LSTM or nn.GRU that runs once in a forward, through T time steps.
    probe : tensor, array, tuple, dict, or DataLoader or list of such batches
        The inputs of P samples, in the forms that `Recorder` takes. Means and shuffles are over the samples of all
        batches.
    labels : (P,) integers or real numbers
        Classes, with the numbers of the model's outputs, or real targets.
    target : {"auto", "classes", "real"}
        What the labels are. "auto" takes them for classes, unless one of them has a fraction.
    replacement : {"zero", "mean", "shuffle"}
        What the state is replaced by: zeros; its mean over the samples at that time step; or the states of the samples
        in another order.
    state : {"both", "h", "c"}
        Which state of an LSTM. "both" replaces the hidden and the cell state. Then the run goes on without what the
        layer held of the sample, as it does in an RNN and a GRU. With "h", the cell state still carries it on.
    depth : int
        Which layer of a stack; from the end if negative. The second direction of a bidirectional layer is replaced at
        the same time step, and goes on to the earlier time steps.
    timesteps : slice or rising indices, optional
        Which time steps; all by default.
    states : {epoch: state_dict} or sequence of state_dict, optional
        Weights of E epochs, by default those that the model has, as epoch 0. A sequence has the epochs 0, 1, 2, ...
    loss : function of (outputs, labels), optional
        Returns the mean loss, or a loss for each sample. By default cross-entropy in nats for classes, and the mean
        squared error for real targets. For classes the outputs are logits (P, classes).
    output : function, optional
        Makes logits (P, classes), or predictions (P,), of what the model returns. By default they are the first tensor.
        A single logit is that of class 1 of two classes; the logit of class 0 is then 0.
    repeats : int
        Number of random orders, over which "shuffle" is averaged. They are the same for all epochs and time steps.
    random_state : int, optional
        Seed of the orders.
    verbose : int or bool
        Whether to draw a progress bar on stderr.
    callback : callable(stage, done, total), optional
        Called after each variant of the run.

    Raises
    ------
    InputError, InputTypeError
        A layer whose run cannot be split (cells in a loop, packed sequences, another forward than torch's); a loader
        that shuffles; labels or outputs that do not fit; a state_dict of another model; an unknown name.

    Notes
    -----
    E T forwards of the model, and O(E T^2 P M^2) time for the runs from t on; ``repeats`` times as much for "shuffle".
    The runs take about 200 MB, or some copies of the layer's states if these are larger. A model that carries a state
    from one forward to the next starts each of them from its present state. A state that is replaced by itself changes
    nothing, exactly.

    Examples
    --------
    >>> class Reader(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.rnn, self.head = torch.nn.GRU(1, 4), torch.nn.Linear(4, 2)
    ...
    ...     def forward(self, x):
    ...         return self.head(self.rnn(x)[0][-1])
    >>> ablate_timesteps(Reader(), "rnn", torch.rand(6, 10, 1), [0, 1] * 5).loss_change.shape
    (1, 6)
    """
    plan = _Plan(replacement, repeats, random_state, verbose, callback)
    chosen_state, timesteps = check_choice("state", state, STATES), checked_timesteps(timesteps)
    readout = Readout(labels, target, loss, output)
    runs = ReplacedRuns(model, layer, probe, depth, readout.read)

    def where(n_timesteps: int, _: int) -> torch.Tensor:  # (B, T, 1)
        chosen = chosen_timesteps(timesteps, n_timesteps)
        return torch.eye(n_timesteps, dtype=torch.bool, device="cpu")[chosen][:, :, None]

    fields = plan.ablate("ablation of time steps", runs, readout, states, where, chosen_state)
    n_timesteps = len(runs.states()[0])
    settings = {"layer": layer, "depth": depth, "state": state, "loss": readout.loss_name, "target": target}
    settings |= plan.settings
    return TimestepAblation(**fields, timestep=chosen_timesteps(timesteps, n_timesteps), settings=settings)


@isolated()
def ablate_units(
    model: torch.nn.Module,
    layer: str,
    probe: Any,
    labels: Any,
    *,
    replacement: str = "zero",
    target: str = "auto",
    depth: int = -1,
    states: Any = None,
    loss: Callable[[torch.Tensor, torch.Tensor], Any] | None = None,
    output: Callable[[Any], torch.Tensor] | None = None,
    repeats: int = 5,
    random_state: int | None = None,
    verbose: int = 0,
    callback: Callback | None = None,
) -> UnitAblation:
    """How much loss and accuracy change if one unit of a recurrent layer is replaced at all time steps.

    The hidden state of the unit is replaced after every time step, so the run goes on with the changed unit. "mean" and
    "shuffle" take the states of the intact run at each time step; a shuffled unit has its whole path from another
    sample. The cell state of an LSTM acts on the rest of the model only through the hidden state, so it is not replaced
    (with ``proj_size`` the units are the projected ones). This measure is this library's own definition.

    Parameters
    ----------
    model, layer, probe, labels, target, depth, states, loss, output, repeats, random_state, verbose, callback
        As for `ablate_timesteps`. The M units of a bidirectional layer are those of both directions, forward first, as
        `Recorder` orders them.
    replacement : {"zero", "mean", "shuffle"}
        What the unit is replaced by: zero; its mean over the samples at each time step; or the states of the samples in
        another order.

    Raises
    ------
    InputError, InputTypeError
        As `ablate_timesteps`.

    Notes
    -----
    E M forwards of the model, and O(E T P M^3) time for the runs with replaced units; memory as for `ablate_timesteps`.
    A unit that is replaced by itself, such as a dead unit by zero, changes nothing, exactly.

    Examples
    --------
    >>> class Reader(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.rnn, self.head = torch.nn.GRU(1, 4), torch.nn.Linear(4, 2)
    ...
    ...     def forward(self, x):
    ...         return self.head(self.rnn(x)[0][-1])
    >>> ablate_units(Reader(), "rnn", torch.rand(6, 10, 1), [0, 1] * 5).loss_change.shape
    (1, 4)
    """
    plan = _Plan(replacement, repeats, random_state, verbose, callback)
    readout = Readout(labels, target, loss, output)
    runs = ReplacedRuns(model, layer, probe, depth, readout.read)

    def where(n_timesteps: int, n_units: int) -> torch.Tensor:  # (M, T, M)
        return torch.eye(n_units, dtype=torch.bool, device="cpu")[:, None].expand(-1, n_timesteps, -1)

    fields = plan.ablate("ablation of units", runs, readout, states, where, "h")
    settings = {"layer": layer, "depth": depth, "loss": readout.loss_name, "target": target} | plan.settings
    return UnitAblation(**fields, unit=np.arange(runs.states()[0].shape[-1]), settings=settings)


class _Plan:
    """What replaces the states, and how progress is shown."""

    def __init__(self, replacement: str, repeats: int, random_state: Any, verbose: int, callback: Any) -> None:
        self._name = check_choice("replacement", replacement, REPLACEMENTS)
        self._repeats = int(check_number("repeats", repeats, low=1, integer=True))
        self._random_state, self._verbose, self._callback = drawn_seed(random_state), verbose, callback
        self._generator = seeded(self._random_state)

    @property
    def settings(self) -> dict[str, Any]:
        repeats = self._repeats if self._name == "shuffle" else 1
        return {"replacement": self._name, "repeats": repeats, "random_state": self._random_state}

    def ablate(
        self,
        stage: str,
        runs: ReplacedRuns,
        readout: Readout,
        checkpoints: Any,
        where: Callable[[int, int], torch.Tensor],
        state: str,
    ) -> dict[str, Any]:
        """The fields that both results have; ``where(T, M)`` is that of a `Change`."""
        weights, rows = _checkpoints(checkpoints), []
        n_timesteps, n_samples, n_units = _checked_shape(runs, readout, state)
        variants, orders = where(n_timesteps, n_units), self._orders(n_samples)
        total = len(weights) * len(variants) * len(orders)
        with progress(total, self._verbose, self._callback, stage) as advance:
            for epoch, state_dict in weights.items():
                with with_weights(runs.model, state_dict, f"states[{epoch!r}]"):
                    rows.append(self._measured(runs, readout, variants, state, orders, advance))
        fields = _fields(*(np.array(part) for part in zip(*rows, strict=True)))
        return fields | {"epoch": np.array(list(weights)), "replacement": self._name}

    def _orders(self, n_samples: int) -> list[Any]:
        if self._name != "shuffle":
            return [None]
        return [self._generator.permutation(n_samples) for _ in range(self._repeats)]

    def _measured(
        self, runs: ReplacedRuns, readout: Readout, where: torch.Tensor, state: str, orders: list[Any], advance: Advance
    ) -> tuple[np.ndarray, np.ndarray]:  # (2,), (B, 2)
        """Loss and accuracy of the intact run, and how they change in each variant."""
        base, where = np.array(readout.performance(runs.intact())), where.to(runs.states()[0].device)
        changes = np.zeros((len(where), 2)) + np.where(np.isnan(base), np.nan, 0)
        for order in orders:
            h, *c = (self._replaced(values, order) for values in runs.states())
            change = Change(where, None if state == "c" else h, None if state == "h" or not c else c[0])
            for variant, outputs in enumerate(runs.replaced(change)):
                if outputs is not None:
                    changes[variant] += np.subtract(readout.performance(outputs), base)
                advance()
        return base, changes / len(orders)

    def _replaced(self, states: torch.Tensor, order: Any) -> torch.Tensor:  # (T, P, M)
        if self._name == "shuffle":
            return states[:, order]
        return torch.zeros_like(states) if self._name == "zero" else states.mean(1, keepdim=True).expand_as(states)


def _checked_shape(runs: ReplacedRuns, readout: Readout, state: str) -> torch.Size:
    """The shape (T, P, M) of the states; refuses a model, a probe and labels that do not fit together."""
    outputs, states = runs.intact(), runs.states()
    readout.check_samples(states[0].shape[1])
    readout.performance(outputs)
    if state == "c" and len(states) == 1:
        raise InputError("state='c' is the cell state, which only an LSTM has; accepted: 'both' or 'h'")
    return states[0].shape


def _fields(bases: np.ndarray, changes: np.ndarray) -> dict[str, np.ndarray]:  # (E, 2), (E, B, 2)
    result: dict[str, np.ndarray] = {}
    for number, name in enumerate(Performance._fields):
        base, change = bases[:, number], changes[..., number]
        result |= {name: base[:, None] + change, f"{name}_change": change, f"base_{name}": base}
    return result


def _checkpoints(states: Any) -> dict[Any, Any]:
    """The state_dict of each epoch; None for the weights that the model has."""
    accepted = "accepted: {epoch: state_dict}, a list of state_dict, or None for the weights that the model has"
    if states is None:
        return {0: None}
    if not isinstance(states, (Mapping, list, tuple)):
        raise InputTypeError(f"states is a {type(states).__name__}; {accepted}")
    result = dict(states) if isinstance(states, Mapping) else dict(enumerate(states))
    others = {type(value).__name__ for value in result.values() if not isinstance(value, Mapping)}
    if others or not result:
        raise InputError(f"states holds {', '.join(sorted(others)) or 'nothing'}; {accepted}")
    if any(isinstance(epoch, bool) or not isinstance(epoch, (int, float, np.number)) for epoch in result):
        raise InputError(f"states has the epochs {list(result)}; accepted: numbers")
    return result
