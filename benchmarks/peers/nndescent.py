"""PyNNDescent: approximate neighbours on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers import Found, Peer

if TYPE_CHECKING:
    from benchmarks.given import Neighbors


def neighbors(given: Neighbors) -> Found:
    from mmphate_gpu.neighbors import kneighbors

    return Found(kneighbors(given.units, given.k, backend="pynndescent")[1])


PEER = Peer("pynndescent", {"neighbors": {"": neighbors}}, ("pynndescent",), ("pynndescent", "numba"), devices=("cpu",))
