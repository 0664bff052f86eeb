"""The libraries that this one is compared with, and what each does of the work of `comparisons`.

The file of a peer imports neither its package nor torch before it works, so that all peers can be listed at once.
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
class Result:
    """The result of a peer, and further fields of its row."""

    values: Any
    fields: Mapping[str, Any] = field(default_factory=dict)


# Takes an input of `comparisons`, brings it into the form that the peer needs, and returns the call that is timed.
Way = Callable[[Any], Callable[[], Result]]


@dataclass(frozen=True)
class Peer:
    """A library, or a variant of this library."""

    name: str  # in the rows
    does: Mapping[str, Mapping[str, Way]]  # comparison -> its ways by name; a single way has the name ""
    packages: tuple[str, ...] = ()  # modules that it imports
    versions: tuple[str, ...] = ()  # the names under which they are installed
    devices: tuple[str, ...] = ("cpu", "cuda")
    environment: Mapping[str, str] = field(default_factory=dict)  # of its process
    settings: Mapping[str, Any] = field(default_factory=dict)  # in the rows of its pictures
    lacks: Callable[[], str | None] = lambda: None  # what else keeps it from running on this machine
    most_seconds: float = MOST_SECONDS  # for all runs of a way
    every_size: bool = False  # whether it is tried at a size if a smaller size gave nothing
    of_project: bool = False  # whether a crash is our fault

    def why_not(self, device: str) -> str | None:
        """Why it cannot run on "cpu" or "cuda", or None."""
        if device not in self.devices:
            return f"does not run on {device}"
        named = dict.fromkeys(package.partition(".")[0] for package in self.packages)
        reason = ", ".join(name for name in named if importlib.util.find_spec(name) is None) or self.lacks()
        return f"{NOT_INSTALLED}: {reason}" if reason else None

    def load(self) -> float:
        """Import its packages. Returns the seconds that this takes."""
        started = time.perf_counter()
        for package in self.packages:
            importlib.import_module(package)
        return time.perf_counter() - started


# In the rows of methods for points.
POINTS_ONLY = {"sees": "nodes as points, no multislice graph"}

FILES = (
    *("ours", "reference", "torchdr", "umap_learn", "opentsne", "scikit_learn"),
    *("sparse_products", "keops", "neighbor_searches"),
)


def peers() -> dict[str, Peer]:
    """All peers by name, in the order in which they run."""
    modules = (importlib.import_module(f"{__name__}.{file}") for file in FILES)
    return {peer.name: peer for module in modules for peer in module.PEERS}
