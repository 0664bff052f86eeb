"""Bytes and operations of a run, before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .affinities.multislice import SPARSE_SHARE
from .operators.assemble import assembled_bytes
from .operators.lazy import MOST
from .ops.chunks import CHUNK_ELEMENTS
from .ops.devices import resolve_device
from .ops.memory import available_bytes, format_bytes
from .params import STORAGES, InputError, InputTypeError, Params, check_choice, check_number
from .trace import Trace

# Share of the interslice pairs above thresh = 1e-4. Measured: 0.02 to 0.03 (Hopf units), up to 0.27 (pitchfork units).
# The plan takes the upper end; the run itself counts the entries before it stores them.
ACTIVE_SHARE = 0.27
# Share of the landmark columns that a node reaches, at ACTIVE_SHARE.
REACHED_SHARE = 0.15
KRYLOV_PASSES = 5
SMACOF_SWEEPS = 150


@dataclass(frozen=True)
class StagePlan:
    """What one stage will take."""

    stage: str
    form: str
    bytes: int  # kept until the run ends
    peak_bytes: int  # with what was kept before it, while the stage works
    operations: float  # floating-point operations


@dataclass(frozen=True)
class Plan:
    """What a run will take; ``str(plan)`` is a table."""

    shape: tuple[int, int, int, int]  # (epoch, timestep, unit, sample)
    device: str
    available_bytes: int
    storage: str  # "sparse" or "lazy"
    stages: tuple[StagePlan, ...]

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
        raise InputError(
            f"a trace of shape {self.shape} needs {format_bytes(self.peak_bytes)} in stage {worst.stage!r} but "
            f"{self.device} has {format_bytes(self.available_bytes)} available; {_REMEDIES[worst.stage]}"
        )

    def __str__(self) -> str:
        e, t, m, p = self.shape
        head = f"{e} epochs x {t} timesteps x {m} units x {p} samples = {e * t * m:,} nodes on {self.device}"
        rows = [f"{'stage':<12}{'form':<26}{'kept':>11}{'peak':>11}{'operations':>12}"]
        rows += [
            f"{s.stage:<12}{s.form:<26}{format_bytes(s.bytes):>11}{format_bytes(s.peak_bytes):>11}{s.operations:>12.1e}"
            for s in self.stages
        ]
        verdict = "fits" if self.fits else "does NOT fit"
        tail = f"peak {format_bytes(self.peak_bytes)} of {format_bytes(self.available_bytes)} available: {verdict}"
        return "\n".join([head, *rows, tail])


_FEWER_NODES = "fewer epochs, time steps or units (Trace.subsample) lower them"
_FEWER_LANDMARKS = "a smaller n_landmark lowers them"
_REMEDIES = {
    "normalize": "fewer samples or nodes (Trace.subsample) lower them",
    "reduce": "a smaller n_pca or fewer nodes (Trace.subsample) lower them",
    "affinity": f'storage="lazy" lowers them, and so do {_FEWER_NODES.removesuffix(" lower them")}',
    "landmarks": f"a smaller n_landmark or n_svd lowers them; {_FEWER_NODES}",
    "entropy": _FEWER_LANDMARKS,
    "potential": _FEWER_LANDMARKS,
    "distances": _FEWER_LANDMARKS,
    "mds": _FEWER_LANDMARKS,
    "interpolate": _FEWER_NODES,
}


def plan(
    shape_or_trace: Sequence[int] | Trace | Any,
    *,
    n_landmark: int | None = 4000,
    device: Any = "auto",
    storage: str = "auto",
    n_pca: int | None = 100,
    n_svd: int = 100,
    n_components: int = 2,
    active_share: float = ACTIVE_SHARE,
) -> Plan:
    """Bytes, operations and form of every stage of a run.

    Parameters
    ----------
    shape_or_trace : (epoch, timestep, unit, sample) or (slice, unit, sample) sizes, a Trace, or an array of such a
    shape
    active_share : float
        Share of the interslice pairs expected above the threshold; decides what ``storage="sparse"`` takes.

    Raises
    ------
    InputError
        A shape that is no trace's, an unknown storage or device. A run that does not fit is no error here: see
        `Plan.check`.

    Examples
    --------
    >>> plan((127, 128, 30, 6), device="cpu", storage="lazy").storage
    'lazy'
    """
    check_choice("storage", storage, STORAGES)
    check_number("active_share", active_share, low=0, high=1)
    shape, dtype, like = _shape_of(shape_or_trace)
    where = resolve_device(device, like)
    there = available_bytes(where)
    params = Params(n_landmark=n_landmark, n_pca=n_pca, n_svd=n_svd, n_components=n_components, storage=storage)
    return plan_run(shape, params, dtype=dtype, device=where, available=there, active_share=active_share)


def plan_run(
    shape: tuple[int, int, int, int],
    p: Params,
    *,
    dtype: torch.dtype,
    device: torch.device,
    available: int,
    active_share: float = ACTIVE_SHARE,
) -> Plan:
    """The plan of a run with these parameters."""
    sizes = _Sizes(shape, p, dtype)
    storage = p.storage
    if storage == "auto":
        storage = "sparse" if sizes.sparse_bytes(active_share) <= SPARSE_SHARE * available else "lazy"
    stages, kept = [], 0
    for stage, form, bytes_kept, working, operations in sizes.stages(storage, active_share):
        stages.append(StagePlan(stage, form, int(bytes_kept), int(kept + bytes_kept + working), operations))
        kept += bytes_kept
    return Plan(shape, str(device), available, storage, tuple(stages))


class _Sizes:
    """Cost formulas of the stages; the letters are those of docs/architecture.md."""

    def __init__(self, shape: tuple[int, int, int, int], p: Params, dtype: torch.dtype) -> None:
        self.S, self.M, self.D = shape[0] * shape[1], shape[2], shape[3]
        self.N = self.S * self.M
        self.L = p.most_landmarks(self.N)
        self.K = self.D if p.n_pca is None else min(self.D, p.n_pca)
        self.p, self.dtype, self.item = p, dtype, dtype.itemsize
        self.landmarked = self.L < self.N
        # A few float64 temporaries of one chunk, with index arrays of the entries found in it (the portable ops); or
        # the rows that the lazy form makes at a time.
        pairs = max(self.S, self.M) ** 2 * self.M
        self.chunks = max(8 * 8 * min(CHUNK_ELEMENTS, pairs), min(MOST, pairs) * (self.item + 4))

    def sparse_bytes(self, active_share: float) -> float:
        interslice = active_share * self.M * self.S * (self.S - 1)
        return assembled_bytes(int(interslice + self.intraslice_nnz()), self.N, self.dtype)

    def intraslice_nnz(self) -> float:
        return self.N * min(self.M, 8)  # a bandwidth at the second neighbour reaches a handful

    def stages(self, storage: str, active_share: float) -> list[tuple[str, str, float, float, float]]:
        """(stage, form, bytes kept, bytes only while it works, operations)."""
        S, M, D, N, L, K, item = self.S, self.M, self.D, self.N, self.L, self.K, self.item
        C = min(self.p.n_svd + 10, N)
        pairs = M * S * (S - 1)
        lazy = 8 * N * (K + 1) + self.intraslice_nnz() * (item + 4)
        reduced = K < D
        stored = self.sparse_bytes(active_share)
        product = 2 * C * active_share * pairs + (3 * K * pairs if storage == "lazy" else 0)
        square = 8 * L * L
        rows = [
            ("normalize", f"float64 {(S, M, D)}", 8 * N * D, 4 * 8 * min(N * D, 2**22), 5 * N * D),
            (
                "reduce",
                f"float64 {(S, M, K)}",
                8 * N * K if reduced else 0,
                8 * (2 * min(D, N) ** 2 + 2 * min(N * D, 2**22)) if reduced else 0,
                2 * N * D * min(D, N) if reduced else 0,
            ),
            (
                "affinity",
                "CSR" if storage == "sparse" else "matrix-free",
                stored if storage == "sparse" else lazy,
                self.chunks + (lazy if storage == "sparse" else 0) + 16 * N * min(self.p.interslice_knn, S - 1),
                3 * K * pairs * (3 if storage == "sparse" else 1),
            ),
        ]
        if self.landmarked:
            aggregated = REACHED_SHARE * N * L * (item + 4)
            # The basis, and a few blocks of its width; or the points unit by unit, and k-means' own copies of them.
            search = (KRYLOV_PASSES + 4) * C * N * 8 if self.p.landmarks == "spectral" else 4 * N * (K + 1) * 8
            # Dense blocks of one square, their product and its parts; or the sparse product and its dense form.
            gram = 5 * square + aggregated * (1 + 12 / (item + 4))
            rows.append(
                (
                    "landmarks",
                    f"float64 {(L, L)}",
                    square + aggregated + 8 * N,
                    max(search, gram) + self.chunks,
                    (KRYLOV_PASSES + 2) * product + 20 * 2 * N * L * C + 2 * N * (REACHED_SHARE * L) ** 2,
                )
            )
        else:
            rows.append(("landmarks", f"float64 {(N, N)}", square, 2 * square, N * N))
        rows += [
            ("entropy", "float64 (t_max,)", 0, 3 * square, 6 * L**3),
            ("potential", f"float64 {(L, L)}", square, 6 * square, 12 * L**3),
            ("distances", f"float64 {(L, L)}", square, 4 * square, 2 * L**3),
            ("mds", f"float64 {(L, self.p.n_components)}", 0, 2 * square, SMACOF_SWEEPS * 20 * L * L),
            (
                "interpolate",
                f"({N}, {self.p.n_components})",
                item * N * self.p.n_components,
                0,
                2 * N * L * REACHED_SHARE,
            ),
        ]
        return rows


_SIZES = "sizes (epoch, timestep, unit, sample) or (slice, unit, sample)"


def _check_slices(shape: Sequence[int]) -> None:
    if shape[0] * shape[1] < 2:
        raise InputError(f"shape_or_trace has one slice, {tuple(shape)}; at least 2 are needed")


def _shape_of(given: Any) -> tuple[tuple[int, int, int, int], torch.dtype, torch.Tensor | None]:
    if isinstance(given, Trace):
        _check_slices(given.shape)
        return given.shape, given.data.dtype, given.data
    wide = str(getattr(given, "dtype", "float32")).endswith("float64")
    sizes = getattr(given, "shape", given)
    if isinstance(sizes, str) or not isinstance(sizes, Sequence):
        raise InputTypeError(f"shape_or_trace={given!r} is a {type(given).__name__}; accepted: a trace, or {_SIZES}")
    if len(sizes) not in (3, 4):
        raise InputError(f"shape_or_trace has {len(sizes)} sizes, {tuple(sizes)}; accepted: {_SIZES}")
    for size in sizes:
        check_number("shape_or_trace", size, low=1, integer=True)
    if len(sizes) == 3:
        sizes = (sizes[0], 1, *sizes[1:])
    _check_slices(sizes)
    return tuple(int(size) for size in sizes), torch.float64 if wide else torch.float32, None
