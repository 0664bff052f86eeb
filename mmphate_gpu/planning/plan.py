"""Bytes and operations of a run, before it starts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..errors import InputError, InputTypeError, check_choice, check_number
from ..operators.choose import choose_form, stored_forms, suits_half
from ..ops.launch.twins import TRITON, serves
from ..params import STORAGES, Params
from ..runtime.devices import card_bytes, resolve_device
from ..runtime.isolation import isolated
from ..runtime.memory import available_bytes, format_bytes, free_memory, limit_text
from ..trace.convert import in_order, is_xarray
from ..trace.trace import STREAM_SHARE, Trace
from .costs import Costs, Entries
from .sample import sampled_entries

# What a run takes at least: no pair of slices above the cut, every slice a component of its own. A run is refused
# before it starts by this, and by what was counted when it has been counted.
LEAST = Entries(interslice=0, intraslice=1, alone=1, tiles=0, loose=1)
# A refusal names no fewer than these.
FEWEST_LANDMARKS, FEWEST_VECTORS = 100, 10


class DoesNotFit(InputError):
    """A run that needs more memory than there is."""


@dataclass(frozen=True)
class StagePlan:
    """What one stage will take."""

    stage: str
    form: str
    precision: str
    at_once: str  # what it works on at a time, where that bounds its memory
    bytes: int  # kept until the run ends
    peak_bytes: int  # with what was kept before it, while the stage works
    operations: float  # floating-point operations


@dataclass(frozen=True)
class Plan:
    """What a run will take beside what the process holds already; ``str(plan)`` is a table."""

    shape: tuple[int, int, int, int]  # (epoch, timestep, unit, sample)
    device: str
    available_bytes: int
    storage: str  # "sparse", "tiles" or "lazy"
    why: str  # this form
    stages: tuple[StagePlan, ...]
    remedy: str = ""  # what lowers the peak, of a run that does not fit
    limit: str = ""  # " (name of the limit is size)" where a limit, not the device itself, bounds the memory

    @property
    def peak_bytes(self) -> int:
        return max(stage.peak_bytes for stage in self.stages)

    @property
    def fits(self) -> bool:
        return self.peak_bytes <= self.available_bytes

    def check(self) -> None:
        """Raise `InputError` with the numbers and the setting that lowers them if the run will not fit."""
        if self.fits:
            return
        worst = max(self.stages, key=lambda stage: stage.peak_bytes)
        raise DoesNotFit(
            f"a trace of shape {self.shape} needs {format_bytes(self.peak_bytes)} in stage {worst.stage!r} but "
            f"{self.device} has {format_bytes(self.available_bytes)} available{self.limit}; {self.remedy}"
        )

    def __str__(self) -> str:
        e, t, m, p = self.shape
        head = f"{e} epochs x {t} timesteps x {m} units x {p} samples = {e * t * m:,} nodes on {self.device}"
        titles = ("stage", "form", "precision", "at once", "kept", "peak", "operations")
        rows = [titles, *(_cells(stage) for stage in self.stages)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        pads = (str.ljust,) * 4 + (str.rjust,) * 3
        lines = ["  ".join(pad(cell, w) for pad, cell, w in zip(pads, row, widths, strict=True)) for row in rows]
        verdict = "fits" if self.fits else "does NOT fit"
        free = f"{format_bytes(self.available_bytes)} available{self.limit}"
        tail = f"peak {format_bytes(self.peak_bytes)} of {free}: {verdict}"
        advice = [] if self.fits else [self.remedy]
        return "\n".join([head, *lines, f"affinity: {self.storage}, {self.why}", *advice, tail])


def _cells(s: StagePlan) -> tuple[str, ...]:
    sizes = format_bytes(s.bytes), format_bytes(s.peak_bytes)
    return s.stage, s.form, s.precision, s.at_once, *sizes, f"{s.operations:.1e}"


@isolated()
def plan(
    shape_or_trace: Sequence[int] | Trace | Any,
    *,
    n_landmark: int | None = 4000,
    device: Any = "auto",
    storage: str = "auto",
    n_pca: int | None = 100,
    n_svd: int = 100,
    n_components: int = 2,
    landmarks: Any = "spectral",
    mds_solver: str = "smacof",
    mds_dist: str = "euclidean",
    t: int | str = "auto",
    active_share: float | None = None,
    active_tiles: float | None = None,
) -> Plan:
    """Bytes, operations and form of every stage of a run.

    The peak is what the run adds to what the process holds when it starts (torch, the trace); on CUDA the trace is
    counted where it has yet to be copied there, which is done with a quarter of the memory at most, by parts with
    more. Of a `Trace` it is estimated from a sample of its rows, in two or three seconds on one core and without random
    numbers: measured to be within 7 % of the peak of the process for the cases of benchmarks/suites/pipeline.py on the
    CPU. A shape counts as float32. For it, the plan assumes the upper ends of what was measured, and
    units that are independent in each slice.

    Parameters
    ----------
    shape_or_trace : (epoch, timestep, unit, sample) or (slice, unit, sample) sizes, a Trace, or an array of such a
    shape
    device : as of `MMPHATE`, or "24 GB card"
        A CUDA card of so many (decimal) gigabytes; none need be there.
    n_landmark, storage, n_pca, n_svd, n_components, landmarks, mds_solver, mds_dist, t : as of `MMPHATE`
        Other parameters change the peak by a few percent at most.
    active_share : float, optional
        Share of the interslice pairs expected above the threshold; decides what ``storage="sparse"`` takes. None: 0.27
        for a shape, estimated for a Trace.
    active_tiles : float, optional
        Share of the tiles of 128 x 128 pairs that have such a pair; decides what ``storage="tiles"`` takes. None: 0.51;
        of a Trace estimated together with ``active_share`` where the run may take tiles.

    Raises
    ------
    InputError
        A shape that is no trace's, an unknown storage or device. A run that does not fit is no error here: see
        `Plan.check`.

    Examples
    --------
    >>> plan((127, 128, 30, 6), device="cpu", storage="lazy").storage
    'lazy'
    >>> plan((127, 128, 30, 6), device="12 GB card").fits
    True
    """
    check_choice("storage", storage, STORAGES)
    shape, dtype, trace = _shape_of(shape_or_trace)
    sizes = {"n_landmark": n_landmark, "n_pca": n_pca, "n_svd": n_svd, "n_components": n_components, "t": t}
    params = Params(**sizes, storage=storage, landmarks=landmarks, mds_solver=mds_solver, mds_dist=mds_dist)
    where, card, there = _room(device, None if trace is None else trace.data)
    given = {"interslice": ("active_share", active_share), "tiles": ("active_tiles", active_tiles)}
    known = {
        field: check_number(argument, value, low=0, high=1)
        for field, (argument, value) in given.items()
        if value is not None
    }
    sample = trace is not None and "interslice" not in known
    tiles = "tiles" not in known and (storage == "tiles" or (storage == "auto" and where.type == "cuda"))
    entries = (sampled_entries(trace, params, tiles) if sample else Entries())._replace(**known)
    held = trace is not None and trace.data.device == where
    about = {"dtype": dtype, "device": where, "available": there, "entries": entries}
    return plan_run(shape, params, **about, name=card, trace_there=held)


def check_least(shape_or_trace: Any, p: Params, device: torch.device, available: int) -> None:
    """Refuse a run that cannot fit however few entries its affinity will have; ``shape_or_trace`` as `plan` takes it.

    Raises
    ------
    InputError
        With the numbers, and the setting that helps.
    """
    shape, dtype, _ = _shape_of(shape_or_trace)
    plan_run(shape, p, dtype=dtype, device=device, available=available, entries=LEAST).check()


def _room(device: Any, like: torch.Tensor | None) -> tuple[torch.device, str | None, int]:
    """The device, its name if it is a card that need not be there, and its memory."""
    of_card = card_bytes(device)
    if of_card is not None:
        return torch.device("cuda"), device, of_card
    where = resolve_device(device, like)
    return where, None, available_bytes(where)


def plan_run(
    shape: tuple[int, int, int, int],
    p: Params,
    *,
    dtype: torch.dtype,
    device: torch.device,
    available: int,
    entries: Entries,
    name: str | None = None,
    trace_there: bool = True,
) -> Plan:
    """The plan of a run with these parameters; ``name``: that of a card that need not be there."""
    # Of a card that is not there nobody knows whether its twins compile: the portable ops take more. Triton comes with
    # torch.
    native, cuda = name is None and serves(device), device.type == "cuda"
    tiles = cuda and (name is not None or TRITON.why_not() is None)
    kind = {"dtype": dtype, "entries": entries, "room": available, "cuda": cuda, "native": native, "triton": tiles}

    def with_settings(settings: Params) -> tuple[str, str, tuple[StagePlan, ...]]:
        costs = Costs(shape, settings, **kind)
        copied = 0 if trace_there else costs.trace_bytes()
        held = copied if copied <= STREAM_SHARE * available else 0  # a larger one goes there by parts: `Trace.to`
        storage, why = _form(costs, settings.storage, tiles, available, held)
        return storage, why, _stage_plans(costs, storage, held)

    def peak(settings: Params) -> int:
        return max(stage.peak_bytes for stage in with_settings(settings)[2])

    limit = "" if name else limit_text(free_memory(device))
    planned = Plan(shape, name or str(device), available, *with_settings(p), limit=limit)
    if planned.fits:
        return planned
    return replace(planned, remedy=_remedy(replace(p, storage=planned.storage), shape, lambda s: peak(s) <= available))


def _stage_plans(costs: Costs, storage: str, held: float) -> tuple[StagePlan, ...]:
    stages = []
    for cost in costs.stages(storage):
        about = (cost.stage, cost.form, cost.precision, cost.at_once)
        stages.append(StagePlan(*about, int(cost.kept), int(held + cost.peak), cost.operations))
        held += cost.kept
    return tuple(stages)


def _form(costs: Costs, storage: str, tiles: bool, available: int, held: float) -> tuple[str, str]:
    """The form that the affinity stage will choose, and why: the first that takes no more than `STORED_SHARE` of the
    memory and leaves enough for the rest of the run."""
    if storage != "auto":
        return storage, "as asked for"
    share = costs.interslice / max(1, costs.pairs)
    forms = stored_forms(share, tiles=tiles and suits_half(costs.p.thresh))
    peaks = {form: max(stage.peak_bytes for stage in _stage_plans(costs, form, held)) for form in forms}
    form = choose_form(forms, costs.form_bytes, available, leaves_room=lambda form: peaks[form] <= available)
    pairs = f"{share:.2g} of the pairs"
    if form != "lazy":
        return form, f"which takes {format_bytes(costs.form_bytes(form))} for {pairs} and leaves room for the rest"
    sizes = " and ".join(f"{form} would take {format_bytes(costs.form_bytes(form))}" for form in forms)
    return "lazy", f"since {sizes} for {pairs}, more than this memory has to spare"


# ---------------------------------------------------------------- what to do about a run that does not fit

FEWER_NODES = "fewer epochs, time steps, units or samples (Trace.subsample) lower it"


def _remedy(p: Params, shape: tuple[int, int, int, int], fits: Callable[[Params], bool]) -> str:
    """The settings with which the run fits: every one that is enough alone, else as few together as will do; tried, not
    guessed."""
    landmarks = list(_halves(p.most_landmarks(shape[0] * shape[1] * shape[2]), FEWEST_LANDMARKS))
    vectors = list(_halves(p.n_svd, FEWEST_VECTORS))
    if p.landmarks != "spectral":
        vectors = []
    if not isinstance(p.landmarks, str):
        landmarks = []
    choices = [
        [] if p.storage == "lazy" else [('storage="lazy"', {"storage": "lazy"})],
        [(f"a smaller n_landmark={n}", {"n_landmark": n}) for n in landmarks],
        [(f"a smaller n_svd={n}", {"n_svd": n}) for n in vectors],
    ]
    for n_changes in (1, 2, 3):
        ways = [_first_way(p, chosen, fits) for chosen in itertools.combinations(choices, n_changes)]
        told = [" and ".join(names) for names in ways if names]
        if told:
            return "by plan it fits with " + (", or with ".join(told) if n_changes == 1 else f"{told[0]} together")
    return f"a smaller n_landmark and {FEWER_NODES}" if landmarks else FEWER_NODES


def _first_way(
    p: Params, chosen: Sequence[Sequence[tuple[str, dict[str, Any]]]], fits: Callable[[Params], bool]
) -> list[str]:
    """The first changes, one from each list of ``chosen``, with which the run fits; none if it does with none."""
    for changes in itertools.product(*chosen):
        settings = {name: value for _, change in changes for name, value in change.items()}
        if fits(replace(p, **settings)):
            return [told for told, _ in changes]
    return []


def _halves(n: int, least: int) -> Iterator[int]:
    """n / 2, n / 4, ... down to ``least``."""
    while n // 2 >= least:
        n //= 2
        yield n


_SIZES = "sizes (epoch, timestep, unit, sample) or (slice, unit, sample)"


def _check_slices(shape: Sequence[int]) -> None:
    if shape[0] * shape[1] < 2:
        raise InputError(f"shape_or_trace has one slice, {tuple(shape)}; at least 2 are needed")


def _is_nested(size: Any) -> bool:
    return isinstance(size, Sized) and not isinstance(size, str)


def _kind_of(argument: Any) -> str:
    """In a few words, however large: never the values."""
    return f"a {type(argument).__name__}" + (f" of length {len(argument)}" if isinstance(argument, Sized) else "")


def _shape_of(shape_or_trace: Any) -> tuple[tuple[int, int, int, int], torch.dtype, Trace | None]:
    if isinstance(shape_or_trace, Trace):
        _check_slices(shape_or_trace.shape)
        return shape_or_trace.shape, shape_or_trace.data.dtype, shape_or_trace
    shape_or_trace = in_order(shape_or_trace) if is_xarray(shape_or_trace) else shape_or_trace
    wide = str(getattr(shape_or_trace, "dtype", "float32")).endswith("float64")
    sizes = getattr(shape_or_trace, "shape", shape_or_trace)
    if isinstance(sizes, str) or not isinstance(sizes, Sequence) or any(map(_is_nested, sizes)):
        raise InputTypeError(f"shape_or_trace is {_kind_of(shape_or_trace)}; accepted: a trace, or {_SIZES}")
    if len(sizes) not in (3, 4):
        raise InputError(f"shape_or_trace has {len(sizes)} sizes; accepted: {_SIZES}")
    for size in sizes:
        check_number("shape_or_trace", size, low=1, integer=True)
    if len(sizes) == 3:
        sizes = (sizes[0], 1, *sizes[1:])
    _check_slices(sizes)
    return tuple(int(size) for size in sizes), torch.float64 if wide else torch.float32, None
