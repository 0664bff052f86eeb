"""This project's reference: the whole method dense, in float64, by NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers import Found, Peer

if TYPE_CHECKING:
    from benchmarks.given import Picture


def picture(given: Picture) -> Found:
    from mmphate_gpu import reference

    result = reference.mmphate(given.trace.data.cpu().numpy(), n_components=2, random_state=0)
    return Found(result.embedding, {"t": result.t, "stress": result.stress})


PEER = Peer("reference", {"picture": {"": picture}}, devices=("cpu",))
