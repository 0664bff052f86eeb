"""Find the state that a model carries from one forward to the next, by forwards with and without it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from .layers import Call
from .reachable import Walk
from .saved import is_plain
from .undisturbed import Change, Key, Start

# What a model raises on a state of another batch size, or without a state that it needs.
MISFITS = (RuntimeError, ValueError, LookupError, AssertionError, AttributeError, TypeError, StopIteration)


@dataclass
class Run:
    """A forward of every batch: the calls of every layer, and the attributes that the forwards have changed."""

    batches: list[list[list[Call]]]  # by batch, layer and call
    changes: dict[Key, Change]

    @property
    def outputs(self) -> list[Any]:
        """What the layers returned."""
        return [call.output for layers in self.batches for calls in layers for call in calls]


def run_from_carried_state(run: Callable[[set[Key]], Run], start: Start, known: set[Key]) -> tuple[Run, set[Key]]:
    """The run from the carried state of ``start``, and the keys of that state.

    A carried state is what the forward changes, and what the output depends on, in a module where that includes a
    tensor of two or more axes. The ``known`` keys belong to the state; all others are tried. ``run`` runs the model
    after it has put back the keys that it gets.
    """
    known = set(known)
    while True:
        last = _attempt(run, known)
        if isinstance(last, Run):
            states = {key for key in start.moved(last.changes) if last.changes[key].has_matrix}
        else:  # A state of another batch size makes the forward fail before it has changed the state.
            states = set(start.shapes(start.moved()))
        needed = _needed(run, start, known, states - known, last)
        if needed:
            known |= needed
        elif isinstance(last, Run):
            return last, known
        else:
            raise last


def warn_of_other_states(run: Callable[..., Run], carried: set[Key], first: Run, layer: str) -> None:
    """Warn if the output depends on a state of earlier forwards that `run_from_carried_state` does not put back."""
    vectors = {key: change.vector for key, change in first.changes.items() if change.vector is not None}
    if differs(first, _attempt(run, carried), rounding=True):
        message = (
            "returns other values in a second forward of the unchanged model, so snapshots of one model differ: it "
            "depends on something that the recorder cannot restore, such as a global variable, a closure or an iterator"
        )
    elif vectors and differs(first, _attempt(lambda keys: run(keys, vectors), carried), rounding=True):
        names = ", ".join(sorted(name for _, name in vectors))
        message = (
            f"depends on vectors that each forward changes ({names}); snapshots start from their present values, and "
            "so differ after each forward. A state of two or more axes would be restored"
        )
    else:
        return
    warnings.warn(f"{layer} {message}", RuntimeWarning, stacklevel=7)


def differs(left: Run | Exception, right: Run | Exception, rounding: bool = False) -> bool:
    """Whether the layer returned other values, or other values than by rounding; an error differs from all else."""
    if not isinstance(left, Run) or not isinstance(right, Run) or len(left.outputs) != len(right.outputs):
        return True
    before, after = ([value for output in run.outputs for value in _values(output)] for run in (left, right))
    return len(before) != len(after) or not all(_close(*pair, rounding) for pair in zip(before, after, strict=True))


def _attempt(run: Callable[[set[Key]], Run], keys: set[Key]) -> Run | Exception:
    try:
        return run(keys)
    except torch.OutOfMemoryError:
        raise
    except MISFITS as error:
        return error


def _needed(
    run: Callable[[set[Key]], Run], start: Start, known: set[Key], states: set[Key], last: Run | Exception
) -> set[Key]:
    """Of the attributes ``states`` those that the output depends on, with what else changes in their modules."""
    if not states:
        return set()
    whole = run(known | states)
    if isinstance(last, Exception):
        states = states & whole.changes.keys()  # what the training alone has changed is no state
        whole = run(known | states)  # raises the error of the model again, if that was no matter of the state
    elif not differs(last, whole):
        return set()
    for module in {number for number, _ in states}:
        fewer = {key for key in states if key[0] != module}
        if not differs(_attempt(run, known | fewer), whole):
            states = fewer
    modules = {number for number, _ in states}
    return states | {key for key in start.moved(whole.changes) if key[0] in modules} - known


def _values(output: Any) -> list[torch.Tensor]:
    """The tensors of an output; of several outputs those of the first, which is what a recorder takes."""
    if isinstance(output, (tuple, list)):
        return _values(output[0]) if output else []
    return [value for value in Walk([]).visited([output]) if isinstance(value, torch.Tensor)]


def _close(left: Any, right: Any, rounding: bool) -> bool:
    if not is_plain(left) or not is_plain(right):
        return True  # a layer whose output is of such a form is not searched for a state
    if left.shape != right.shape or not rounding or not left.is_floating_point():
        return torch.equal(left, right)
    # Sums in another order differ by some of the smallest steps of their type, far less than by the root of a step.
    step, largest = torch.finfo(left.dtype).eps ** 0.5, left.double().nan_to_num().abs().amax() if left.numel() else 0
    return torch.allclose(left.double(), right.double(), rtol=0, atol=float(step * largest), equal_nan=True)
