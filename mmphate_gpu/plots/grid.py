"""Several pictures of the same nodes in rows, each colored in several ways."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..embedding import AXES, Embedding
from ..errors import InputError, InputTypeError
from ..runtime.arrays import to_numpy
from .canvas import FAINT, INK, LABEL_SIZE, check_path, new_figure, plain_style, save_figure
from .colors import Coloring
from .keys import draw_key_below, key_inches
from .layout import Margins, cells, check_figsize, check_room, fitted_names, square_inches, titles_above
from .nodes import (
    TITLES,
    add_frame,
    chosen_colorings,
    dot_style,
    draw_dots,
    draw_order,
    node_colorings,
    node_points,
    time_axis,
    write_notes,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_DOTS = 20_000  # a small panel shows no more
SIDE, LEAST = 1.62, 0.6  # inches of the side of a panel, and the least of it
AROUND = Margins(0.04, 0.04, 0.04, 0.04)  # each panel
LEFT, TOP, KEY = 0.24, 0.3, 0.08  # inches: names of the rows, titles, space above the keys
NOTE, EDGE = 0.22, 0.06  # inches: a note below, or none
MOST = 30  # characters of the name of a row
SHORT = {**TITLES, "most_active": "Class"}  # the titles of columns


@plain_style()
def grid(
    embeddings: Mapping[str, Any],
    color_by: Sequence[str] | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    figsize: tuple[float, float] | None = None,
    align: bool = True,
) -> Figure:
    """Draw several pictures of the same nodes: a row for each, a column for each coloring, and a key below each column.

    With ``align`` each picture is turned and reflected onto the first by the nodes that both have (orthogonal
    Procrustes), so that pictures with the same shape look the same. Each fills its panel, because the scales of
    different methods cannot be compared. Pictures of one component are drawn against the epoch, or against the time
    step of a single epoch; of more than three components the first three are drawn. Of more than 20,000 nodes the same
    fixed random sample is drawn in all panels. Nodes without a place are not drawn.

    Parameters
    ----------
    embeddings : mapping of names to `Embedding` or (N, C) arrays
        All of the same nodes. The rows of an array are the nodes of the first `Embedding`, in the same order.
    color_by : sequence of "epoch", "timestep", "unit" and "most_active", optional
        The columns, in this order; None draws all. An array, or an `Embedding` without classes, takes the classes of
        the first picture that has some.
    path : str or path, optional
        A .png, .svg or .pdf file to write. An existing file is replaced. Dots are pixels in all three formats.
    figsize : (width, height), optional
        In inches; None is 7.2 wide for four columns. A width of 3.35 is a column of a paper.
    align : bool
        Whether pictures are turned onto the first.

    Returns
    -------
    matplotlib.figure.Figure, unknown to pyplot
        The axes are labeled "epoch of NAME" and so on.

    Raises
    ------
    InputError, InputTypeError
        Something other than a mapping, no `Embedding` in it, pictures of other nodes, a picture without places, an
        unknown coloring, a bad ``path``, or a ``figsize`` without room for the panels.

    Notes
    -----
    Time and memory are O(N) for each picture. A figure of nine panels takes about 2 s on one core.
    """
    rows = _same_nodes(embeddings)
    path = check_path(path)
    if align:
        rows = _aligned(rows)
    shown = draw_order(next(iter(rows.values())).n_nodes, MAX_DOTS)
    colorings = {name: _colorings(rows, each, shown, color_by) for name, each in rows.items()}
    columns = next(iter(colorings.values()))
    notes = _notes(rows, len(shown))
    figure, around = _page(figsize, len(rows), columns, NOTE if notes else EDGE)
    places = cells(figure, len(rows) * len(columns), len(columns), AROUND, around)
    panels = ((name, color) for name in rows for color in columns)
    for (name, color), place in zip(panels, places, strict=True):
        _draw_panel(figure, place, f"{color} of {name}", rows[name], shown, colorings[name][color])
    titles_above(figure, places[: len(columns)], [SHORT[name] for name in columns])
    _write_names(figure, places[:: len(columns)], list(rows))
    _draw_keys(figure, places[-len(columns) :], columns)
    write_notes(figure, notes)
    save_figure(figure, path)
    return figure


def _aligned(rows: dict[str, Embedding]) -> dict[str, Embedding]:
    first, *others = rows
    onto = rows[first].coordinates[:, :3]
    turned = {name: turned_onto(rows[name].coordinates[:, :3], onto) for name in others}
    return rows | {name: replace(rows[name], coordinates=points) for name, points in turned.items()}


def _colorings(rows: dict[str, Embedding], row: Embedding, shown: np.ndarray, color_by: Any) -> dict[str, Coloring]:
    """The colors of the nodes ``shown``, with a key of the classes of all rows."""
    active = [each.most_active for each in rows.values() if each.most_active is not None]
    classes = np.unique(np.concatenate(active)) if active else None
    return chosen_colorings(node_colorings(row.layout, row.most_active, shown, classes), color_by)


def _page(figsize: Any, n_rows: int, columns: dict[str, Coloring], below: float) -> tuple[Figure, Margins]:
    """A figure, and the inches around its panels."""
    across, up = AROUND.left + AROUND.right, AROUND.top + AROUND.bottom
    n = len(columns)
    if figsize is None:
        size = LEFT + EDGE + n * (SIDE + across), 1.0
    else:
        size = check_figsize(figsize, (LEFT + EDGE + n * (LEAST + across), 1.0))
    figure = new_figure(size)
    inside = (size[0] - LEFT - EDGE) / n - across
    keys = max(key_inches(figure, coloring, inside) for coloring in columns.values())
    around = Margins(LEFT, EDGE, TOP, KEY + keys + below)
    if figsize is None:
        figure.set_size_inches(size[0], around.top + around.bottom + n_rows * (SIDE + up))
    check_room(figsize, figure.get_figheight(), around.top + around.bottom + n_rows * (LEAST + up))
    return figure, around


def _draw_panel(figure: Figure, place: Any, label: str, row: Embedding, shown: np.ndarray, coloring: Coloring) -> None:
    placed = np.isfinite(row.coordinates[shown, 0])
    axis = time_axis(row.layout)
    points = node_points(row, shown[placed], axis)
    axes = add_frame(figure, place, label, points, row, axis, name="")
    if axes.name != "3d":
        axes.set(xticks=[], yticks=[], xlabel="")
        axes.spines[:].set(visible=True, color=FAINT, linewidth=0.5)
    style = dot_style("auto", len(points), square_inches(figure, place))
    draw_dots(axes, points, replace(coloring, values=coloring.values[placed]), style)


def _write_names(figure: Figure, places: Any, names: list[str]) -> None:
    """Write the names of the rows upward at the left edge."""
    room = places[0][3] * figure.get_figheight()
    short, size = fitted_names(figure, np.array(names, dtype=object), MOST, LABEL_SIZE + 1, room)
    for name, place in zip(short, places, strict=True):
        x, y = 0.5 * LEFT / figure.get_figwidth(), place[1] + place[3] / 2
        figure.text(x, y, name, fontsize=size, color=INK, rotation=90, ha="center", va="center")


def _draw_keys(figure: Figure, places: Any, columns: dict[str, Coloring]) -> None:
    width, height = figure.get_size_inches()
    for place, coloring in zip(places, columns.values(), strict=True):
        draw_key_below(figure, place[0] * width, place[1] * height - KEY, place[2] * width, coloring)


def _notes(rows: dict[str, Embedding], n_shown: int) -> list[str]:
    n_nodes = next(iter(rows.values())).n_nodes
    missing = max(int(np.isnan(each.coordinates[:, 0]).sum()) for each in rows.values())
    notes = [f"up to {missing:,} of {n_nodes:,} nodes have no place"] * (missing > 0)
    return notes + [f"{n_shown:,} of {n_nodes:,} nodes drawn, chosen at random"] * (n_shown < n_nodes)


# ---------------------------------------------------------------- pictures of the same nodes


def _same_nodes(embeddings: Any) -> dict[str, Embedding]:
    """``embeddings`` with arrays made into an `Embedding`, all with the nodes of the first `Embedding`.

    Those without classes get the classes of the first that has some.
    """
    if not isinstance(embeddings, Mapping):
        raise InputTypeError(f"embeddings is a {type(embeddings).__name__}; accepted: a dict of names and Embeddings")
    first = next((name for name, each in embeddings.items() if isinstance(each, Embedding)), None)
    if first is None:
        raise InputError("embeddings holds no Embedding; accepted: at least one, which has the labels of the nodes")
    result = {name: _checked(name, each, first, embeddings[first]) for name, each in embeddings.items()}
    classes = next((each.most_active for each in result.values() if each.most_active is not None), None)
    return {name: replace(each, most_active=_first(each.most_active, classes)) for name, each in result.items()}


def _first(classes: np.ndarray | None, otherwise: np.ndarray | None) -> np.ndarray | None:
    return otherwise if classes is None else classes


def _checked(name: Any, value: Any, first: Any, like: Embedding) -> Embedding:
    if not isinstance(name, str):
        raise InputTypeError(f"embeddings has the key {name!r}; accepted: names, which are text")
    called = f"embeddings[{name!r}]"
    result = value if isinstance(value, Embedding) else _of_array(called, value, like)
    for axis in AXES:
        if not _equal(getattr(result.layout, axis), getattr(like.layout, axis)):
            raise InputError(
                f"{called} has other labels of {axis} than embeddings[{first!r}]; accepted: pictures of the same nodes"
            )
    if not np.isfinite(result.coordinates).any():
        raise InputError(f"{called} has NaN in every row; accepted: at least one node with a place")
    return result


def _equal(labels: np.ndarray, others: np.ndarray) -> bool:
    """Whether both are the same labels; a label of NaN equals another, and so does a date that is missing."""
    if labels.shape != others.shape or labels.dtype.kind != others.dtype.kind:
        return False
    return bool(((labels == others) | ((labels != labels) & (others != others))).all())


def _of_array(called: str, values: Any, like: Embedding) -> Embedding:
    array = to_numpy(called, values)
    coordinates = array.astype(float) if array.dtype.kind in "iu" else array
    try:
        return Embedding(coordinates, like.layout)
    except InputError as error:
        raise type(error)(f"{called}: {error}") from error


def turned_onto(points: np.ndarray, other: np.ndarray) -> np.ndarray:  # (N, C), (N, c) -> (N, C)
    """``points`` moved, turned, reflected and scaled onto ``other``, by the nodes that have a place in both.

    The result has the mean of ``other`` and its root mean square distance from the mean. Its rotation minimizes the sum
    of squared distances (orthogonal Procrustes). With different numbers of components, the missing ones are zero.
    """
    from scipy.linalg import orthogonal_procrustes

    other = _with_columns(other, points.shape[1])
    both = np.isfinite(points[:, 0]) & np.isfinite(other[:, 0])
    if not both.any():
        return points
    center, other_center = points[both].mean(0), other[both].mean(0)
    moving, still = points[both] - center, other[both] - other_center
    size = np.linalg.norm(moving)
    scale = np.linalg.norm(still) / size if size else 1.0
    return (points - center) @ orthogonal_procrustes(moving, still)[0] * scale + other_center


def _with_columns(points: np.ndarray, n: int) -> np.ndarray:
    """The first ``n`` columns of ``points``, or all of them and zeros."""
    return np.pad(points[:, :n], ((0, 0), (0, max(0, n - points.shape[1]))))
