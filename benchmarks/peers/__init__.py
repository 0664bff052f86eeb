"""The libraries that this one is measured against: a file each, with what it does of the comparisons' work.

What a peer is given, and how its result is judged, stands in `benchmarks.given`. Its file loads neither its package nor
torch before it works, so that all can be listed and asked `why_not` at once.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.rows import NOT_INSTALLED


@dataclass(frozen=True, eq=False)
class Found:
    """What a peer gives back, and what it says beside it as fields of a row."""

    values: Any
    fields: Mapping[str, Any] = field(default_factory=dict)


Work = Callable[[Any], Found]  # from what a comparison gives


@dataclass(frozen=True)
class Peer:
    """One library, or one way of this one."""

    name: str  # as rows have it
    does: Mapping[str, Mapping[str, Work]]  # comparison -> way -> work; where there is one way its name is ""
    packages: tuple[str, ...] = ()  # that it imports
    versions: tuple[str, ...] = ()  # the same by the names they are installed under
    devices: tuple[str, ...] = ("cpu", "cuda")
    environment: Mapping[str, str] = field(default_factory=dict)  # of its process
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the rows of its pictures
    lacks: Callable[[], str | None] = lambda: None  # what else keeps it from running here

    def why_not(self, device: str) -> str | None:
        """Why it cannot run on "cpu" or "cuda", or None."""
        if device not in self.devices:
            return f"does not run on {device}"
        missing = [package for package in self.packages if importlib.util.find_spec(package) is None]
        reason = ", ".join(missing) or self.lacks()
        return f"{NOT_INSTALLED}: {reason}" if reason else None


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
