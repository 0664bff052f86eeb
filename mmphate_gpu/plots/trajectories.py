"""The paths of some units through epochs and time steps."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ..embedding import Embedding
from ..errors import InputError, InputTypeError, check_choice
from .canvas import INK, TICK_SIZE, TITLE_SIZE, check_path, new_figure, plain_style, save_figure
from .layout import Margins, Place, cells, check_figsize, check_room, columns_for, fitted_names, square_inches, widest
from .nodes import add_frame, dot_style, draw_order, node_points, note_nodes, ordered_by, panel_shape, placed_nodes
from .path_keys import SHAPES, PathKey
from .path_lines import draw_path
from .unit_paths import UnitPaths, farthest, label_indices, paths_of, spread_out

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_DOTS = 50_000  # of the cloud behind the paths
CLOUD = "#c9c9c9"
SIDE, SINGLE, SEVERAL = 0.75, 3.3, 2.4  # inches: the least side of a panel, of a single panel, and of one of several
AROUND = Margins(0.24, 0.08, 0.46, 0.34)  # each panel
TICKS = 0.16  # inches more below a panel against time
POINTS = 72  # of an inch
EDGE = 0.1  # inches beside the key
THROUGH = ("epochs", "timesteps", "both")
COLORS = ("unit", "time")


@plain_style()
def trajectories(
    embedding: Embedding,
    units: Any = None,
    *,
    through: str = "epochs",
    timestep: Any = None,
    epochs: Any = None,
    color_by: str = "unit",
    path: str | os.PathLike[str] | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """Draw the paths of some units over the pale cloud of all nodes.

    A ring is where a path begins, and arrow heads show its direction. The key has the labels of both ends. Through the
    epochs, a path joins the means of the unit over the time steps, or its places at one ``timestep``. Through the time
    steps, there is a panel for each of ``epochs``. A path has a gap where its unit has no place. Components beyond the
    third are not drawn, and a single component is drawn against the epoch or the time step. Of more than 50,000 nodes
    the cloud shows a fixed random sample.

    Parameters
    ----------
    embedding : Embedding
        The nodes to draw.
    units : label or sequence of labels, optional
        Labels of units. None chooses the six whose places lie farthest from the mean of their path (root mean square
        over the paths that are drawn).
    through : {"epochs", "timesteps", "both"}
        What the paths follow.
    timestep : label, optional
        The time step of the paths through the epochs; None means their mean over all time steps.
    epochs : label or sequence of labels, optional
        The epochs of the paths through the time steps; None takes the first, the middle and the last.
    color_by : {"unit", "time"}
        A color for each unit, which grows from pale to full along the path; or the colors that epochs and time steps
        have in `panels`, with a shape for each of at most eight units at the end of its path.
    path : str or path, optional
        A .png, .svg or .pdf file to write. An existing file is replaced. Dots are pixels in all three formats.
    figsize : (width, height), optional
        In inches; None fits the number of panels. A width of 3.35 is a column of a paper.

    Returns
    -------
    matplotlib.figure.Figure, unknown to pyplot
        The axes are labeled "epochs", and "timesteps of 0" with the index of the epoch.

    Raises
    ------
    InputError, InputTypeError
        Something other than an `Embedding`, one in which no node has a place, an unknown label, more than eight units
        by "time", an option that ``through`` does not use, a bad ``path``, or a ``figsize`` without room.

    Notes
    -----
    Time and memory are O(N). The figure of 487,680 nodes takes about 2 s on one core.
    """
    _check(embedding, through, timestep, epochs, color_by)
    path = check_path(path)
    panels, chosen = _panels(embedding, units, through, timestep, epochs)
    if color_by == "time" and len(chosen) > len(SHAPES):
        raise InputError(f"color_by='time' has shapes for {len(SHAPES)} units, not {len(chosen)}; accepted: 'unit'")
    figure = new_figure((SEVERAL * 3, SEVERAL) if figsize is None else check_figsize(figsize, (2.4, 1.5)))
    key = PathKey.of(figure, embedding.layout, panels, chosen, color_by)
    placed = placed_nodes(embedding)
    shown = placed[draw_order(len(placed), MAX_DOTS)]
    margins = AROUND if embedding.n_components > 1 else _with_ticks(figure, embedding, panels)
    shape = panel_shape(node_points(embedding, shown, "epoch"))
    columns, around = _page(figure, figsize, len(panels), key, margins, shape)
    places = cells(figure, len(panels), columns, margins, around)
    for panel, place in zip(panels, places, strict=True):
        axes = _add_cloud(figure, place, panel, embedding, shown)
        for number, line in enumerate(panel.places):
            draw_path(axes, line, key.colors(panel, number), key.scale * _scale(figure, place), key.end(number))
    _write_titles(figure, places, panels)
    key.draw(figure, around.right)
    note_nodes(figure, len(shown), len(placed), embedding.n_nodes)
    save_figure(figure, path)
    return figure


def _check(embedding: Any, through: Any, timestep: Any, epochs: Any, color_by: Any) -> None:
    if not isinstance(embedding, Embedding):
        raise InputTypeError(f"embedding is a {type(embedding).__name__}; accepted: an Embedding")
    check_choice("through", through, THROUGH)
    check_choice("color_by", color_by, COLORS)
    for name, value, idle in (("timestep", timestep, "timesteps"), ("epochs", epochs, "epochs")):
        if value is not None and through == idle:
            raise InputError(f"{name}={value!r} has no use in paths through {through}; accepted: None")


def _panels(
    embedding: Embedding, units: Any, through: str, timestep: Any, epochs: Any
) -> tuple[list[UnitPaths], np.ndarray]:
    """The panels and the labels of their units."""
    layout = embedding.layout
    step = None if timestep is None else int(label_indices("timestep", layout.timestep, timestep)[0])
    shown = spread_out(layout.n_epochs) if epochs is None else label_indices("epochs", layout.epoch, epochs)
    if units is None:
        chosen = farthest(paths_of(embedding, np.arange(layout.n_units), through, step, shown), embedding.n_components)
    else:
        chosen = label_indices("units", layout.unit, units)
    return paths_of(embedding, chosen, through, step, shown), layout.unit[chosen]


def _with_ticks(figure: Figure, embedding: Embedding, panels: list[UnitPaths]) -> Margins:
    """The margins of panels against time, with room for the ticks at both ends."""
    axes = {panel.axis for panel in panels}
    names = [name for axis in axes for name in ordered_by(embedding.layout, axis, np.zeros(1, dtype=int)).names]
    half = widest(figure, names, TICK_SIZE) / 2
    return Margins(max(AROUND.left, half + 0.1), max(AROUND.right, half), AROUND.top, AROUND.bottom + TICKS)


def _page(figure: Figure, figsize: Any, n: int, key: PathKey, margins: Margins, shape: float) -> tuple[int, Margins]:
    """The columns of ``n`` panels, and the inches around them; None makes ``figure`` fit panels of this ``shape``."""
    around = Margins(0, EDGE + key.width(figure), 0, 0)
    across, up = margins.left + margins.right, margins.top + margins.bottom
    if figsize is None:
        columns, side = 3 if n == 3 else math.ceil(math.sqrt(n)), SINGLE if n == 1 else SEVERAL
        height = max(-(-n // columns) * (side + up), key.least_height())
        size = columns * (side * shape + across) + around.right, height
    else:
        size = check_figsize(figsize, (SIDE + across + around.right, SIDE + up))
        width = size[0] - around.right
        check_room(size, size[1], max(-(-n // columns_for(width, SIDE + across, n)) * (SIDE + up), key.least_height()))
        sides = [min(width / c - across, size[1] / -(-n // c) - up) for c in range(1, n + 1)]
        columns = 1 + int(np.argmax(sides))
    figure.set_size_inches(*size)
    return columns, around


def _add_cloud(figure: Figure, place: Place, panel: UnitPaths, embedding: Embedding, shown: np.ndarray) -> Any:
    """Add axes with all nodes in gray, and fix their limits."""
    points = node_points(embedding, shown, panel.axis)
    axes = add_frame(figure, place, panel.name, points, embedding, panel.axis)
    style = dot_style("auto", len(points), square_inches(figure, place))
    axes.scatter(*points.T, color=CLOUD, **style | {"s": 0.5 * style["s"], "alpha": 0.5, "label": "cloud"})
    if axes.name == "3d":
        axes.computed_zorder = False  # the paths are in front of the cloud
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())
    return axes


def _scale(figure: Figure, place: Place) -> float:
    """The size of lines and marks in a panel, which are smaller in a small one."""
    return float(np.clip(min(place[2:] * figure.get_size_inches()) / SEVERAL, 0.6, 1))


def _write_titles(figure: Figure, places: list[Place], panels: list[UnitPaths]) -> None:
    """Write the title of each panel, and below it what is fixed."""
    room, inches = places[0][2] * figure.get_figwidth(), 0.07
    for field, largest in (("fixed", TICK_SIZE), ("title", TITLE_SIZE - 1)):
        names = np.array([getattr(panel, field) for panel in panels], dtype=object)
        lines, size = fitted_names(figure, names, max(2, *map(len, names)), largest, room)
        for place, line in zip(places, lines, strict=True):
            bottom = place[1] + place[3] + inches / figure.get_figheight()
            figure.text(place[0], bottom, line, fontsize=size, color=INK, ha="left", va="bottom")
        inches += 1.45 * size / POINTS
