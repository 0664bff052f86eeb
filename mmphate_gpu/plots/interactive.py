"""The embedding as an interactive picture: one HTML file that needs no network."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..embedding import Embedding
from ..errors import InputTypeError, check_number
from ..interactive import page
from ..runtime.atomic import whole_file
from .canvas import check_file


def interactive(
    embedding: Embedding,
    path: str | os.PathLike[str] = "picture.html",
    *,
    columns: Mapping[str, Any] | None = None,
    title: str | None = None,
    max_nodes: int = 500_000,
) -> Path:
    """Write the embedding as one HTML file that a browser opens from disk, without a network.

    The page turns in space and moves in the plane, colors nodes by epoch, time step, unit, most active class and any
    column, plays the epochs with trails, finds and highlights units with their whole paths, shows the labels of the
    node under the pointer, and saves a PNG. It needs a browser with WebGL2 and DecompressionStream, which current ones
    have. A single component is drawn against the epoch, or against the time step of a single epoch; of more than three
    components the first three are drawn.

    Coordinates are written with 16 bits on a scale that all components share: none is off by more than 1/65535 of the
    longest side of the box around all nodes. Numbers of columns with more than 4,096 different values are off by at
    most 1/131068 of their range. Nodes without a place (a row of NaN) are not drawn, and a note counts them.

    Parameters
    ----------
    embedding : Embedding
        The nodes to draw.
    path : str or path
        An .html file to write. An existing file is replaced; if writing fails, it stays as it was.
    columns : mapping, optional
        More values to color by and to read: from a name to an array (N,) of numbers, text or dates, or to a pair of an
        axis and an array of that axis, such as ``{"layer": ("unit", trace.unit_layer), "loss": ("epoch", loss)}``. NaN
        and NaT are missing values.
    title : str, optional
        None is "MM-PHATE".
    max_nodes : int
        Of an embedding with more nodes, whole slices are left out, evenly over epochs and time steps, and a note on
        the page says how many are drawn.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    InputError, InputTypeError
        No `Embedding`, one in which no node has a place, a column that does not fit it, more units than ``max_nodes``,
        or a ``path`` that does not end in .html or cannot be written.

    Notes
    -----
    Writing takes about 110 bytes of memory and a microsecond for each node in space. A node has 4 to 9 bytes in the
    file: 487,680 nodes with classes took 3.0 MB for a random walk in time, and 4.1 MB for noise.
    """
    if not isinstance(embedding, Embedding):
        raise InputTypeError(f"embedding is a {type(embedding).__name__}; accepted: an Embedding")
    path = check_file(path, (".html",))
    if not isinstance(title, str | None):
        raise InputTypeError(f"title is a {type(title).__name__}; accepted: text, or None")
    limit = check_number("max_nodes", max_nodes, low=1, integer=True)
    text = page(
        embedding.coordinates,
        embedding.layout,
        most_active=embedding.most_active,
        columns=columns,
        title="MM-PHATE" if title is None else title,
        max_nodes=int(limit),
    )
    with whole_file(path, overwrite=True) as new:
        new.write_bytes(text.encode())
    return path
