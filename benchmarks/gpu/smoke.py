"""A step of `first_light`: every op at two shapes against its C++ twin or its portable version, cold and warm.

The ops come from the registry, so that a new op cannot be forgotten; an op without a case is a failure. While an op
runs, memory that it allocates by `torch.empty` is filled with values that no result can have.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch

from benchmarks.gpu.parts import Work, run

SIZES = {True: (60, 200), False: (200, 3000)}
REPEATS = 3
LARGE_INTEGER = 0x5A5A5A5A
POISON = {torch.bool: True, torch.uint8: 0x5A, torch.int8: 0x5A, torch.int16: 0x5A5A}


def parts(options: argparse.Namespace) -> Iterator[tuple[str, Work]]:
    import mmphate_gpu.estimator  # noqa: F401  registers the ops of every stage
    from mmphate_gpu.ops.launch.twins import PORTABLE

    for n in options.sizes or SIZES[options.small]:
        for op in sorted(PORTABLE):
            yield f"{op}, n = {n}", lambda op=op, n=n: smoke(op, n, options)


def smoke(op: str, n: int, options: argparse.Namespace) -> dict[str, Any]:
    """The difference between an op and its other version, and the seconds of a first and of a warm call.

    With ``plain`` the op is called once and no memory is filled, because a tool watches what the op reads.
    """
    from benchmarks.gpu.smoke_cases import CASES, MOST_DIFFERENT, MOST_ERROR
    from mmphate_gpu.ops.launch import native
    from mmphate_gpu.ops.launch.twins import CPP, PORTABLE, serving_op

    if op not in CASES:
        return {"error": f"{op} has no case in smoke_cases.py"}
    arguments, device = CASES[op](n), options.device
    by_cpp = native.why_no_native() is None and op in CPP and device.type != "cpu"
    wanted = results(CPP[op] if by_cpp else PORTABLE[op], moved(arguments, torch.device("cpu")))
    call, on_device = getattr(torch.ops.mmphate_gpu, op), moved(arguments, device)
    started = time.perf_counter()
    with contextlib.nullcontext() if options.plain else poisoned():
        outputs = results(call, on_device)
    outputs = [tensor.cpu() for tensor in outputs]  # waits for the device
    line = {"by": serving_op(op, device.type), "against": "C++" if by_cpp else "portable torch on the CPU"}
    line |= {"cold_seconds": round(time.perf_counter() - started, 3)}
    if not options.plain:
        line |= {"warm_us": round(1e6 * warm_seconds(call, arguments, device), 2)}
    error, wrong = difference(outputs, wanted, MOST_DIFFERENT.get(op, 0.0))
    most = MOST_ERROR.get(op, 0.0)
    line |= {"max_error": error, "most_error": most, "same_bits": same_bits(outputs, wanted)}
    if wrong or error > most:
        line["error"] = wrong or f"differs by {error:.3g} of the largest number, at most {most:.3g}"
    return line


def warm_seconds(call: Any, arguments: tuple[Any, ...], device: torch.device) -> float:
    """The median of some calls. Each call gets new copies of the tensors, since some ops write into them."""
    from benchmarks.measure.timer import warm
    from benchmarks.suites.op_inputs import Copies

    copies = Copies([value.to(device) for value in arguments if isinstance(value, torch.Tensor)])

    def one_call() -> None:
        tensors = iter(copies.next())
        call(*(next(tensors) if isinstance(value, torch.Tensor) else value for value in arguments))

    return sorted(warm(one_call, device, REPEATS, copies.restore))[REPEATS // 2]


def moved(arguments: tuple[Any, ...], device: torch.device) -> tuple[Any, ...]:
    """Copies of the tensors on ``device``."""
    return tuple(value.to(device, copy=True) if isinstance(value, torch.Tensor) else value for value in arguments)


def results(op: Any, arguments: tuple[Any, ...]) -> list[torch.Tensor]:
    """What an op returns, and its tensor arguments after the call, since some ops write into them."""
    returned = op(*arguments)
    listed = list(returned) if isinstance(returned, (tuple, list)) else [returned]
    return [value for value in (*listed, *arguments) if isinstance(value, torch.Tensor)]


def same_bits(outputs: list[torch.Tensor], wanted: list[torch.Tensor]) -> bool:
    return all(torch.equal(*pair) for pair in zip(outputs, wanted, strict=False))


def difference(
    outputs: list[torch.Tensor], wanted: list[torch.Tensor], most_different: float = 0.0
) -> tuple[float, str]:
    """The largest difference of floats, relative to the largest float of a tensor, and any other fault in words.

    Other faults are other shapes or dtypes, floats that are finite on one side only, and more than the share
    ``most_different`` of integers that differ.
    """
    worst = 0.0
    if len(outputs) != len(wanted):
        return worst, f"{len(outputs)} tensors, not {len(wanted)}"
    for place, (output, other) in enumerate(zip(outputs, wanted, strict=True)):
        wrong = ""
        if (output.shape, output.dtype) != (other.shape, other.dtype):
            wrong = f"is {output.dtype} {tuple(output.shape)}, not {other.dtype} {tuple(other.shape)}"
        elif not output.is_floating_point():
            n_different = int((output != other).sum())
            wrong = f"{n_different} of {output.numel()} numbers differ" * (
                n_different > most_different * output.numel()
            )
        elif not torch.equal(output.isfinite(), other.isfinite()):
            wrong = f"{int((output.isfinite() != other.isfinite()).sum())} numbers are finite on one side only"
        elif other.numel():
            worst = max(worst, relative(output.double(), other.double()))
        if wrong:
            return worst, f"tensor {place}: {wrong}"
    return worst, ""


def relative(output: torch.Tensor, other: torch.Tensor) -> float:
    output, other = output.nan_to_num(0, 0, 0), other.nan_to_num(0, 0, 0)
    return float((output - other).abs().max() / other.abs().max().clamp_min(torch.finfo(torch.float64).tiny))


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """Fill memory that is allocated without values with NaN or a large integer, so that a read shows in the result."""

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
