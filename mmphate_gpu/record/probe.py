"""The probe: the inputs that every snapshot gives the model, kept as batches of arguments."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from ..errors import InputError, InputTypeError
from ..runtime.arrays import to_numpy
from .digest import digest_of
from .reachable import tensors_in
from .undisturbed import Attributes, copied, random_states

_ACCEPTED = (
    "a tensor, a NumPy array, a tuple of the model's arguments, a dict of its keywords, or a DataLoader or a list of "
    "such batches"
)


class Batch(NamedTuple):
    """The arguments of one forward of the model."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Probe:
    """Copies of the batches of ``probe``, so that a forward may write into its input."""

    def __init__(self, probe: Any, model: nn.Module) -> None:
        if hasattr(probe, "__array__") and not isinstance(probe, torch.Tensor):
            probe = to_numpy("probe", probe)
        self.is_loaded = not isinstance(probe, (torch.Tensor, np.ndarray, tuple, Mapping))
        self.is_shuffled = any(map(_shuffles, _samplers(probe)))
        if isinstance(probe, (str, bytes, Dataset)) or (self.is_loaded and not isinstance(probe, Iterable)):
            remedy = "; give DataLoader(probe, batch_size=...)" if isinstance(probe, Dataset) else ""
            raise InputTypeError(f"probe is a {type(probe).__name__}; accepted: {_ACCEPTED}{remedy}")
        self._batches = [_copied(batch, model) for batch in (_loaded(probe) if self.is_loaded else [probe])]
        if not self._batches:
            raise InputError(f"probe holds no batch; accepted: {_ACCEPTED}")

    def batches(self) -> Iterator[Batch]:
        """Fresh copies of the batches."""
        return map(_copy, self._batches)

    def digest(self) -> str:
        """A digest of all values in the batches."""
        return digest_of(self._batches)

    def keyword(self, name: str) -> list[Any]:
        """The argument ``name`` of every batch; `InputError` if a batch lacks it."""
        others = [sorted(batch.kwargs) for batch in self._batches if name not in batch.kwargs]
        if others:
            raise InputError(
                f"padding_mask={name!r} is no keyword of the probe, which has {others[0] or 'none'}; accepted: the "
                "name of a keyword, with probe={'x': x, 'mask': mask} or batches of this form"
            )
        return [batch.kwargs[name] for batch in self._batches]

    def explain(self, error: Exception, model: nn.Module) -> None:
        """Raise `InputError` if the type, the device or the batch size of the probe may have caused ``error``."""
        refused = f"the model refuses the probe ({type(error).__name__}: {error})"
        self._explain_arguments(error, refused, model)
        self._explain_weights(error, model)
        self._explain_targets(error, refused, model)
        states = {f"{name} {shape}" for (_, name), shape in Attributes(model).shapes().items()}
        if states:
            raise InputError(
                f"{refused}. It holds {_listed(states)}: a state carried from batch to batch fits no other batch size; "
                "accepted: a probe of that batch size, or a recorder made while the model has no such state"
            ) from error

    def _explain_arguments(self, error: Exception, refused: str, model: nn.Module) -> None:
        batch = self._batches[0]
        if isinstance(error, TypeError) and (reason := _misfit(model, batch)):
            without_targets = "probe=[x for x, _ in loader]" if self.is_loaded else "probe=x"
            remedy = f", such as {without_targets} without the targets" if len(batch.args) > 1 else ""
            if batch.kwargs and not batch.args:
                whole = "probe=[(batch,) for batch in loader]" if self.is_loaded else "probe=(batch,)"
                remedy = f", or {whole} for a forward that takes the dict itself"
            raise InputError(
                f"probe gives the model {len(batch.args)} positional arguments and the keywords {sorted(batch.kwargs)} "
                f"({reason}); accepted: the arguments that its forward takes{remedy}"
            ) from error
        if not tensors_in(batch):
            types = sorted({type(value).__name__ for value in (*batch.args, *batch.kwargs.values())})
            raise InputTypeError(f"{refused}; probe holds {', '.join(types)}; accepted: {_ACCEPTED}") from error

    def _explain_targets(self, error: Exception, refused: str, model: nn.Module) -> None:
        args, kwargs = self._batches[0]
        if len(args) > 1 and not _misfit(model, Batch(args[:1], kwargs)):
            first = "probe=[batch[0] for batch in loader]" if self.is_loaded else "probe=x"
            raise InputError(
                f"{refused}. A batch of the probe has {len(args)} items, and each is an argument of the model's "
                f"forward, which needs only the first; accepted: {first} if the others are targets"
            ) from error

    def _explain_weights(self, error: Exception, model: nn.Module) -> None:
        groups = tensors_in(self._batches), list(model.parameters())
        devices = [{tensor.device for tensor in group} for group in groups]
        dtypes = [{tensor.dtype for tensor in group if tensor.is_floating_point()} for group in groups]
        for what, (probe, weights) in (("on the device", devices), ("of the dtype", dtypes)):
            if probe and weights and not probe & weights:
                raise InputError(
                    f"probe is {what} {_listed(probe)}, the model's parameters are {what} {_listed(weights)}; "
                    f"accepted: a probe {what} of the model ({error})"
                ) from error


def _samplers(loader: Any) -> list[Any]:
    outer = [getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)]
    return [*outer, outer[1].sampler if isinstance(outer[1], BatchSampler) else None]


def _shuffles(sampler: Any) -> bool:
    known = isinstance(sampler, (RandomSampler, SubsetRandomSampler, WeightedRandomSampler))
    return known or getattr(sampler, "shuffle", False) is True  # of a DistributedSampler


def _loaded(probe: Iterable[Any]) -> list[Any]:
    """All batches; a loader draws random numbers even where it does not shuffle."""
    samplers = _samplers(probe) if isinstance(probe, DataLoader) else []
    generators = {id(source.generator): source.generator for source in (probe, *samplers) if _has_generator(source)}
    with random_states(generators.values()):
        return list(probe)


def _has_generator(source: Any) -> bool:
    return isinstance(getattr(source, "generator", None), torch.Generator)


def _copied(batch: Any, model: nn.Module) -> Batch:
    if isinstance(batch, Mapping):
        arguments = Batch((), dict(batch))
    elif isinstance(batch, (tuple, list)) and not isinstance(batch, PackedSequence):
        arguments = Batch(tuple(batch), {})
    else:
        arguments = Batch((batch,), {})
    try:
        kept = _copy(arguments)
    except (TypeError, RuntimeError) as error:
        raise InputTypeError(f"probe cannot be copied ({error}); accepted: {_ACCEPTED}") from error
    args = tuple(_tensor(value, model) for value in kept.args)
    return Batch(args, {name: _tensor(value, model) for name, value in kept.kwargs.items()})


def _copy(batch: Batch) -> Batch:
    return copied(batch, tensors_in(batch))


def _tensor(value: Any, model: nn.Module) -> Any:
    """A NumPy array of numbers as a tensor on the device, and if fractional in the dtype, of the model's weights."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        return value
    tensor = torch.from_numpy(value)
    weight = next((weight for weight in model.parameters() if weight.is_floating_point()), None)
    return tensor if weight is None else tensor.to(weight.device, weight.dtype if value.dtype.kind == "f" else None)


def _misfit(model: nn.Module, batch: Batch) -> str | None:
    """Why the signature of the model's forward does not take the arguments."""
    try:
        inspect.signature(model.forward).bind(*batch.args, **batch.kwargs)
    except TypeError as error:
        return str(error)
    return None


def _listed(values: set[Any]) -> str:
    return ", ".join(sorted(map(str, values)))
