"""Read a page back, as its script does."""

from __future__ import annotations

import base64
import json
import re
import zlib
from typing import Any

import numpy as np

from mmphate_gpu.embedding import Embedding
from mmphate_gpu.slices import SliceLayout


def facts_of(text: str) -> dict[str, Any]:
    (facts,) = re.findall(r'<script type="application/json" id="facts">(.*?)</script>', text)
    return json.loads(facts)


def blocks_of(text: str) -> list[np.ndarray]:
    """The codes of every block, (E, T, M) each, decoded in loops as the script has them."""
    facts = facts_of(text)
    (packed,) = re.findall(r'<script type="text/plain" id="data">(.*?)</script>', text)
    data = np.frombuffer(zlib.decompress(base64.b64decode(packed)), np.uint8).astype(np.int64)
    n = int(np.prod(facts["shape"]))
    blocks = []
    for block in facts["blocks"]:
        planes, data = data[: n * block["bytes"]].reshape(-1, n), data[n * block["bytes"] :]
        codes = sum(plane << (8 * i) for i, plane in enumerate(planes)) + np.zeros(n, np.int64)
        blocks.append(_undone(codes.reshape(np.roll(facts["shape"], 1)), block["delta"]))
    assert not len(data)
    return blocks


def _undone(codes: np.ndarray, delta: str | None) -> np.ndarray:  # (M, E, T) -> (E, T, M)
    values = np.zeros(codes.shape, np.int64)
    for unit, epoch, timestep in np.ndindex(codes.shape):
        code = codes[unit, epoch, timestep]
        by_epoch = timestep == 0 or (delta == "epoch" and epoch > 0)
        # Before the first epoch lies the last, which is still zero.
        before = values[unit, epoch - 1, timestep] if by_epoch else values[unit, epoch, timestep - 1]
        difference = (code >> 1) ^ -(code & 1)
        values[unit, epoch, timestep] = (before + difference) % 65536 if delta else code
    return values.transpose(1, 2, 0)


def points_of(text: str) -> np.ndarray:  # (N, C), the longest side is 2; NaN for a node without a place
    facts = facts_of(text)
    codes = np.stack([block.ravel() for block in blocks_of(text)[: facts["positions"]]], axis=1)
    points = codes / 65534 * 2 - 1
    points[codes[:, 0] == 65535] = np.nan
    return points


def fake(shape: tuple[int, int, int] = (6, 5, 4), components: int = 3, *, classes: int | None = 3) -> Embedding:
    layout = SliceLayout.of_shape(*shape)
    epoch, timestep, unit = layout.indices()
    waves = [np.cos(0.31 * epoch + 0.101 * timestep + unit + k) * (1 + 0.5 * unit + 3 * k) for k in range(components)]
    most_active = None if classes is None else np.arange(layout.n_nodes) % classes
    return Embedding(np.column_stack(waves), layout, most_active=most_active, t=21, stress=0.123)
