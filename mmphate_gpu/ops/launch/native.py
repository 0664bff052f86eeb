"""The C++ twins of csrc/cpu: found, checked and called through ctypes.

One function per op, with the signature of its portable version. Arguments have been checked by whoever calls the op;
here they are only made contiguous.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.metadata
import os
import warnings
from pathlib import Path
from typing import Any

import torch

from ...runtime.checksums import checksum_path, differs_from_checksum
from ..csr import index_dtype, indptr_of_counts

# Set to 0 to have the portable versions serve although the library is there.
SWITCH = "MMPHATE_GPU_NATIVE"
# The library to load, instead of the one that was installed: one with sanitizers, for the tests.
PATH_VARIABLE = "MMPHATE_GPU_LIBRARY"
LIBRARY = "libmmphate_cpu.so"
# Rows whose k-th distance brackets the median: 256 put it within 10 % of the ranks, at 3 % of the cost of all rows of
# a set of 8000.
SAMPLED = 256
PACKAGE = Path(__file__).resolve().parents[2]

# The types that C++ expects of the tensors of every op, in order. In one call equal letters mean the same type.
TENSORS = {
    "radius_count": "dl",
    "radius_fill": "dlllif",
    "symmetrized_affinity": "ddllif",
    "kth_neighbor_distance": "dd",
    "median_kth_neighbor_distance": "dd",
    "csr_matmul": "iifgg",
    "landmark_aggregate": "iifsllsf",
    "guttman_transform": "fddd",
    "assign_nearest": "fflf",
}
FLOATS = (torch.float32, torch.float64)
TYPES = {
    "d": (torch.float64,),
    "l": (torch.int64,),
    "s": (torch.int32,),
    "i": (torch.int32, torch.int64),
    "f": FLOATS,
    "g": FLOATS,
}


class NativeError(RuntimeError):
    """A twin refused what its portable version serves: a fault of this package."""


@functools.cache
def why_no_native() -> str | None:
    """Why the C++ twins do not serve, or None if they do; warns where a library is there but of no use."""
    reason, path = _reason(), _library_path()
    if reason is not None and path is not None and reason.startswith(path.name):
        warnings.warn(f"the portable torch versions serve: {reason}", RuntimeWarning, stacklevel=2)
    return reason


def switched_off() -> bool:
    """Whether the environment asks for the portable versions."""
    return os.environ.get(SWITCH, "1") == "0"


def _reason() -> str | None:
    if switched_off():
        return f"{SWITCH}=0 in the environment"
    path = _library_path()
    if path is None:
        return f"{LIBRARY} was not built (no C++ compiler at install, or built without csrc)"
    try:
        if differs_from_checksum(path):
            return f"{path.name} is damaged: its hash differs from that in {checksum_path(path).name}; install it again"
        _library()
    except OSError as error:
        return f"{path.name} does not load: {error}"
    except AttributeError as error:
        return f"{path.name} has no entry point of the C++ twins: {error}"
    stamp, wanted = _library().mmphate_stamp().decode(), _sources_stamp()
    if wanted is not None and stamp != wanted:
        return f"{path.name} was built from other sources than csrc holds now; build it again"
    return None


def isa() -> str:
    """The instruction set of the twins that serve: "avx512", "avx2" or "baseline"."""
    return _library().mmphate_isa().decode()


def _library_path() -> Path | None:
    """Beside the package, or, for a source tree in front of an installed package, where that one is installed.

    ``MMPHATE_GPU_LIBRARY`` in the environment names another one.
    """
    if named := os.environ.get(PATH_VARIABLE):
        return Path(named)
    own = PACKAGE / "_native" / LIBRARY
    if own.exists():
        return own
    try:
        installed = importlib.metadata.distribution("mmphate-gpu").locate_file(f"mmphate_gpu/_native/{LIBRARY}")
    except importlib.metadata.PackageNotFoundError:
        return None
    return Path(str(installed)) if Path(str(installed)).exists() else None


def _sources_stamp() -> str | None:
    """The stamp of the sources beside the package (as CMakeLists.txt makes it); None where there are none."""
    csrc = PACKAGE.parent / "csrc"
    files = [*csrc.glob("cpu/*.cpp"), *csrc.glob("cpu/*.h"), *csrc.glob("common/*.h")]
    if not files:
        return None
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files, key=str)]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(_library_path()))
    library.mmphate_isa.restype = library.mmphate_stamp.restype = ctypes.c_char_p
    return library


def _call(op: str, *arguments: object) -> None:
    """Run ``op`` of the instruction set that serves, with the threads torch has."""
    _check_tensors(op, [argument for argument in arguments if argument is None or isinstance(argument, torch.Tensor)])
    function = getattr(_library(), f"mmphate_{op}_{isa()}")
    status = function(*map(_c, arguments), ctypes.c_int(torch.get_num_threads()))
    if status == 1:
        raise MemoryError(f"{op}: out of memory")
    if status:
        raise NativeError(f"{op}: status {status} for {[_brief(argument) for argument in arguments]}")


def _check_tensors(op: str, tensors: list[torch.Tensor | None]) -> None:
    """Raise `NativeError` for a tensor whose memory C++ would misread; None stands for an omitted tensor."""
    types = dict(TYPES)
    for place, (letter, tensor) in enumerate(zip(TENSORS[op], tensors, strict=True)):
        if tensor is None:
            continue
        if tensor.device.type != "cpu" or tensor.dtype not in types[letter] or not tensor.is_contiguous():
            layout = "contiguous" if tensor.is_contiguous() else "not contiguous"
            accepted = " or ".join(map(str, types[letter]))
            raise NativeError(
                f"{op}: tensor {place} is {tensor.dtype} on {tensor.device}, {layout}; accepted: {accepted} on the "
                "CPU, contiguous"
            )
        types[letter] = (tensor.dtype,)


def _c(argument: Any) -> object:
    if isinstance(argument, torch.Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, bool):
        return ctypes.c_int(argument)
    if isinstance(argument, int):
        return ctypes.c_int64(argument)
    return ctypes.c_void_p(None) if argument is None else ctypes.c_double(argument)


def _brief(argument: object) -> object:
    return tuple(argument.shape) if isinstance(argument, torch.Tensor) else argument


def _is_float(tensor: torch.Tensor) -> bool:
    return tensor.dtype == torch.float32


def _is_wide(tensor: torch.Tensor) -> bool:
    return tensor.dtype == torch.int64


def radius_counts(points: torch.Tensor, reach: float) -> torch.Tensor:
    points = points.contiguous()
    counts = points.new_empty(points.shape[:2], dtype=torch.int64)
    _call("radius_count", points, *points.shape, reach, counts)
    return counts


def radius_fill(
    points: torch.Tensor,
    bandwidth: float,
    decay: float,
    reach: float,
    first: int,
    last: int,
    indptr: torch.Tensor,
    gap: torch.Tensor,
    indices: torch.Tensor,
    values: torch.Tensor,
) -> torch.Tensor:
    points = points.contiguous()
    gap_at = torch.empty_like(gap)
    kernel = (reach, bandwidth, float(decay))
    storage = (indices, _is_wide(indices), values, _is_float(values))
    _call("radius_fill", points, *points.shape, first, last, *kernel, indptr, gap, gap_at, *storage)
    return gap_at


def symmetrized_affinity(
    points: torch.Tensor,
    bandwidth: torch.Tensor,
    decay: float,
    thresh: float,
    smallest: float,
    cut: float,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    points, bandwidth = points.contiguous(), bandwidth.contiguous()
    given = (points, bandwidth, *points.shape, float(decay), float(thresh), float(smallest), float(cut))
    counts = points.new_empty(bandwidth.numel(), dtype=torch.int64)
    _call("symmetrized_affinity", *given, None, counts, None, False, None, False)
    indptr = indptr_of_counts(counts)
    kind = index_dtype(int(indptr[-1]), points.shape[1])
    indices = indptr.new_empty(int(indptr[-1]), dtype=kind)
    values = indptr.new_empty(int(indptr[-1]), dtype=dtype)
    _call("symmetrized_affinity", *given, indptr, None, indices, _is_wide(indices), values, _is_float(values))
    return indptr.to(kind), indices, values


def kth_neighbor_distance(points: torch.Tensor, k: int) -> torch.Tensor:
    points = points.contiguous()
    distances = points.new_empty(points.shape[:2])
    _call("kth_neighbor_distance", points, *points.shape, k, distances)
    return distances


def median_kth_neighbor_distance(points: torch.Tensor, k: int) -> torch.Tensor:
    points = points.contiguous()
    medians = points.new_empty(points.shape[0])
    _call("median_kth_neighbor_distance", points, *points.shape, k, SAMPLED, medians)
    return medians


def csr_matmul(
    indptr: torch.Tensor, indices: torch.Tensor, values: torch.Tensor, block: torch.Tensor, interleave: int
) -> torch.Tensor:
    indptr, indices, values, block = (part.contiguous() for part in (indptr, indices, values, block))
    out = block.new_empty(indptr.numel() - 1, block.shape[1])
    matrix = (indptr, indices, _is_wide(indices), values, _is_float(values))
    _call("csr_matmul", *matrix, block, out, _is_float(block), out.shape[0], *block.shape, interleave)
    return out


def landmark_aggregate(
    indptr: torch.Tensor, indices: torch.Tensor, values: torch.Tensor, labels: torch.Tensor, n: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    labels = labels.to(torch.int32).contiguous()
    indptr, indices, values = (part.contiguous() for part in (indptr, indices, values))
    matrix = (indptr, indices, _is_wide(indices), values, _is_float(values), labels, indptr.numel() - 1, n)
    counts = indptr.new_empty(indptr.numel() - 1, dtype=torch.int64)
    _call("landmark_aggregate", *matrix, None, counts, None, None)
    out_indptr = indptr_of_counts(counts)
    nnz = int(out_indptr[-1])
    out_indices, out_values = labels.new_empty(nnz), values.new_empty(nnz)
    _call("landmark_aggregate", *matrix, out_indptr, None, out_indices, out_values)
    kind = index_dtype(nnz, n)
    return out_indptr.to(kind), out_indices.to(kind), out_values


def guttman_transform(distances: torch.Tensor, points: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    distances, points = distances.contiguous(), points.contiguous()
    moved, raw, together = torch.empty_like(points), points.new_empty(()), float(share * points.abs().max())
    _call("guttman_transform", distances, _is_float(distances), points, moved, raw, *points.shape, together)
    return moved, raw


def assign_nearest(points: torch.Tensor, centers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    points, centers = points.contiguous(), centers.contiguous()
    n, n_features = points.shape[-2:]
    labels = points.new_empty(points.shape[:-1], dtype=torch.int64)
    squared = points.new_empty(points.shape[:-1])
    sizes = (points.shape[:-2].numel(), n, centers.shape[-2], n_features)
    _call("assign_nearest", points, _is_float(points), centers, *sizes, labels, squared)
    return labels, squared
