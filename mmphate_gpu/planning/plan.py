"""Bytes and operations of a run, before it starts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

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
from .costs import Costs, Machine, StagePlan
from .sample import Entries, sampled_entries

# The minimum of any data: no interslice entries, and every slice a component of its own. A run is refused at once if
# even this minimum does not fit, and again once the real entries are counted.
LEAST = Entries(interslice=0, intraslice=1, alone=1, tiles=0, loose=1)
# A refusal advises no fewer than these.
FEWEST_LANDMARKS, FEWEST_VECTORS = 100, 10
MOST_THINNED = 16  # a refusal advises to keep at least every 16th time step or epoch
Shape: TypeAlias = tuple[int, int, int, int]  # (epoch, timestep, unit, sample)


class DoesNotFit(InputError):
    """A run needs more memory than is available."""


@dataclass(frozen=True)
class Plan:
    """What a run will take beside what the process already holds; ``str(plan)`` is a table."""

    shape: tuple[int, int, int, int]  # (epoch, timestep, unit, sample)
    device: str
    available_bytes: int
    storage: str  # "sparse", "tiles" or "lazy"
    why: str  # the reason for this form
    stages: tuple[StagePlan, ...]
    remedy: str = ""  # what lowers the peak of a run that does not fit
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


def _cells(stage: StagePlan) -> tuple[str, ...]:
    sizes = format_bytes(stage.bytes), format_bytes(stage.peak_bytes)
    return stage.stage, stage.form, stage.precision, stage.at_once, *sizes, f"{stage.operations:.1e}"


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
    n_init: int = 2,
    refine_knn: int = 0,
    t: int | str = "auto",
    active_share: float | None = None,
    active_tiles: float | None = None,
) -> Plan:
    """Bytes, operations and form of every stage of a run.

    The peak is what the run adds to what the process already holds (torch, the trace). On CUDA it includes the copy of
    the trace, unless that is on the device already; a trace of more than a quarter of the memory is not copied as a
    whole. The samples of a masked trace are not reduced, whatever ``n_pca`` is. For a `Trace` the entries of the
    affinity are estimated from a sample of its rows, without random numbers, in two or three seconds on one core. The
    peak was then within 7 % of that of the process for the cases of benchmarks/suites/pipeline.py on the CPU. A shape
    counts as float32. For a shape, the plan assumes the upper ends of what was measured, and units that are independent
    in each slice.

    Parameters
    ----------
    shape_or_trace : sizes, Trace or array
        Sizes are (epoch, timestep, unit, sample) or (slice, unit, sample). An array has such a shape.
    device : as of `MMPHATE`, or "24 GB card"
        A CUDA card of so many (decimal) gigabytes, which this machine need not have.
    n_landmark, storage, n_pca, n_svd, n_components, landmarks : as of `MMPHATE`
    mds_solver, mds_dist, n_init, refine_knn, t : as of `MMPHATE`
        Other parameters change the peak by a few percent at most.
    active_share : float, optional
        Expected share of the interslice pairs above the threshold, on which the size of ``storage="sparse"`` depends.
        None: 0.27 for a shape, estimated for a Trace.
    active_tiles : float, optional
        Expected share of the tiles of 128 x 128 pairs with such a pair, on which the size of ``storage="tiles"``
        depends. None: 0.51; estimated for a Trace together with ``active_share``, if the run may choose tiles.

    Raises
    ------
    InputError
        The shape is no shape of a trace, or the storage or device is unknown. A run that does not fit is no error: see
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
    mds: dict[str, Any] = {"n_components": n_components, "mds_solver": mds_solver, "mds_dist": mds_dist}
    sizes: dict[str, Any] = {"n_landmark": n_landmark, "n_pca": n_pca, "n_svd": n_svd, "n_init": n_init}
    p = Params(t=t, storage=storage, landmarks=landmarks, refine_knn=refine_knn, **mds, **sizes)
    size = card_bytes(device)
    target = torch.device("cuda") if size is not None else resolve_device(device, None if trace is None else trace.data)
    expected: dict[str, float] = {}
    if active_share is not None:
        expected["interslice"] = check_number("active_share", active_share, low=0, high=1)
    if active_tiles is not None:
        expected["tiles"] = check_number("active_tiles", active_tiles, low=0, high=1)
    entries, p = Entries(), params_for(trace, p)
    if trace is not None and active_share is None:
        may_take_tiles = storage == "tiles" or (storage == "auto" and target.type == "cuda")
        entries = sampled_entries(trace, p, tiles=may_take_tiles and active_tiles is None)
    return plan_run(
        shape,
        p,
        dtype=dtype,
        device=target,
        available=available_bytes(target) if size is None else size,
        entries=entries._replace(**expected),
        card=None if size is None else device,
        trace_on_device=trace is not None and trace.data.device == target,
    )


