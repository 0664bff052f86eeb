"""The stages of a run: their times and memory, their progress, and the results that a later run can use again."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, NamedTuple, TypeVar

import torch

from .errors import InputTypeError
from .params import STAGE_PARAMETERS
from .runtime.memory import release_cached
from .runtime.memory_use import peak_bytes
from .runtime.streams import lenient

logger = logging.getLogger("mmphate_gpu")

Result = TypeVar("Result")
Callback = Callable[[str, int, int], None]  # (stage, stages done, stages in all)
Check = Callable[[Any], None]

STAGES = tuple(STAGE_PARAMETERS)


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

    def __call__(self, stage: str, work: Callable[..., Result], *inputs: Any, **options: Any) -> Result:
        """The result of ``work(*inputs, **options)``, or the kept one if no option of the chain so far has changed.

        ``inputs`` are the trace and the results of earlier stages, which the chain stands for; everything else that
        decides the result is in ``options``, whose values are hashable. A kept result is computed again if its tensors
        have been written to since, through the estimator's attributes.
        """
        self.chain, self.current = (*self.chain, stage, tuple(options.items())), stage
        kept = self.kept.get(stage)
        reused = kept is not None and kept.chain == self.chain and kept.unchanged()
        started = time.perf_counter()
        result: Any = kept.result if kept is not None and reused else None
        del kept
        if not reused:
            # What follows a changed stage changes too: old and new results need not be in memory together.
            for later in STAGES[STAGES.index(stage) :]:
                self.kept.pop(later, None)
            result = work(*inputs, **options)
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


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _parts(result: Any) -> Iterable[Any]:
    if isinstance(result, tuple):
        return result
    return vars(result).values() if is_dataclass(result) or hasattr(result, "nbytes") else ()


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


def progress_bar(total: int, **options: Any) -> Any:
    """A tqdm bar on stderr. If stderr cannot be written to, nothing is drawn and the run goes on."""
    from tqdm import tqdm

    return tqdm(total=total, file=lenient(sys.stderr), **options)


@contextmanager
def progress_callback(verbose: int | bool, callback: Callback | None) -> Iterator[Callback | None]:
    """A callback that draws a bar if ``verbose`` and passes on to ``callback``; the bar is closed on leaving."""
    if callback is not None and not callable(callback):
        raise InputTypeError(f"callback={callback!r} must be callable with (stage, done, total), or None")
    if not verbose:
        yield callback
        return
    with progress_bar(len(STAGES), desc="MM-PHATE", unit="stage") as bar:

        def both(stage: str, done: int, total: int) -> None:
            bar.set_postfix_str(stage, refresh=False)
            bar.update(done - bar.n)
            if callback is not None:
                callback(stage, done, total)

        yield both
