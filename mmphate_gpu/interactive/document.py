"""The page: facts and packed numbers, put into a frame of HTML with its style and its script."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import numpy as np

from ..errors import InputError
from ..slices import SliceLayout, whole_slices
from .against_time import points_against_time, time_axis, time_ticks
from .colors import color_facts
from .columns import Column, axis_facts, checked_columns, class_column, column_facts, node_block
from .labels import shown
from .pack import Block, packed, quantized, slice_stride

# The script is these files, in this order, inside one function.
SCRIPTS = ("data", "colors", "camera", "renderer", "picking", "view", "legend", "controls", "gestures", "main")
AXIS_NAMES = {"epoch": "Epoch", "timestep": "Time step", "unit": "Unit"}


def page(
    coordinates: np.ndarray,
    layout: SliceLayout,
    *,
    most_active: np.ndarray | None = None,
    columns: Mapping[str, Any] | None = None,
    title: str = "MM-PHATE",
    max_nodes: int = 500_000,
) -> str:
    """The text of an HTML page that shows the nodes; it needs no network and no other file.

    Parameters
    ----------
    coordinates : (N, C) real, NaN in the rows of nodes without a place
    layout : SliceLayout
    most_active : (N,), optional
        A class for each node.
    columns : mapping, optional
        From a name to an array (N,), or to a pair of "epoch", "timestep" or "unit" and an array of that axis.
    title : str
    max_nodes : int
        Above it, whole slices are left out, evenly over epochs and time steps.

    Raises
    ------
    InputError, InputTypeError
        No node has a place, a slice has more than ``max_nodes`` units, or a column does not fit the layout.
    """
    epochs, timesteps = whole_slices(layout, max_nodes)
    rows = np.arange(layout.n_nodes).reshape(layout.shape)[np.ix_(epochs, timesteps)].ravel()
    kept = {"epoch": epochs, "timestep": timesteps, "unit": np.arange(layout.n_units), "node": rows}
    user_columns = checked_columns(columns, layout)
    classes = [] if most_active is None else [class_column(most_active)]
    place_facts, position_blocks = _positions(coordinates, layout, kept)
    axes = {axis: axis_facts(name, axis, getattr(layout, axis)[kept[axis]]) for axis, name in AXIS_NAMES.items()}
    colorings, blocks = _with_codes([*classes, *user_columns], kept, position_blocks)
    data, block_facts = packed(blocks)
    facts = {
        "title": shown(title),
        "axes": {axis: axis_coloring["names"] for axis, axis_coloring in axes.items()},
        "colorings": [*axes.values(), *colorings],
        "color": len(axes) if classes else 0,
        "blocks": block_facts,
        "notes": _notes(coordinates, layout, kept),
        **place_facts,
        **color_facts(),
    }
    return _filled(title=title, data=data, facts=facts)


def _positions(
    coordinates: np.ndarray, layout: SliceLayout, kept: dict[str, np.ndarray]
) -> tuple[dict[str, Any], list[Block]]:
    """The first three components, or a single one against time, and what the page has to know of them."""
    shape, rows = _shape(kept), kept["node"]
    drawn = coordinates[rows, :3]
    if not np.isfinite(drawn[:, 0]).any():
        raise InputError("coordinates has NaN in every drawn row; accepted: at least one node with a place")
    against_time = coordinates.shape[1] == 1
    codes, extent = quantized(points_against_time(drawn[:, 0], layout, rows) if against_time else drawn)
    facts = {
        "shape": shape,
        "all": layout.shape,
        "epochs": kept["epoch"].tolist(),
        "timesteps": kept["timestep"].tolist(),
        "stride": slice_stride(*shape[:2]),
        "size": _size(shape),
        "components": coordinates.shape[1],
        "positions": codes.shape[1],
        "extent": [*extent.tolist(), 0, 0][:3],
        "names": [AXIS_NAMES[time_axis(layout)], "MM-PHATE 1"],
        "ticks": time_ticks(layout, kept[time_axis(layout)]) if against_time else [],
    }
    return facts, [Block(column.reshape(shape), smooth=True) for column in codes.T]


def _with_codes(
    columns: list[Column], kept: dict[str, np.ndarray], blocks: list[Block]
) -> tuple[list[dict[str, Any]], list[Block]]:
    """The facts of the columns, and ``blocks`` with those of their codes that each node has."""
    colorings = []
    for column in columns:
        facts, codes = column_facts(column, kept)
        if column.of == "node":
            colorings.append(facts | {"block": len(blocks)})
            blocks = [*blocks, node_block(codes, _shape(kept))]
        else:
            colorings.append(facts | {"codes": codes.tolist()})
    return colorings, blocks


def _shape(kept: dict[str, np.ndarray]) -> tuple[int, int, int]:
    return len(kept["epoch"]), len(kept["timestep"]), len(kept["unit"])


def _size(shape: tuple[int, int, int]) -> str:
    names = ("epoch", "time step", "unit")
    parts = [f"{n:,} {name}{'s' * (n != 1)}" for n, name in zip(shape, names, strict=True)]
    return f"{np.prod(shape):,} nodes: {' × '.join(parts)}"


def _notes(coordinates: np.ndarray, layout: SliceLayout, kept: dict[str, np.ndarray]) -> list[str]:
    rows, epochs, timesteps = kept["node"], kept["epoch"], kept["timestep"]
    notes = []
    if len(rows) < layout.n_nodes:
        notes.append(
            f"{len(rows):,} of {layout.n_nodes:,} nodes are drawn: all units at {len(epochs):,} of {layout.n_epochs:,} "
            f"epochs and {len(timesteps):,} of {layout.n_timesteps:,} time steps."
        )
    missing = int(np.isnan(coordinates[rows, 0]).sum())
    if missing:
        notes.append(f"{missing:,} of {len(rows):,} nodes have no place and are not drawn.")
    return notes


def _filled(*, title: str, data: str, facts: dict[str, Any]) -> str:
    style, script = _asset("page.css"), _script()
    pieces = {"policy": _policy(script, style), "title": html.escape(shown(title)), "style": style, "script": script}
    pieces |= {"facts": _json(facts), "data": data}
    return re.sub(r"\{\{(\w+)\}\}", lambda match: pieces[match[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")


def _script() -> str:
    parts = "\n".join(_asset(f"{name}.js") for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}}})();'


def _policy(script: str, style: str) -> str:
    """No request leaves the page, and nothing but its script and its style is run."""
    allowed = f"script-src {_hash(script)}; style-src {_hash(style)}; img-src data: blob:"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(facts: dict[str, Any]) -> str:
    """JSON in ASCII without characters that end a script; the parser of the page turns the escapes back."""
    text = json.dumps(facts, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
