"""Convert the output of a layer to the values of a snapshot."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from ..errors import InputError, InputTypeError

LARGEST_INTEGER = 2**53  # float64 holds every integer up to here


def copied_output(output: Any) -> Any:
    """Copy what a layer returned (the first of several outputs), so that later in-place operations do not change it.

    An output that is neither a tensor nor a PackedSequence is returned itself; `sequence_values` refuses it.
    """
    if isinstance(output, (tuple, list)) and not isinstance(output, PackedSequence) and output:
        output = output[0]
    if isinstance(output, PackedSequence):
        parts: list[Any] = [None if part is None else part.detach().clone() for part in output]
        return PackedSequence(*parts)
    return output.detach().clone() if isinstance(output, torch.Tensor) else output


def sequence_values(
    output: Any, layer: str, *, batch_first: bool, unbatched: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Values (timestep, unit, sample) and mask (timestep, sample) of the ``output`` of ``layer``.

    ``output`` is a PackedSequence or a tensor (batch, timestep, unit), (timestep, batch, unit) or, if ``unbatched``,
    (timestep, unit). Values are float64 if the output is float64 or has integers of 4 or 8 bytes, else float32. No
    value is rounded: `InputError` refuses what float64 cannot hold, and values that are not real or not in memory.
    """
    lengths = None
    if isinstance(output, PackedSequence):
        _check_real(output.data, layer)
        output, lengths = pad_packed_sequence(output)  # (timestep, sample, unit), in the order of the user's batch
    elif not isinstance(output, torch.Tensor):
        raise _no_sequence(layer, type(output).__name__)
    else:
        _check_real(output, layer)
        if output.ndim == 2 and unbatched:
            output = output.unsqueeze(1)
        elif output.ndim != 3:
            raise _no_sequence(layer, str(tuple(output.shape)))
        elif batch_first:
            output = output.transpose(0, 1)
    values = _exact_values(output.permute(0, 2, 1), layer)
    return values, None if lengths is None else np.arange(values.shape[0])[:, None] < lengths.numpy()[None, :]


def _no_sequence(layer: str, returned: str) -> InputError:
    return InputError(f"layer={layer!r} returns {returned}; accepted: a (batch, timestep, unit) sequence")


def _check_real(output: torch.Tensor, layer: str) -> None:
    if output.is_nested or output.layout != torch.strided or output.is_meta or torch.masked.is_masked_tensor(output):
        form = (
            "nested" if output.is_nested else "meta" if output.is_meta else f"{type(output).__name__} {output.layout}"
        )
        raise InputTypeError(
            f"layer={layer!r} returns a tensor of another form ({form}); accepted: a dense tensor, or a PackedSequence"
        )
    if output.is_complex() or output.is_quantized:
        raise InputTypeError(
            f"layer={layer!r} returns {output.dtype}; accepted: real numbers. For complex states, record a module that "
            "returns their real and imaginary parts as units"
        )


def _exact_values(output: torch.Tensor, layer: str) -> np.ndarray:
    whole = not output.is_floating_point()
    if not whole and output.dtype != torch.float64:
        return output.to("cpu", torch.float32).contiguous().numpy()  # half precision as well
    values = np.ascontiguousarray(output.cpu().numpy())
    if whole and values.size and max(-int(values.min()), int(values.max())) > LARGEST_INTEGER:
        raise InputError(
            f"layer={layer!r} returns integers from {values.min()} to {values.max()}; accepted: those that float64 "
            f"holds exactly, up to 2**53"
        )
    return values.astype(np.float32 if whole and values.itemsize < 4 else np.float64, copy=False)
