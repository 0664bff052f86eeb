"""A digest of nested values, which differs if a number, a text, a shape or the structure does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from .reachable import tensors_in
from .saved import is_plain

_ATOMS = (type(None), bool, int, float, complex, str, bytes, np.generic)


def digest_of(value: Any) -> str:
    """The SHA-256 of ``value``, equal on all devices.

    Of a sparse, quantized or meta tensor, only the dtype, the layout and the shape count. Of an object of a class that
    is not of Python, NumPy or torch, only its type and its tensors count.
    """
    digest = hashlib.sha256()
    for part in _parts(value):
        digest.update(part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterable[Any]:
    yield f"{type(value).__qualname__} ".encode()
    if isinstance(value, torch.Tensor):
        yield from _parts_of_tensor(value.detach())
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype} {value.shape} ".encode()
        yield from _parts(value.tolist()) if value.dtype.hasobject else [value.tobytes()]
    elif isinstance(value, _ATOMS):
        yield f"{value!r} ".encode()
    elif isinstance(value, Mapping):
        yield from _parts(sorted(value.items(), key=lambda item: str(item[0])))
    else:
        items = value if isinstance(value, (list, tuple)) else tensors_in(value)
        yield f"{len(items)} ".encode()
        for item in items:
            yield from _parts(item)


def _parts_of_tensor(tensor: torch.Tensor) -> Iterable[Any]:
    if tensor.is_nested:
        yield from _parts(list(tensor.unbind()))
        return
    yield f"{tensor.dtype} {tensor.layout} {tuple(tensor.shape)} ".encode()
    if is_plain(tensor):
        dense = tensor.cpu().resolve_conj().resolve_neg().reshape(-1).contiguous()
        yield dense.view(torch.uint8).numpy().data if dense.numel() else b""
