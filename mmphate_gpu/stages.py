"""The bookkeeping of a run: what each stage took, and what a later run may use again."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import psutil
import torch

from .runtime.memory import release_cached

logger = logging.getLogger("mmphate_gpu")

Result = TypeVar("Result")
Callback = Callable[[str, int, int], None]  # (stage, stages done, stages in all)
Check = Callable[[Any], None]

# The stages of `pipeline.mmphate`, in order.
STAGES = (
    "normalize",
    "reduce",
    "affinity",
    "landmarks",
    "entropy",
    "potential",
    "distances",
    "mds",
    "interpolate",
)


@dataclass(frozen=True)
class StageReport:
    """What one stage took."""

    stage: str
    seconds: float
    bytes: int  # held by the stage's result
    peak_bytes: int  # the process (CPU) or the allocator (CUDA) up to the end of the stage
    form: str  # what the result is: dtype and shape, or the operator's form
    reused: bool  # whether an earlier run's result served

    def asdict(self) -> dict[str, Any]:
        return asdict(self)


class _Kept(NamedTuple):
    """A result, what it was computed from, and how often each of its tensors had been written to by then."""

    chain: tuple
    result: Any
    versions: dict[int, int]

    def unchanged(self) -> bool:
        now = _versions(self.result)  # an operator may have more tensors by now
        return all(now.get(at) == version for at, version in self.versions.items())


class Stages:
    """Runs stages one after another; a stage whose inputs did not change since the last run is not run again.

    The stages form a chain, so a stage's key is its own parameters behind those of all before it.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.kept: dict[str, _Kept] = {}
        self.start()

    def start(self, callback: Callback | None = None, checks: Mapping[str, Check] | None = None) -> Stages:
        """Begin a run: forget the chain, the reports, the last callback and checks, not the results.

        ``checks`` look at the results of the stages they are named by, and raise to end the run there.
        """
        self.chain: tuple = ()
        self.reports: list[StageReport] = []
        self.callback, self.checks = callback, checks or {}
        self.current = STAGES[0]
        return self

    def result(self, stage: str) -> Any:
        """The result of ``stage``; None where none is kept."""
        return self.kept[stage].result if stage in self.kept else None

    def forget(self, stage: str) -> None:
        """Drop the results of ``stage`` and all after it, and give their memory back to the device."""
        for later in STAGES[STAGES.index(stage) :]:
            self.kept.pop(later, None)
        release_cached(self.device)

    def held_bytes(self, but: tuple[torch.Tensor, ...] = ()) -> int:
        """Bytes of the kept results, without those that ``but`` holds too. A run that replaces the results can use
        these bytes as well."""
        held = _tensors(tuple(kept.result for kept in self.kept.values()))
        return _bytes_of(held.values()) - _bytes_of(held[at] for at in _tensors(but).keys() & held.keys())

    def __call__(self, stage: str, depends_on: tuple, work: Callable[[], Result]) -> Result:
        """The result of ``work``, or the kept one if neither ``depends_on`` nor anything before it changed.

        A kept result is computed again if its tensors have been written to since, by way of the estimator's attributes.
        """
        self.chain, self.current = (*self.chain, stage, depends_on), stage
        kept = self.kept.get(stage)
        reused = kept is not None and kept.chain == self.chain and kept.unchanged()
        started = time.perf_counter()
        result: Any = kept.result if kept is not None and reused else None
        del kept
        if not reused:
            # What follows a changed stage changes too: old and new results need not be in memory together.
            for later in STAGES[STAGES.index(stage) :]:
                self.kept.pop(later, None)
            result = work()
            _synchronize(self.device)
            self.kept[stage] = _Kept(self.chain, result, _versions(result))
        if stage in self.checks:
            self.checks[stage](result)
        self._report(stage, time.perf_counter() - started, result, reused)
        return result

    def _report(self, stage: str, seconds: float, result: Any, reused: bool) -> None:
        report = StageReport(stage, seconds, _bytes(result), peak_bytes(self.device), _form(result), reused)
        self.reports.append(report)
        logger.info("%s: %.2f s, %s%s", stage, seconds, report.form, " (kept)" if reused else "")
        if self.callback is not None:
            self.callback(stage, len(self.reports), len(STAGES))


STATUS = Path("/proc/self/status")  # Linux


def peak_bytes(device: torch.device) -> int:
    """Most memory so far: of the CUDA allocator on ``device``, or of this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    # Linux's ru_maxrss will not do: a process inherits the peak of the one that started it.
    lines = STATUS.read_text(encoding="ascii", errors="replace").splitlines() if STATUS.exists() else []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    import resource  # not there on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts in bytes, Linux in KiB


def held_bytes(device: torch.device) -> int:
    """What is held now: by the CUDA allocator on ``device``, or by this process on the CPU. A run adds its plan's peak
    to it."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return psutil.Process().memory_info().rss


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _parts(result: Any) -> Iterable[Any]:
    if isinstance(result, tuple):
        return result
    if is_dataclass(result):
        return [getattr(result, f.name) for f in fields(result)]
    return vars(result).values() if hasattr(result, "nbytes") else ()


def _every_tensor(result: Any) -> Iterator[torch.Tensor]:
    """The dense tensors that ``result`` holds; several may share their memory."""
    stack = [result]
    while stack:
        item = stack.pop()
        if isinstance(item, torch.Tensor) and item.layout == torch.sparse_csr:
            stack += [item.values(), item.col_indices(), item.crow_indices()]
        elif isinstance(item, torch.Tensor):
            yield item
        else:
            stack += list(_parts(item))


def _tensors(result: Any) -> dict[int, torch.Tensor]:
    """The dense tensors that ``result`` holds, each once, by the address of their memory."""
    return {tensor.data_ptr(): tensor for tensor in _every_tensor(result)}


def _versions(result: Any) -> dict[int, int]:
    """{address: how often torch has written to the memory there}, for the tensors of ``result``."""
    versions: dict[int, int] = {}
    for tensor in _every_tensor(result):  # two that share memory are counted separately
        count = 0 if tensor.is_inference() else tensor._version  # torch does not count for inference tensors
        versions[tensor.data_ptr()] = versions.get(tensor.data_ptr(), 0) + count
    return versions


def _bytes(result: Any) -> int:
    return _bytes_of(_tensors(result).values())


def _bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _form(result: Any) -> str:
    """What ``result``, or the first thing it holds, looks like."""
    if isinstance(result, torch.Tensor):
        return f"{str(result.dtype).removeprefix('torch.')} {tuple(result.shape)}"
    if hasattr(result, "nbytes"):  # an operator
        return repr(result)
    return _form(next(iter(_parts(result))))
