"""Numbers of nodes as bytes that compress well: 16 bits a coordinate, differences in time, planes of bytes."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

STEPS = 65534  # of the longest side of the box around all nodes
MISSING = 65535  # the code of a node without a place, and of a missing value


@dataclass(frozen=True, eq=False)
class Block:
    """A code from 0 to 65535 for every node. ``smooth`` codes change little from a slice to the next."""

    codes: np.ndarray  # (E, T, M) uint16
    smooth: bool


def quantized(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # (N, C) -> (N, C), (C,)
    """16-bit codes of ``points`` on a scale that all columns share, and half of each side of their box.

    The longest side of the box is 2. No coordinate is off by more than 1/65535 of the longest side. A row of NaN has
    the code `MISSING` in its first column.
    """
    placed = np.isfinite(points[:, 0])
    inside = points[placed].astype(np.float64)
    least, greatest = inside.min(axis=0), inside.max(axis=0)
    # Halves first: the difference of two numbers near the largest of float64 would be infinite.
    half, middle = greatest / 2 - least / 2, greatest / 2 + least / 2
    longest = half.max() or 1.0  # half of it
    codes = np.zeros(points.shape, dtype=np.uint16)
    codes[placed] = np.rint((inside / longest - middle / longest + 1) * (STEPS / 2))
    codes[~placed, 0] = MISSING
    return codes, half / longest


def packed(blocks: list[Block]) -> tuple[str, list[dict[str, Any]]]:
    """All blocks as base64 text of one zlib stream, and how to read each of them."""
    streams = [_stream(block) for block in blocks]
    data = zlib.compress(b"".join(data for data, _ in streams), 6)
    return base64.b64encode(data).decode(), [facts for _, facts in streams]


def _stream(block: Block) -> tuple[bytes, dict[str, Any]]:
    by_unit = np.ascontiguousarray(block.codes.transpose(2, 0, 1))  # (M, E, T)
    delta, codes = _smallest(by_unit) if block.smooth else (None, by_unit)
    planes = _planes(codes)
    return b"".join(plane.tobytes() for plane in planes), {"bytes": len(planes), "delta": delta}


def _planes(codes: np.ndarray) -> list[np.ndarray]:
    """The low bytes and, if any is not zero, the high bytes."""
    low, high = (codes & 0xFF).astype(np.uint8), (codes >> 8).astype(np.uint8)
    return [low, high] if high.any() else [low]


def _smallest(codes: np.ndarray) -> tuple[str, np.ndarray]:  # (M, E, T)
    """The differences along the epochs or along the time steps, whichever are smaller."""
    by_timestep = _differences(codes)
    by_epoch = _differences(codes.swapaxes(1, 2)).swapaxes(1, 2)
    bits = [np.log2(1.0 + differences).sum() for differences in (by_timestep, by_epoch)]
    return ("timestep", by_timestep) if bits[0] <= bits[1] else ("epoch", by_epoch)


def _differences(codes: np.ndarray) -> np.ndarray:  # (..., n, m)
    """Along the last axis; the first of each row minus the first of the row before. The sign is in the lowest bit."""
    before = np.zeros_like(codes)
    before[..., 1:] = codes[..., :-1]
    before[..., 1:, 0] = codes[..., :-1, 0]
    return _sign_lowest((codes - before).view(np.int16))


def _sign_lowest(signed: np.ndarray) -> np.ndarray:
    """0, -1, 1, -2, 2, ... as 0, 1, 2, 3, 4, ..., so that small differences have a high byte of zero."""
    return ((signed << 1) ^ (signed >> 15)).view(np.uint16)


def slice_stride(n_epochs: int, n_timesteps: int) -> int:
    """A stride through the slices, such that the first n visited are spread evenly over epochs and time steps.

    Slice ``k * stride % n_slices`` is drawn as the k-th. The stride is the first number, from that of the
    two-dimensional golden ratio on (M. Roberts, "The unreasonable effectiveness of quasirandom sequences", 2018), that
    has no factor in common with the number of slices. So every slice is visited.
    """
    n_slices = n_epochs * n_timesteps
    stride = int(n_epochs * 0.7548776662) * n_timesteps + round(n_timesteps * 0.5698402910)
    while np.gcd(stride, n_slices) != 1:
        stride += 1
    return stride % n_slices or 1
