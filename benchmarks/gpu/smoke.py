"""A step of `first_light`: every op at two shapes against its C++ twin or its portable version, cold and warm.

The ops are those of the registry, so that a new one cannot be forgotten; one without a case is a failure. While an op
runs, what it allocates by `torch.empty` is filled with numbers that no result can hold.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from benchmarks.gpu.parts import Work, run

SIZES = {True: (60, 200), False: (200, 3000)}
REPEATS = 3
LARGE_INTEGER = 0x5A5A5A5A
POISON = {torch.bool: True, torch.uint8: 0x5A, torch.int8: 0x5A, torch.int16: 0x5A5A}


def parts(options: argparse.Namespace) -> Iterator[tuple[str, Work]]:
    import mmphate_gpu.estimator  # noqa: F401  the ops of every stage register themselves
    from mmphate_gpu.ops.twins import PORTABLE

    for n in options.sizes or SIZES[options.small]:
        for op in sorted(PORTABLE):
            yield f"{op}, n = {n}", lambda op=op, n=n: smoke(op, n, options)


def smoke(op: str, n: int, options: argparse.Namespace) -> dict[str, Any]:
    """How far an op is from the other version, and its seconds: the first call's, which compiles, and a warm one's.

    With ``plain`` the op is called once and nothing is filled: a tool is watching what it reads.
    """
    from benchmarks.gpu.smoke_cases import CASES, MOST_DIFFERENT, MOST_ERROR
    from mmphate_gpu.ops import _native
    from mmphate_gpu.ops.twins import PORTABLE, serving_op

    if op not in CASES:
        return {"error": f"{op} has no case in smoke_cases.py"}
    given, device = CASES[op](n), options.device
    native = _native.why_no_native() is None and hasattr(_native, op) and device.type != "cpu"
    wanted = results(getattr(_native, op) if native else PORTABLE[op], moved(given, torch.device("cpu")))
    call, own = getattr(torch.ops.mmphate_gpu, op), moved(given, device)
    started = time.perf_counter()
    with contextlib.nullcontext() if options.plain else poisoned():
        found = results(call, own)
    found = [one.cpu() for one in found]  # waits for the device
    line = {"by": serving_op(op, device.type), "against": "C++" if native else "portable torch on the CPU"}
    line |= {"cold_seconds": round(time.perf_counter() - started, 3)}
    if not options.plain:
        line |= {"warm_us": round(1e6 * warm_seconds(call, given, device), 2)}
    error, wrong = difference(found, wanted, MOST_DIFFERENT.get(op, 0.0))
    most = MOST_ERROR.get(op, 0.0)
    line |= {"max_error": error, "most_error": most, "same_bits": same_bits(found, wanted)}
    if wrong or error > most:
        line["error"] = wrong or f"differs by {error:.3g} of the largest number, at most {most:.3g}"
    return line


def warm_seconds(call: Any, given: tuple[Any, ...], device: torch.device) -> float:
    """The median of some calls; each has tensors of its own, since some ops write into them."""
    from benchmarks.op_inputs import Again
    from benchmarks.timer import warm

    again = Again([one.to(device) for one in given if isinstance(one, torch.Tensor)])

    def one_call() -> None:
        tensors = iter(again.next())
        call(*(next(tensors) if isinstance(one, torch.Tensor) else one for one in given))

    return sorted(warm(one_call, device, REPEATS, again.restore))[REPEATS // 2]


def moved(given: tuple[Any, ...], device: torch.device) -> tuple[Any, ...]:
    """Copies on ``device``."""
    return tuple(one.to(device, copy=True) if isinstance(one, torch.Tensor) else one for one in given)


def results(op: Any, given: tuple[Any, ...]) -> list[torch.Tensor]:
    """What an op returns, and its tensor arguments after the call: some ops write into them."""
    returned = op(*given)
    listed = list(returned) if isinstance(returned, (tuple, list)) else [returned]
    return [one for one in (*listed, *given) if isinstance(one, torch.Tensor)]


def same_bits(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> bool:
    return all(torch.equal(*pair) for pair in zip(found, wanted, strict=False))


def difference(found: list[torch.Tensor], wanted: list[torch.Tensor], most_different: float = 0.0) -> tuple[float, str]:
    """The largest difference of floats, relative to the largest float of a tensor, and what else is wrong in words:
    other shapes or dtypes, floats that are finite on one side only, whole numbers of which a larger share differs."""
    worst = 0.0
    if len(found) != len(wanted):
        return worst, f"{len(found)} tensors, not {len(wanted)}"
    for place, (one, other) in enumerate(zip(found, wanted, strict=True)):
        wrong = ""
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            wrong = f"is {one.dtype} {tuple(one.shape)}, not {other.dtype} {tuple(other.shape)}"
        elif not one.is_floating_point():
            n_different = int((one != other).sum())
            wrong = f"{n_different} of {one.numel()} numbers differ" * (n_different > most_different * one.numel())
        elif not torch.equal(one.isfinite(), other.isfinite()):
            wrong = f"{int((one.isfinite() != other.isfinite()).sum())} numbers are finite on one side only"
        elif other.numel():
            worst = max(worst, relative(one.double(), other.double()))
        if wrong:
            return worst, f"tensor {place}: {wrong}"
    return worst, ""


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    one, other = one.nan_to_num(0, 0, 0), other.nan_to_num(0, 0, 0)
    return float((one - other).abs().max() / other.abs().max().clamp_min(torch.finfo(torch.float64).tiny))


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """Fill what is allocated without a value: NaN, or a large integer; a read of it then shows in the result."""

    def filling(make: Any) -> Any:
        def made(*arguments: Any, **options: Any) -> torch.Tensor:
            tensor = make(*arguments, **options)
            value = POISON.get(tensor.dtype, LARGE_INTEGER if not tensor.is_floating_point() else float("nan"))
            return tensor.fill_(value) if options.get("out") is None else tensor

        return made

    with contextlib.ExitStack() as stack:
        for where, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
            stack.enter_context(mock.patch.object(where, name, filling(getattr(where, name))))
        yield


if __name__ == "__main__":
    sys.exit(run(__doc__.splitlines()[0], parts))