def check_least(shape_or_trace: Any, p: Params, device: torch.device, available: int) -> None:
    """Refuse a run that cannot fit, however few entries its affinity has; ``shape_or_trace`` as `plan` takes it.

    Raises
    ------
    InputError
        With the numbers, and the setting that helps.
    """
    shape, dtype, trace = _shape_of(shape_or_trace)
    plan_run(shape, params_for(trace, p), dtype=dtype, device=device, available=available, entries=LEAST).check()


def params_for(trace: Trace | None, p: Params) -> Params:
    """The parameters of a run of ``trace``: step 2 does not reduce the samples of a masked trace."""
    return p if trace is None or trace.mask is None else replace(p, n_pca=None)


def plan_run(
    shape: tuple[int, int, int, int],
    p: Params,
    *,
    dtype: torch.dtype,
    device: torch.device,
    available: int,
    entries: Entries,
    card: str | None = None,
    trace_on_device: bool = True,
) -> Plan:
    """The plan of a run with these parameters; ``card`` is the name of a card that this machine need not have."""
    cuda = device.type == "cuda"
    # Triton comes with torch. Whether the other versions of the ops compile on an absent card is unknown; the portable
    # ones take more memory.
    native, triton = card is None and serves(device), cuda and (card is not None or TRITON.why_not() is None)
    machine = Machine(available, cuda, native, triton)
    limit = "" if card else limit_text(free_memory(device))

    def planned(settings: Params, shape: Shape = shape) -> Plan:
        costs = Costs(shape, settings, dtype, entries, machine)
        copied = 0 if trace_on_device else costs.trace_bytes()
        held = copied if copied <= STREAM_SHARE * available else 0  # `Trace.to` leaves a larger one where it is
        storage, why = _form(costs, triton, available, held)
        stages = costs.stages(storage, held)
        return Plan(shape, card or str(device), available, storage, why, stages, limit=limit)

    result = planned(p)
    if result.fits:
        return result
    chosen = replace(p, storage=result.storage)
    remedy = _remedy(chosen, shape, lambda settings: planned(settings).fits)
    return replace(result, remedy=remedy or _thinning(shape, lambda fewer: planned(p, fewer).fits))


def _form(costs: Costs, tiles: bool, available: int, held: float) -> tuple[str, str]:
    """The form that the affinity stage will choose, and the reason."""
    if costs.p.storage != "auto":
        return costs.p.storage, "as asked for"
    share = costs.interslice / costs.pairs
    forms = stored_forms(share, tiles=tiles and suits_half(costs.p.thresh))
    peaks = {form: max(stage.peak_bytes for stage in costs.stages(form, held)) for form in forms}
    form = choose_form(forms, costs.form_bytes, available, leaves_room=lambda form: peaks[form] <= available)
    sizes = {form: format_bytes(costs.form_bytes(form)) for form in forms}
    if form in sizes:
        return form, f"which takes {sizes[form]} for {share:.2g} of the pairs and leaves room for the rest"
    needs = " and ".join(f"{form} would take {size}" for form, size in sizes.items())
    return form, f"since {needs} for {share:.2g} of the pairs, more than this memory has to spare"


# ---------------------------------------------------------------- what to do about a run that does not fit

FEWER_NODES = "fewer epochs, time steps, units or samples (Trace.subsample) lower it"


