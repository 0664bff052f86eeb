"""Which form ``storage="auto"`` means, for the run (which counts entries) and the plan (which estimates them)."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..affinities import Interslice
from ..ops.launch.twins import TRITON
from ..runtime.keops import keops_serves
from .lazy_fused import FUSED_RADIUS, fused_radius

# "auto" stores the affinity while it takes at most this share of the free memory; the rest of the run needs memory too.
STORED_SHARE = 0.4
# Share of the interslice pairs with an entry above which tiles beat CSR on a GPU (docs/performance.md).
TILES_FROM = 0.01


def suits_half(thresh: float) -> bool:
    """Whether every entry is a normal number in half precision. Smaller ones lose digits, and below 6e-8 all."""
    return thresh >= torch.finfo(torch.float16).tiny


def stored_forms(pair_share: float, *, tiles: bool) -> tuple[str, ...]:
    """The stored forms that "auto" considers, the better one first.

    ``pair_share`` is the share of the interslice pairs with an entry. ``tiles`` says whether tensor cores would
    multiply them (`half_precision_works`).
    """
    return ("tiles", "sparse") if tiles and pair_share > TILES_FROM else ("sparse",)


def choose_form(
    forms: tuple[str, ...],
    form_bytes: Callable[[str], float],
    available_bytes: float,
    *,
    leaves_room: Callable[[str], bool] = lambda form: True,
) -> str:
    """The first of ``forms`` that takes at most `STORED_SHARE` of the memory and leaves room for the run, else "lazy".

    ``form_bytes`` and ``leaves_room`` are called for one form after the other, and for none after the chosen one.
    """
    room = STORED_SHARE * available_bytes
    return next((form for form in forms if form_bytes(form) <= room and leaves_room(form)), "lazy")


def half_precision_works(device: torch.device, thresh: float) -> bool:
    """Whether products in half precision run on tensor cores of ``device`` and keep the digits of every entry."""
    return device.type == "cuda" and suits_half(thresh) and TRITON.serves()


def choose_engine(interslice: Interslice, device: torch.device) -> str:
    """What makes the entries of a matrix-free product on ``device``: "fused", "keops" or "torch".

    Only "torch" knows missing samples.
    """
    if interslice.masked:
        return "torch"
    if half_precision_works(device, interslice.thresh) and fused_radius(interslice) <= FUSED_RADIUS:
        return "fused"
    return "keops" if device.type == "cuda" and keops_serves() else "torch"
