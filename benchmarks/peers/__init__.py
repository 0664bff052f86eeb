"""The libraries that this one is measured against: a file each, with what it does of the comparisons' work.

What a peer is given, and how its result is judged, stands in `benchmarks.peers.comparisons`. Its file loads neither its package nor
torch before it works, so that all can be listed and asked `why_not` at once.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.measure.rows import NOT_INSTALLED

MOST_SECONDS = 120.0


@dataclass(frozen=True, eq=False)
class Found:
    """What a peer gives back, and what it says beside it as fields of a row."""

    values: Any
    fields: Mapping[str, Any] = field(default_factory=dict)


# Takes what a comparison gives, brings it into the form it needs, and returns what the clock sees.
Way = Callable[[Any], Callable[[], Found]]


@dataclass(frozen=True)
class Peer:
    """One library, or one way of this one."""

    name: str  # as rows have it
    does: Mapping[str, Mapping[str, Way]]  # comparison -> its ways by name; where there is only one its name is ""
    packages: tuple[str, ...] = ()  # that it imports, or modules of them
    versions: tuple[str, ...] = ()  # the same by the names they are installed under
    devices: tuple[str, ...] = ("cpu", "cuda")
    environment: Mapping[str, str] = field(default_factory=dict)  # of its process
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the rows of its pictures
    lacks: Callable[[], str | None] = lambda: None  # what else keeps it from running here
    most_seconds: float = MOST_SECONDS  # of all runs of a way
    # For estimates where it differs much from most: comparison -> seconds at its smallest size, power of their growth.
    pace: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    needs_bytes: Callable[[int], float] = lambda n: 0  # for estimates too: of n nodes, at least
    every_size: bool = False  # whether a size is tried where a smaller one gave nothing
    own: bool = False  # of this project: a crash is a fault, and no finding

    def why_not(self, device: str) -> str | None:
        """Why it cannot run on "cpu" or "cuda", or None."""
        if device not in self.devices:
            return f"does not run on {device}"
        named = dict.fromkeys(package.partition(".")[0] for package in self.packages)
        reason = ", ".join(name for name in named if importlib.util.find_spec(name) is None) or self.lacks()
        return f"{NOT_INSTALLED}: {reason}" if reason else None

    def load(self) -> float:
        """Import its packages; the seconds that this takes."""
        started = time.perf_counter()
        for package in self.packages:
            importlib.import_module(package)
        return time.perf_counter() - started


# In the rows of a method for points.
POINTS_ONLY = {"sees": "nodes as points, no multislice graph"}

FILES = (
    "ours",
    "portable",
    "reference",
    "torchdr_phate",
    "torchdr_umap",
    "umap_learn",
    "opentsne",
    "scikit_learn",
    "scipy_csr",
    "torch_csr",
    "cupy_csr",
    "keops",
    "nndescent",
    "faiss_flat",
)


def peers() -> dict[str, Peer]:
    """All of them, by name, in the order in which they are run."""
    found = (importlib.import_module(f"{__name__}.{file}").PEER for file in FILES)
    return {peer.name: peer for peer in found}
