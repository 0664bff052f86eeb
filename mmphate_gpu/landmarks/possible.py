"""Which landmarks a trace can have."""

from __future__ import annotations

from ..errors import InputError
from ..params import Labels, Params
from ..trace import Trace
from .stratified import shares


def check_possible(params: Params, trace: Trace) -> None:
    """Raise `InputError`, before anything is computed, for landmarks that ``trace`` cannot have."""
    if isinstance(params.landmarks, Labels):
        params.landmarks.of_nodes(trace.n_nodes)
    most = params.most_landmarks(trace.n_nodes)
    if params.landmarks == "stratified" and most < trace.n_nodes:
        shares(most, trace.n_units)
    if params.n_components >= most:
        raise InputError(
            f"n_components={params.n_components} is more than {most} points span; accepted: 1 to {most - 1}"
        )
