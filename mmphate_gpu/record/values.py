"""Copy what a layer returns, and convert values of time steps to the array of a snapshot."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence

from ..errors import InputError, InputTypeError

LARGEST_INTEGER = 2**53  # float64 holds every integer up to here


def copied(value: Any) -> Any:
    """Copy a tensor, a PackedSequence or a tuple of them, so that later in-place operations do not change the copy."""
    if isinstance(value, PackedSequence):
        return PackedSequence(*(copied(part) for part in value))
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    return tuple(map(copied, value)) if type(value) is tuple else value


def first_tensor(output: Any) -> Any:
    """The first tensor or PackedSequence of a tuple or list; any other output itself."""
    if isinstance(output, (tuple, list)) and not isinstance(output, PackedSequence):
        return next((item for item in output if isinstance(item, (torch.Tensor, PackedSequence))), output)
    return output


def check_form(output: torch.Tensor, layer: str) -> None:
    """Refuse a tensor that is not dense, has no values in memory, or no real numbers."""
    if output.layout != torch.strided or output.is_meta or torch.masked.is_masked_tensor(output):
        form = "meta" if output.is_meta else f"{type(output).__name__} {output.layout}"
        raise InputTypeError(
            f"layer {layer!r} returns a tensor of another form ({form}); accepted: a dense tensor, a nested tensor, or "
            "a PackedSequence"
        )
    if output.is_complex():
        raise _no_real_numbers(output, layer, "torch.view_as_real(output).flatten(-2)")
    if output.is_quantized:
        raise _no_real_numbers(output, layer, "output.dequantize()")


def _no_real_numbers(output: torch.Tensor, layer: str, real: str) -> InputTypeError:
    return InputTypeError(
        f"layer {layer!r} returns {output.dtype}; accepted: real numbers, such as those of "
        f"state=lambda module, output: {real}"
    )


def exact_values(output: torch.Tensor, layer: str) -> np.ndarray:
    """The values as float64 if they are float64 or integers of 4 or 8 bytes, else as float32; none is rounded.

    `InputError` refuses integers that float64 cannot hold.
    """
    whole = not output.is_floating_point()
    if not whole and output.dtype != torch.float64:
        return output.to("cpu", torch.float32).contiguous().numpy()  # half precision as well
    values = np.ascontiguousarray(output.cpu().numpy())
    if whole and values.size and max(-int(values.min()), int(values.max())) > LARGEST_INTEGER:
        raise InputError(
            f"layer {layer!r} returns integers from {values.min()} to {values.max()}; accepted: those that float64 "
            f"holds exactly, up to 2**53"
        )
    return values.astype(np.float32 if whole and values.itemsize < 4 else np.float64, copy=False)
