"""What an interactive picture of a folder can be colored by besides the axes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .values import mapping, number, texts

if TYPE_CHECKING:
    from ...embedding import Embedding

Columns = dict[str, tuple[str, list[Any]]]


def metrics_of(report: Mapping[str, Any]) -> dict[str, list[float]]:
    """The metrics in a report.json; NaN where an epoch has no value. What is no list of numbers is left out."""
    series = mapping(report.get("metrics")).items()
    return {name: [_value(item) for item in values] for name, values in series if name and _are_values(values)}


def _are_values(values: Any) -> bool:
    return isinstance(values, list) and all(item is None or number(item) is not None for item in values)


def _value(item: float | None) -> float:
    return math.nan if item is None else float(item)


def colorings(report: Mapping[str, Any], embedding: Embedding) -> Columns:
    """The metrics of the epochs and the layers of the units, as columns of the page. What fits no axis is left out."""
    n_epochs, _, n_units = embedding.layout.shape
    columns: Columns = {
        name: ("epoch", values) for name, values in metrics_of(report).items() if len(values) == n_epochs
    }
    layers = texts(report.get("unit_layer"))
    return columns | ({"layer": ("unit", layers)} if len(layers) == n_units else {})
