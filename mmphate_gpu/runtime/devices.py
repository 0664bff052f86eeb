"""The device of a run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import InputError, InputTypeError


def resolve_device(device: Any, like: Any = None) -> torch.device:
    """``device`` as a torch device that exists; `InputError` if it is unknown or does not exist.

    "auto" is the device of ``like`` if that is a GPU, else the current CUDA device where there is one, else the CPU.
    """
    if isinstance(device, str) and device == "auto":
        if like is not None and like.device.type == "cuda":
            return like.device
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    if not isinstance(device, (str, torch.device)):
        raise InputTypeError(f"device={device!r} must be a string or a torch.device, such as 'cpu' or 'cuda:0'")
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise InputError(f"device={device!r} is unknown; accepted: 'auto', 'cpu', 'cuda', 'cuda:0', ...") from None
    if resolved.type == "cpu":
        return resolved
    n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if resolved.type != "cuda" or (resolved.index or 0) >= n_devices:
        existing = ", ".join(["'cpu'"] + [f"'cuda:{i}'" for i in range(n_devices)])
        raise InputError(f"device={device!r} is not there; accepted here: {existing}")
    return torch.device("cuda", torch.cuda.current_device() if resolved.index is None else resolved.index)


def card_bytes(device: Any) -> int | None:
    """Memory of a named card, "24 GB card"; None if ``device`` names none.

    The gigabytes are decimal. A card has binary ones; the CUDA context takes about the difference.

    Raises
    ------
    InputError
        A card without memory.

    >>> card_bytes("24 GB card"), card_bytes("cuda:0")
    (24000000000, None)
    """
    named = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*GB card\s*", device) if isinstance(device, str) else None
    if named is None:
        return None
    n_bytes = float(named.group(1)) * 1e9
    if not 1 <= n_bytes < 1e18:
        raise InputError(f"device={device!r} has no memory that a card could have; accepted: such as '24 GB card'")
    return int(n_bytes)


@contextmanager
def one_thread() -> Iterator[None]:
    """torch computes with one thread in this block: for small matrices several threads would wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
