"""The embedding in four panels: epoch, time step, unit and most active class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..embedding import Embedding
from ..errors import InputError, InputTypeError, check_choice, check_number, listed
from .canvas import FAINT, INK, TICK_SIZE, TITLE_SIZE, check_path, new_figure, open_frame, plain_style, save_figure
from .colors import Coloring, are_numbers, categorical, every_few, ordered, round_ticks
from .keys import draw_key
from .layout import Place, check_figsize
from .names import texts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_DOTS = 200_000  # more dots than fit into a panel only take time
TITLES = {"epoch": "Epoch", "timestep": "Time step", "unit": "Unit", "most_active": "Most active class"}


@plain_style()
def panels(
    embedding: Embedding,
    *,
    color_by: Sequence[str] | None = None,
    path: str | os.PathLike[str] | None = None,
    figsize: tuple[float, float] | None = None,
    point_size: float | str = "auto",
) -> Figure:
    """Draw the embedding in one panel each for epoch, time step, unit and most active class.

    Two components are drawn in the plane, and three or more in space (the first three). A single component is drawn
    against the epoch, or against the time step of a single epoch. Without a most active class there are three panels in
    a row. Dots are drawn in a fixed random order, so that no label hides another. Of more than 200,000 nodes, a fixed
    random sample of 200,000 is drawn, and a note on the figure gives both numbers. Nodes without a place (a row of NaN)
    are not drawn, and another note counts them.

    Parameters
    ----------
    embedding : Embedding
        The nodes to draw.
    color_by : sequence of "epoch", "timestep", "unit" and "most_active", optional
        The panels, in this order; None draws all.
    path : str or path, optional
        A .png, .svg or .pdf file to write. An existing file is replaced. Dots are pixels in all three formats.
    figsize : (width, height), optional
        In inches; None fits the number of panels and the shape of the embedding.
    point_size : float or "auto"
        Squared diameter of a dot, in square points; "auto" falls with the number of nodes.

    Returns
    -------
    matplotlib.figure.Figure, unknown to pyplot
        The axes of the panels are labeled "epoch", "timestep", "unit" and "most_active".

    Raises
    ------
    InputError, InputTypeError
        No `Embedding`, one in which no node has a place, or a bad ``path``, ``figsize`` or ``point_size``.
    """
    if not isinstance(embedding, Embedding):
        raise InputTypeError(f"embedding is a {type(embedding).__name__}; accepted: an Embedding")
    path = check_path(path)
    placed = _placed(embedding)
    shown = placed[_draw_order(len(placed))]
    points = _points(embedding, shown)
    colorings = _chosen(_colorings(embedding, shown), color_by)
    figure = new_figure(_figsize(figsize, points, len(colorings)))
    places = _places(figure, len(colorings))
    style = _dot_style(point_size, len(shown), _square_inches(figure, places[0][0]))
    for (name, coloring), (panel, key) in zip(colorings.items(), places, strict=True):
        axes: Any = figure.add_axes(panel, label=name, projection="3d" if points.shape[1] == 3 else None)
        _frame(axes, points, embedding)
        axes.scatter(*points.T, c=coloring.values, cmap=coloring.cmap, norm=coloring.norm, **_flat_or_deep(axes, style))
        _title(figure, panel, TITLES[name])
        draw_key(figure, key, coloring)
    _note_nodes(figure, len(shown), len(placed), embedding.n_nodes)
    save_figure(figure, path)
    return figure


def _placed(embedding: Embedding) -> np.ndarray:  # (n,)
    """The nodes that have a place."""
    placed = np.flatnonzero(np.isfinite(embedding.coordinates[:, 0]))
    if not placed.size:
        raise InputError("embedding has NaN in every row; accepted: at least one node with a place")
    return placed


def _draw_order(n_nodes: int) -> np.ndarray:
    """Shuffled nodes, at most `MAX_DOTS` of them; the same for every figure of ``n_nodes`` nodes."""
    return np.random.default_rng(0).permutation(n_nodes)[:MAX_DOTS]


def _points(embedding: Embedding, shown: np.ndarray) -> np.ndarray:  # (n, 2) or (n, 3)
    if embedding.n_components > 1:
        return embedding.coordinates[shown, :3]
    axis = _time_axis(embedding)
    position = embedding.layout.indices(shown)[("epoch", "timestep").index(axis)]
    return np.column_stack([_numbers(getattr(embedding.layout, axis))[position], embedding.coordinates[shown, 0]])


def _time_axis(embedding: Embedding) -> str:
    """The axis that a single component is drawn against: the epoch, or the time step of a single epoch."""
    return "epoch" if embedding.layout.n_epochs > 1 else "timestep"


def _numbers(labels: np.ndarray) -> np.ndarray:
    return labels if are_numbers(labels) else np.arange(len(labels))


def _colorings(embedding: Embedding, shown: np.ndarray) -> dict[str, Coloring]:
    layout = embedding.layout
    epoch, timestep, unit = layout.indices(shown)
    result = {
        "epoch": ordered(epoch, layout.epoch, "viridis", 0.0, 0.93),
        "timestep": ordered(timestep, layout.timestep, "plasma", 0.0, 0.9),
        "unit": categorical(unit, layout.unit),
    }
    if embedding.most_active is not None:
        classes, index = np.unique(embedding.most_active, return_inverse=True)
        result["most_active"] = categorical(index[shown], classes)
    return result


def _chosen(colorings: dict[str, Coloring], color_by: Any) -> dict[str, Coloring]:
    if color_by is None:
        return colorings
    if isinstance(color_by, str) or not set(color_by) <= colorings.keys() or not color_by:
        raise InputError(f"color_by={color_by!r} names no panels; accepted: a list of {listed(colorings.keys())}")
    return {name: colorings[name] for name in color_by}


def _dot_style(point_size: float | str, n: int, square_inches: float) -> dict[str, Any]:
    """Area and opacity of ``n`` dots: the inside of a dense cloud is visible, and so are a few dots.

    Between its bounds the area is such that dots without overlap would cover half of the panel.
    """
    if isinstance(point_size, str):
        check_choice("point_size", point_size, ("auto",))
        area = float(np.clip(3_600 * square_inches / n, 0.6, square_inches))
    else:
        area = check_number("point_size", point_size, low=0, open_low=True)
    alpha = float(np.clip((6_000 / n) ** 0.25, 0.5, 0.9))
    return {"s": area, "alpha": alpha, "linewidths": 0, "edgecolors": "none", "rasterized": True}


def _flat_or_deep(axes: Axes, style: dict[str, Any]) -> dict[str, Any]:
    # Depth shading fades distant dots, so their colors would differ from the key.
    return style | {"depthshade": False} if axes.name == "3d" else style


# Inches around a panel: left for the axis name, right for the key, above for the title.
LEFT, RIGHT, TOP, BOTTOM = 0.38, 1.05, 0.42, 0.34


def _grid(n_panels: int) -> tuple[int, int]:
    return (2, 2) if n_panels == 4 else (1, n_panels)


def _figsize(figsize: tuple[float, float] | None, points: np.ndarray, n_panels: int) -> tuple[float, float]:
    rows, columns = _grid(n_panels)
    if figsize is None:
        height = 3.4
        width = height * (_shape(points) if points.shape[1] == 2 else 1.22)
        return columns * (width + LEFT + RIGHT), rows * (height + TOP + BOTTOM)
    return check_figsize(figsize, (columns * (1 + LEFT + RIGHT), rows * (1 + TOP + BOTTOM)))


def _shape(points: np.ndarray) -> float:
    """Width over height of the cloud, limited to the range from 0.85 to 1.5."""
    width, height = np.ptp(points, axis=0)
    return float(np.clip(width / height, 0.85, 1.5)) if width > 0 and height > 0 else 1.0


def _places(figure: Figure, n_panels: int) -> list[tuple[Place, Place]]:
    """Rectangles (left, bottom, width, height) of each panel and of its key, in figure fractions."""
    rows, columns = _grid(n_panels)
    total = np.array([*figure.get_size_inches()] * 2)
    width, height = total[0] / columns, total[1] / rows
    places: list[tuple[Place, Place]] = []
    for row, column in np.ndindex(rows, columns):
        left, bottom = column * width + LEFT, (rows - 1 - row) * height + BOTTOM
        panel = np.array([left, bottom, width - LEFT - RIGHT, height - TOP - BOTTOM])
        key = np.array([left + panel[2] + 0.12, bottom, RIGHT - 0.12, panel[3]])
        places.append((tuple(panel / total), tuple(key / total)))
    return places


def _square_inches(figure: Figure, place: Place) -> float:
    return float(np.prod(figure.get_size_inches()) * place[2] * place[3])


def _frame(axes: Axes, points: np.ndarray, embedding: Embedding) -> None:
    if axes.name == "3d":
        _deep_frame(axes, points)
    elif embedding.n_components == 1:
        _time_frame(axes, embedding)
    else:
        _flat_frame(axes, points)


def _flat_frame(axes: Axes, points: np.ndarray) -> None:
    """A frame with the same scale on both axes. The limits of the shorter side are widened to fill the panel."""
    open_frame(axes)
    axes.set(xticks=[], yticks=[])
    width, height = axes.bbox.size
    half = 0.54 * np.ptp(points, axis=0)
    unit = max(half[0] / width, half[1] / height) or 1.0
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    axes.set_xlim(middle[0] - unit * width, middle[0] + unit * width)
    axes.set_ylim(middle[1] - unit * height, middle[1] + unit * height)
    axes.set_aspect("equal")
    axes.set_xlabel("MM-PHATE 1", fontsize=TICK_SIZE, color=INK, loc="left", labelpad=4)
    axes.set_ylabel("MM-PHATE 2", fontsize=TICK_SIZE, color=INK, loc="bottom", labelpad=4)


def _time_frame(axes: Axes, embedding: Embedding) -> None:
    open_frame(axes)
    axis = _time_axis(embedding)
    labels = getattr(embedding.layout, axis)
    places = round_ticks(labels, 3) if are_numbers(labels) else every_few(len(labels), 4)
    axes.set_xticks(places, texts(places if are_numbers(labels) else labels[places]))
    axes.set_yticks([])
    axes.set_xlabel(TITLES[axis], fontsize=TICK_SIZE, color=INK, labelpad=2)
    axes.set_ylabel("MM-PHATE 1", fontsize=TICK_SIZE, color=INK, loc="bottom", labelpad=4)


def _deep_frame(axes: Any, points: np.ndarray) -> None:
    """A box of equal scales with pale walls. No side is shorter than a quarter of the longest."""
    extent = np.ptp(points, axis=0)
    extent = np.maximum(extent, 0.25 * extent.max()) if extent.max() > 0 else np.ones(3)
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    for name, center, size in zip("xyz", middle, extent, strict=True):
        axes.set(**{f"{name}lim": (center - 0.52 * size, center + 0.52 * size), f"{name}ticks": []})
        axis = getattr(axes, f"{name}axis")
        axis.set_pane_color((0.965, 0.965, 0.965, 1.0))
        axis.line.set(color=FAINT, linewidth=0.7)
        axis.labelpad = -14
        axis.set_label_text(f"MM-PHATE {'xyz'.index(name) + 1}", fontsize=TICK_SIZE, color=INK)
    axes.patch.set_visible(False)
    axes.view_init(elev=24, azim=-58)
    axes.set_box_aspect(extent)
    _fill_panel(axes)


def _fill_panel(axes: Any) -> None:
    """Move and scale the axes so that the projected box, with room for the names of its axes, fills the panel."""
    from matplotlib.transforms import Bbox
    from mpl_toolkits.mplot3d.proj3d import proj_transform

    inch = axes.figure.dpi
    panel = axes.bbox.frozen()
    room: Any = Bbox.from_extents(panel.x0, panel.y0 + 0.12 * inch, panel.x1 - 0.2 * inch, panel.y1)
    axes.apply_aspect()
    corners = np.array(np.meshgrid(axes.get_xlim(), axes.get_ylim(), axes.get_zlim())).reshape(3, 8)
    x, y, _ = proj_transform(*corners, axes.get_proj())
    box: Any = Bbox.null()
    box.update_from_data_xy(axes.transData.transform(np.column_stack([x, y])))
    scale = min(room.width / box.width, room.height / box.height)
    low = (room.min + room.max) / 2 + scale * (axes.bbox.min - (box.min + box.max) / 2)
    moved = Bbox([low, low + scale * axes.bbox.size])
    axes.set_position(moved.transformed(axes.figure.transFigure.inverted()))


def _title(figure: Figure, panel: Place, title: str) -> None:
    # The title belongs to the figure, because `_fill_panel` moves the axes of a box within the panel.
    left, bottom, _, height = panel
    gap = 0.1 / figure.get_figheight()
    figure.text(left, bottom + height + gap, title, fontsize=TITLE_SIZE, color=INK, ha="left", va="bottom")


def _note_nodes(figure: Figure, n_shown: int, n_placed: int, n_nodes: int) -> None:
    notes = [f"{n_nodes - n_placed:,} of {n_nodes:,} nodes have no place"] * (n_placed < n_nodes)
    notes += [f"{n_shown:,} of {n_placed:,} nodes drawn, chosen at random"] * (n_shown < n_placed)
    if notes:
        figure.text(0.995, 0.006, "; ".join(notes), ha="right", va="bottom", fontsize=TICK_SIZE - 1.5, color=FAINT)
