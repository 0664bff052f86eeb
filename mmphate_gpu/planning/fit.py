"""A run within the memory there is: refused early, or done with a leaner affinity."""

from __future__ import annotations

import logging
import math
import re
import warnings
from dataclasses import replace
from typing import NamedTuple

import torch

from ..errors import InputError
from ..operators import AffinityOperator, MultisliceAffinity, SparseAffinity, TiledAffinity
from ..ops.tile_entries import TILE
from ..params import Params
from ..pipeline import Run, mmphate
from ..runtime.memory import format_bytes
from ..stages import STAGES, Callback, Stages
from ..trace import Trace
from .costs import Entries
from .plan import FEWER_NODES, LEAST, DoesNotFit, Plan, plan_run

logger = logging.getLogger("mmphate_gpu")

# Parts of the messages for memory that ran out, in errors that are not MemoryErrors: from torch's CPU allocator, C++,
# cuBLAS, cuSOLVER, Triton, Python's threads and the loader of shared libraries.
TOLD = (
    "out of memory",
    "can't allocate memory",
    "bad_alloc",
    "ALLOC_FAILED",
    "Cannot allocate memory",
    "can't start new thread",
    "failed to map segment",
)


def ran_out(error: BaseException | None) -> str | None:
    """What ``error``, or one that it was raised on top of, says of memory that ran out; None if neither does.

    Memory that runs out while a CUDA graph is captured breaks the capture, which ends with an error of its own.
    """
    while error is not None:
        sentences = re.split(r"\. |\n", str(error))
        telling = [sentence for sentence in sentences if any(words in sentence for words in TOLD)]
        if telling or isinstance(error, (torch.OutOfMemoryError, MemoryError)):
            return (telling or sentences)[0] or "out of memory"
        error = error.__cause__ or error.__context__
    return None


class Failure(NamedTuple):
    """How an attempt ended: in words, since an exception's traceback would hold every tensor of the run."""

    told: str
    stage: str
    storage: str
    foreseen: bool  # by the plan, before anything ran out


def run_within_memory(trace: Trace, p: Params, stages: Stages, callback: Callback | None, available: int) -> Run:
    """`mmphate`, and once more with the matrix-free affinity where a stored one leaves too little memory.

    That is where the plan, asked again once the entries are counted, has no room for the rest (``storage="auto"`` means
    the matrix-free form then), and where torch runs out of memory in spite of it. What the first attempt held from the
    affinity on is let go before the second.

    Warns
    -----
    RuntimeWarning
        Out of memory with a stored affinity.

    Raises
    ------
    InputError
        A run that does not fit; with the numbers, and the setting that helps.
    """
    found = _attempt(trace, p, stages, callback, available)
    if isinstance(found, Failure) and _leaner_helps(found, p):
        stages.forget("affinity")
        if found.foreseen:
            logger.info("%s", found.told)
        else:
            again = f'storage="{found.storage}" gives way to the leaner storage="lazy"'
            warnings.warn(f"{found.told} in stage {found.stage!r}: {again}", RuntimeWarning, stacklevel=4)
        p = replace(p, storage="lazy")
        found = _attempt(trace, p, stages, callback, available)
    if isinstance(found, Failure):
        stages.forget("affinity")
        raise DoesNotFit(found.told) if found.foreseen else _out_of_memory(trace, p, found, stages.device, available)
    return found


def _attempt(trace: Trace, p: Params, stages: Stages, callback: Callback | None, available: int) -> Run | Failure:
    def check(affinity: MultisliceAffinity) -> None:
        _plan_of_counted(trace, p, affinity.operator, available).check()

    try:
        return mmphate(trace, p, stages.start(callback, {"affinity": check}))
    except DoesNotFit as error:
        return Failure(str(error), stages.current, _storage(stages, p), True)
    except (MemoryError, RuntimeError, OSError, ImportError) as error:
        told = ran_out(error)  # in words: a name for the error itself would close a cycle through its traceback
        if told is None:
            raise
        return Failure(told, stages.current, _storage(stages, p), False)


def _leaner_helps(failure: Failure, p: Params) -> bool:
    """Whether there is a leaner form; one that was asked for is only given up when memory has run out."""
    may = not failure.foreseen or p.storage == "auto"
    return may and failure.storage != "lazy" and STAGES.index(failure.stage) >= STAGES.index("affinity")


def _storage(stages: Stages, p: Params) -> str:
    """The form the affinity took; what was asked for where it was not finished."""
    affinity = stages.result("affinity")
    return p.storage if affinity is None else affinity.operator.storage


def _plan(trace: Trace, p: Params, available: int, entries: Entries) -> Plan:
    about = {"dtype": trace.data.dtype, "device": trace.data.device, "available": available}
    return plan_run(trace.shape, p, entries=entries, **about)


def _plan_of_counted(trace: Trace, p: Params, operator: AffinityOperator, available: int) -> Plan:
    """The plan with the form that the affinity took, and with its own number of entries."""
    n_pairs = trace.n_nodes * (trace.n_slices - 1)
    entries = LEAST
    if isinstance(operator, SparseAffinity):
        entries = LEAST._replace(interslice=(operator.nnz - trace.n_nodes) / n_pairs)
    elif isinstance(operator, TiledAffinity):
        in_all = trace.n_units * math.ceil(trace.n_slices / TILE) ** 2
        entries = LEAST._replace(tiles=operator.layout.n_active / in_all)
    return _plan(trace, replace(p, storage=operator.storage), available, entries)


def _out_of_memory(trace: Trace, p: Params, failure: Failure, device: torch.device, available: int) -> InputError:
    plan = _plan(trace, p, available, LEAST)
    free = f"{format_bytes(available)} available{plan.limit}"
    numbers = f"it takes at least {format_bytes(plan.peak_bytes)}, and {device} had {free}"
    what = f'a trace of shape {trace.shape} ran out of memory in stage {failure.stage!r} with storage="{p.storage}"'
    return InputError(f"{what} ({failure.told}): {numbers}; {plan.remedy or FEWER_NODES}")
