"""A run within the free memory: refused early, or done with a leaner affinity."""

from __future__ import annotations

import logging
import re
import warnings
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from ..errors import InputError
from ..mds.starts import start_dimensions
from ..operators import MultisliceAffinity
from ..params import Params
from ..pipeline import Run, mmphate
from ..runtime.busy_cores import sharing_cores
from ..runtime.memory import format_bytes
from ..stages import STAGES, Callback, Stages
from ..trace import Trace
from .plan import FEWER_NODES, LEAST, DoesNotFit, Plan, params_for, plan_run
from .sample import Entries

logger = logging.getLogger("mmphate_gpu")

# Parts of the messages about memory that ran out, in errors that are not MemoryErrors: from torch's CPU allocator, C++,
# cuBLAS, cuSOLVER, Triton, Python's threads and the loader of shared libraries.
OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "bad_alloc",
    "ALLOC_FAILED",
    "Cannot allocate memory",
    "can't start new thread",
    "failed to map segment",
)


def launch_sizes(trace: Trace, params: Params) -> dict[str, Any]:
    """The arguments of `compile_ahead`: the sizes and the type that decide which CUDA kernels a fit launches."""
    masked = trace.mask is not None  # its samples are not reduced by PCA
    n_landmarks = params.most_landmarks(trace.n_nodes)
    return {
        "n_points": trace.n_slices,
        "n_features": trace.n_samples if masked else min(trace.n_samples, params.n_pca or trace.n_samples),
        "n_columns": params.n_svd + 10,  # of the blocks of `top_eigenpairs`
        "n_components": params.n_components,
        "wide": trace.data.dtype == torch.float64,
        "masked": masked,
        "surplus": tuple(start_dimensions(params.n_components, params.further_starts, n_landmarks)),
    }


def ran_out(error: BaseException | None) -> str | None:
    """The sentence about memory that ran out, in ``error`` or in an error that it followed; None without one.

    If memory runs out while a CUDA graph is captured, the capture breaks and ends with an error of its own.
    """
    while error is not None:
        sentences = re.split(r"\. |\n", str(error))
        about_memory = [sentence for sentence in sentences if any(words in sentence for words in OUT_OF_MEMORY)]
        if about_memory or isinstance(error, (torch.OutOfMemoryError, MemoryError)):
            return (about_memory or sentences)[0] or "out of memory"
        error = error.__cause__ or error.__context__
    return None


class Failure(NamedTuple):
    """How an attempt ended. It has no exception, because its traceback would hold every tensor of the run."""

    message: str
    stage: str
    storage: str
    foreseen: bool  # by the plan, before anything ran out


def run_within_memory(trace: Trace, p: Params, stages: Stages, callback: Callback | None, available: int) -> Run:
    """`mmphate`, and once more with the matrix-free affinity if a stored one leaves too little memory.

    A stored affinity leaves too little if the plan with the counted entries has no room for the rest of the run
    (``storage="auto"`` then means the matrix-free form), or if torch runs out of memory in spite of the plan. Before
    the second attempt everything that the first one held from the affinity on is released.

    Warns
    -----
    RuntimeWarning
        Out of memory with a stored affinity.

    Raises
    ------
    InputError
        The run does not fit; with the numbers, and the setting that helps.
    """
    result = _attempt(trace, p, stages, callback, available)
    if isinstance(result, Failure) and _leaner_form_helps(result, p):
        stages.forget("affinity")
        if result.foreseen:
            logger.info("%s", result.message)
        else:
            fallback = f'storage="{result.storage}" gives way to the leaner storage="lazy"'
            warnings.warn(f"{result.message} in stage {result.stage!r}: {fallback}", RuntimeWarning, stacklevel=4)
        p = replace(p, storage="lazy")
        result = _attempt(trace, p, stages, callback, available)
    if isinstance(result, Failure):
        stages.forget("affinity")
        if result.foreseen:
            raise DoesNotFit(result.message)
        raise _out_of_memory(trace, p, result, stages.device, available)
    return result


def _attempt(trace: Trace, p: Params, stages: Stages, callback: Callback | None, available: int) -> Run | Failure:
    def check(affinity: MultisliceAffinity) -> None:  # by the form and the number of entries of this affinity
        counted = LEAST._replace(**affinity.stored_shares(trace.n_nodes))
        _plan(trace, replace(p, storage=affinity.operator.storage), available, counted).check()

    try:
        with sharing_cores(stages.device):
            return mmphate(trace, p, stages.start(callback, {"affinity": check}))
    except (DoesNotFit, MemoryError, RuntimeError, OSError, ImportError) as error:
        foreseen = isinstance(error, DoesNotFit)
        message = str(error) if foreseen else ran_out(error)
        if message is None:  # a name for the error itself would close a cycle through its traceback
            raise
    affinity = stages.result("affinity")
    # Without an affinity, the form that was asked for.
    return Failure(message, stages.current, p.storage if affinity is None else affinity.operator.storage, foreseen)


def _leaner_form_helps(failure: Failure, p: Params) -> bool:
    """Whether a leaner form may help. The form that the user asked for is given up only if memory ran out."""
    allowed = not failure.foreseen or p.storage == "auto"
    return allowed and failure.storage != "lazy" and STAGES.index(failure.stage) >= STAGES.index("affinity")


def _plan(trace: Trace, p: Params, available: int, entries: Entries) -> Plan:
    data, settings = trace.data, params_for(trace, p)
    return plan_run(trace.shape, settings, dtype=data.dtype, device=data.device, available=available, entries=entries)


def _out_of_memory(trace: Trace, p: Params, failure: Failure, device: torch.device, available: int) -> InputError:
    plan = _plan(trace, p, available, LEAST)
    run = f"a trace of shape {trace.shape} ran out of memory in stage {failure.stage!r}"
    needs = f"it takes at least {format_bytes(plan.peak_bytes)}"
    free = f"{device} had {format_bytes(available)} available{plan.limit}"
    remedy = plan.remedy or FEWER_NODES
    return InputError(f'{run} with storage="{p.storage}" ({failure.message}): {needs}, and {free}; {remedy}')