def _remedy(p: Params, shape: Shape, fits: Callable[[Params], bool]) -> str:
    """The settings with which the run fits, by trial: each that is enough alone, else as few together as are enough.

    The text is empty if none are enough.
    """
    n_landmark = p.most_landmarks(shape[0] * shape[1] * shape[2])
    leaner: dict[str, list[Any]] = {
        "storage": [] if p.storage == "lazy" else ["lazy"],
        "n_landmark": [*_halves(n_landmark, FEWEST_LANDMARKS)] if isinstance(p.landmarks, str) else [],
        "n_svd": [*_halves(p.n_svd, FEWEST_VECTORS)] if p.landmarks == "spectral" else [],
    }
    for n_changes in (1, 2, 3):
        names = itertools.combinations(leaner, n_changes)
        ways = [way for way in (_first_way(p, {name: leaner[name] for name in some}, fits) for some in names) if way]
        if ways:
            return "by plan it fits with " + (", or with ".join(ways) if n_changes == 1 else f"{ways[0]} together")
    return ""


def _thinning(shape: Shape, fits: Callable[[Shape], bool]) -> str:
    """The least thinning of the time steps, and that of the epochs, with which the run fits, by trial."""
    ways = []
    for axis, name in ((1, "timestep"), (0, "epoch")):
        for step in range(2, min(shape[axis], MOST_THINNED) + 1):
            fewer = tuple(-(-size // step) if place == axis else size for place, size in enumerate(shape))
            if fewer[0] * fewer[1] > 1 and fits(fewer):  # type: ignore[arg-type]
                ordinal = {2: "2nd", 3: "3rd"}.get(step, f"{step}th")
                ways.append(f"every {ordinal} {name} (Trace.subsample({name}s=slice(None, None, {step})))")
                break
    return f"by plan it fits if thinned to {', or to '.join(ways)}" if ways else FEWER_NODES


def _first_way(p: Params, leaner: Mapping[str, list[Any]], fits: Callable[[Params], bool]) -> str:
    """The first values, one of each list of ``leaner``, with which the run fits, in words; "" if there are none."""
    for values in itertools.product(*leaner.values()):
        settings = dict(zip(leaner, values, strict=True))
        if fits(replace(p, **settings)):
            words = {"storage": 'storage="lazy"'}
            return " and ".join(words.get(name, f"a smaller {name}={value}") for name, value in settings.items())
    return ""


def _halves(n: int, least: int) -> Iterator[int]:
    """n / 2, n / 4, ... down to ``least``."""
    while n // 2 >= least:
        n //= 2
        yield n


# ---------------------------------------------------------------- the shape that was asked about

SIZES = "sizes (epoch, timestep, unit, sample) or (slice, unit, sample)"


def _shape_of(shape_or_trace: Any) -> tuple[tuple[int, int, int, int], torch.dtype, Trace | None]:
    trace = shape_or_trace if isinstance(shape_or_trace, Trace) else None
    if trace is not None:
        shape, dtype = trace.shape, trace.data.dtype
    else:
        shape = _checked_sizes(in_order(shape_or_trace) if is_xarray(shape_or_trace) else shape_or_trace)
        wide = str(getattr(shape_or_trace, "dtype", "float32")).endswith("float64")
        dtype = torch.float64 if wide else torch.float32
    if shape[0] * shape[1] < 2:
        raise InputError(f"shape_or_trace has one slice, {tuple(shape)}; at least 2 are needed")
    return shape, dtype, trace


def _checked_sizes(shape_or_array: Any) -> tuple[int, int, int, int]:
    sizes = getattr(shape_or_array, "shape", shape_or_array)
    if isinstance(sizes, str) or not isinstance(sizes, Sequence) or any(map(_is_nested, sizes)):
        length = f" of length {len(sizes)}" if isinstance(sizes, Sized) else ""  # never the values: they may be many
        name = f"a {type(shape_or_array).__name__}{length}"
        raise InputTypeError(f"shape_or_trace is {name}; accepted: a trace, or {SIZES}")
    if len(sizes) not in (3, 4):
        raise InputError(f"shape_or_trace has {len(sizes)} sizes; accepted: {SIZES}")
    e, *t, m, p = (int(check_number("shape_or_trace", size, low=1, integer=True)) for size in sizes)
    return e, t[0] if t else 1, m, p


def _is_nested(size: Any) -> bool:
    return isinstance(size, Sized) and not isinstance(size, str)
