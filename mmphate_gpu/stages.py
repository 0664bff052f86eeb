"""The stages of a run: their times, memory and progress, and the results that a later run can use again."""

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
    """Time and memory of one stage."""

    stage: str
    seconds: float
    bytes: int  # of the result
    peak_bytes: int  # highest use of the process (CPU) or the allocator (CUDA) up to the end of the stage
    form: str  # dtype and shape of the result, or the form of the operator
    reused: bool  # whether the result is that of an earlier run

    def asdict(self) -> dict[str, Any]:
        return asdict(self)


class _Kept(NamedTuple):
    """A result with its key, and how often torch had written to each of its tensors when it was stored."""

    chain: tuple
    result: Any
    versions: dict[int, int]

    def unchanged(self) -> bool:
        now = _versions(self.result)  # an operator may have made more tensors since
        return all(now.get(at) == version for at, version in self.versions.items())


class Stages:
    """Runs stages one after another. A stage is not run again if its inputs are those of the last run.

    The stages form a chain, so the key of a stage is the options of all stages up to it.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.kept: dict[str, _Kept] = {}
        self.start()

    def start(self, callback: Callback | None = None, checks: Mapping[str, Check] | None = None) -> Stages:
        """Begin a run with an empty chain and no reports. The results of earlier runs stay.

        ``checks`` maps a stage to a function that gets the result of the stage, and that raises to end the run.
        """
        self.chain: tuple = ()
        self.reports: list[StageReport] = []
        self.callback, self.checks = callback, checks or {}
        self.current = STAGES[0]
        return self

    def result(self, stage: str) -> Any:
        """The kept result of ``stage``, or None."""
        return self.kept[stage].result if stage in self.kept else None

    def forget(self, stage: str) -> None:
        """Drop the results of ``stage`` and of all later stages, and return their memory to the device."""
        for later in STAGES[STAGES.index(stage) :]:
            self.kept.pop(later, None)
        release_cached(self.device)

    def held_bytes(self, without: tuple[torch.Tensor, ...] = ()) -> int:
        """Bytes of the kept results, but not of ``without``. A run that replaces the results frees these bytes."""
        held = _tensors(tuple(kept.result for kept in self.kept.values()))
        return _bytes_of(held.values()) - _bytes_of(held[at] for at in _tensors(without).keys() & held.keys())

    def __call__(self, stage: str, work: Callable[..., Result], *inputs: Any, **options: Any) -> Result:
        """The result of ``work(*inputs, **options)``, or the kept result if no option of the chain has changed.

        ``inputs`` are the trace and the results of earlier stages, so the options of the chain identify them.
        Everything else that decides the result is in ``options``, whose values are hashable. A kept result is computed
        again if a user has written into its tensors, through the attributes of the estimator.
        """
        self.chain, self.current = (*self.chain, stage, tuple(options.items())), stage
        kept = self.kept.get(stage)
        reused = kept is not None and kept.chain == self.chain and kept.unchanged()
        started = time.perf_counter()
        result: Any = kept.result if kept is not None and reused else None
        del kept
        if not reused:
            # Later stages change too. Drop their results first, so that old and new ones are not in memory together.
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
    for tensor in _every_tensor(result):  # tensors that share memory may have separate counters
        count = 0 if tensor.is_inference() else tensor._version  # torch does not count for inference tensors
        versions[tensor.data_ptr()] = versions.get(tensor.data_ptr(), 0) + count
    return versions


def _bytes(result: Any) -> int:
    return _bytes_of(_tensors(result).values())


def _bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _form(result: Any) -> str:
    """Dtype and shape of ``result``, or the form of the operator; of its first part if it has parts."""
    if isinstance(result, torch.Tensor):
        return f"{str(result.dtype).removeprefix('torch.')} {tuple(result.shape)}"
    if hasattr(result, "nbytes"):  # an operator
        return repr(result)
    return _form(next(iter(_parts(result))))


def progress_bar(total: int, **options: Any) -> Any:
    """A tqdm bar on stderr. If writing to stderr fails, nothing is drawn and the run goes on."""
    from tqdm import tqdm

    return tqdm(total=total, file=lenient(sys.stderr), **options)


@contextmanager
def progress_callback(verbose: int | bool, callback: Callback | None) -> Iterator[Callback | None]:
    """A callback that draws a bar if ``verbose``, and calls ``callback``. The bar is closed when the block ends."""
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
