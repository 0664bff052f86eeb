"""What the nodes of a page can be colored by, and what its tooltips say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError, InputTypeError, check_choice
from ..slices import SliceLayout
from ..trace.coordinates import as_coordinate
from .labels import names, shown, texts
from .pack import MISSING, STEPS, Block

AXES = ("epoch", "timestep", "unit")
MOST_EXACT = 4096  # a column with at most so many different numbers keeps them as they are
ACCEPTED = "an array with a value per node, or a pair of an axis and an array with a value per place on it"


@dataclass(frozen=True, eq=False)
class Column:
    """A value for every node, or for every place on an axis."""

    name: str
    of: str  # "node", "epoch", "timestep" or "unit"
    values: np.ndarray  # (n,)
    categories: bool  # whether its values are names without an order


def axis_facts(name: str, axis: str, labels: np.ndarray) -> dict[str, Any]:
    """Colors by an axis of the trace: its places follow from the number of a node."""
    color_map = {"epoch": "viridis", "timestep": "plasma", "unit": "turbo"}[axis]
    return {"name": name, "of": axis, "names": names(labels), "categories": axis == "unit", "map": color_map}


def checked_columns(columns: Any, layout: SliceLayout) -> list[Column]:
    """The columns that a user passes, each with as many values as it needs."""
    if columns is None:
        return []
    if not isinstance(columns, Mapping):
        raise InputTypeError(f"columns is a {type(columns).__name__}; accepted: a mapping from names to {ACCEPTED}")
    return [_checked(name, values, layout) for name, values in columns.items()]


def _checked(name: Any, values: Any, layout: SliceLayout) -> Column:
    if not isinstance(name, str) or not name:
        raise InputTypeError(f"columns has the name {name!r}; accepted: names that are text")
    argument = f"columns[{name!r}]"
    of, values = _axis_and_values(argument, values)
    array = as_coordinate(argument, values)
    size = layout.n_nodes if of == "node" else len(getattr(layout, of))
    if array.shape != (size,):
        raise InputError(f"{argument} has shape {array.shape}; accepted: ({size},), a value per {of}")
    if array.dtype.kind == "f" and np.isinf(array).any():
        raise InputError(f"{argument} holds infinite numbers; accepted: finite numbers, and NaN for a missing value")
    return Column(name, of, array, categories=array.dtype.kind in "bU")


def _axis_and_values(argument: str, values: Any) -> tuple[str, Any]:
    if not isinstance(values, tuple):
        return "node", values
    if len(values) != 2:
        raise InputError(f"{argument} is a tuple of {len(values)}; accepted: {ACCEPTED}")
    return check_choice(f"the axis of {argument}", values[0], AXES), values[1]


def column_facts(column: Column, kept: dict[str, np.ndarray]) -> tuple[dict[str, Any], np.ndarray]:
    """How the page shows a column, and the codes of the places that ``kept`` has by axis."""
    values = column.values[kept[column.of]]
    known = values == values  # NaN and NaT differ from themselves
    facts, known_codes = (_number_codes if _is_number(column) else _name_codes)(column, values[known])
    codes = np.full(len(values), MISSING, dtype=np.uint16)
    codes[known] = known_codes
    return {"name": shown(column.name), "of": column.of, "missing": not known.all()} | facts, codes


def _is_number(column: Column) -> bool:
    return column.values.dtype.kind in "iuf" and not column.categories


def _number_codes(column: Column, numbers: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    """Up to `MOST_EXACT` different numbers are kept as they are; otherwise each has 16 bits."""
    table = np.unique(numbers)
    ends = {"low": float(table[0]), "high": float(table[-1])} if len(table) else {}
    if len(table) > MOST_EXACT:
        return ends | {"map": "viridis", "categories": False}, _steps(numbers.astype(np.float64))
    facts, codes = _name_codes(column, numbers)
    return facts | ends | {"values": table.astype(float).tolist()}, codes


def _name_codes(column: Column, values: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    table, index = np.unique(values, return_inverse=True)
    if len(table) >= MISSING:
        most = f"accepted: at most {MISSING - 1:,}"
        raise InputError(f"columns[{column.name!r}] has {len(table):,} different values; {most}")
    color_map = "turbo" if column.categories else "viridis"
    return {"names": texts(table), "categories": column.categories, "map": color_map}, index


def class_column(classes: np.ndarray) -> Column:
    """The most active class of each node; classes are categories, also where they are numbers."""
    return Column("Most active class", "node", as_coordinate("most_active", classes), categories=True)


def _steps(numbers: np.ndarray) -> np.ndarray:
    """Numbers in 65,534 steps from the least to the greatest."""
    least, width = numbers.min(), numbers.max() / 2 - numbers.min() / 2
    return np.rint((numbers / 2 - least / 2) / width * STEPS).astype(np.uint16)


def node_block(codes: np.ndarray, shape: tuple[int, int, int]) -> Block:
    """The codes of all nodes, to be packed."""
    return Block(codes.reshape(shape), smooth=bool(codes.max(initial=0) > MOST_EXACT))
