"""The nodes of an embedding in a picture: which are drawn, where, in which colors and within which frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..embedding import Embedding
from ..errors import InputError, check_choice, check_number, listed
from .axis import along_epochs, epoch_places, set_across
from .canvas import FAINT, INK, LABEL_SIZE, TICK_SIZE, open_frame
from .colors import Coloring, categorical, ordered
from .layout import Place, fitted_size, text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..slices import SliceLayout

TITLES = {"epoch": "Epoch", "timestep": "Time step", "unit": "Unit", "most_active": "Most active class"}


def placed_nodes(embedding: Embedding) -> np.ndarray:  # (n,)
    """The nodes that have a place; raises `InputError` if none has."""
    placed = np.flatnonzero(np.isfinite(embedding.coordinates[:, 0]))
    if not placed.size:
        raise InputError("embedding has NaN in every row; accepted: at least one node with a place")
    return placed


def draw_order(n_nodes: int, most: int) -> np.ndarray:
    """Shuffled nodes, at most ``most`` of them; the same for every figure of ``n_nodes`` nodes."""
    return np.random.default_rng(0).permutation(n_nodes)[:most]


def node_points(embedding: Embedding, nodes: np.ndarray, axis: str) -> np.ndarray:  # (n, 2) or (n, 3)
    """The first three components, or a single one against its ``axis``."""
    if embedding.n_components > 1:
        return embedding.coordinates[nodes, :3]
    position = embedding.layout.indices(nodes)[("epoch", "timestep").index(axis)]
    return np.column_stack([epoch_places(getattr(embedding.layout, axis))[position], embedding.coordinates[nodes, 0]])


def time_axis(layout: SliceLayout) -> str:
    """The axis that a single component is drawn against: the epoch, or the time step of a single epoch."""
    return "epoch" if layout.n_epochs > 1 else "timestep"


def node_colorings(
    layout: SliceLayout, most_active: np.ndarray | None, nodes: np.ndarray, classes: np.ndarray | None = None
) -> dict[str, Coloring]:
    """The colors of ``nodes`` by epoch, time step, unit and, if it is known, the most active class.

    ``classes`` are all that the key names, in ascending order; None means those of ``most_active``.
    """
    index = layout.indices(nodes)
    result = {axis: ordered_by(layout, axis, index[position]) for position, axis in enumerate(("epoch", "timestep"))}
    result["unit"] = categorical(index[2], layout.unit)
    if most_active is not None:
        classes = np.unique(most_active) if classes is None else classes
        result["most_active"] = categorical(np.searchsorted(classes, most_active[nodes]), classes)
    return result


def chosen_colorings(colorings: dict[str, Coloring], color_by: Any) -> dict[str, Coloring]:
    """The colorings that ``color_by`` names, in its order; None means all."""
    if color_by is None:
        return colorings
    if isinstance(color_by, str) or not set(color_by) <= colorings.keys() or not color_by:
        raise InputError(f"color_by={color_by!r} names no panels; accepted: a list of {listed(colorings.keys())}")
    return {name: colorings[name] for name in color_by}


def ordered_by(layout: SliceLayout, axis: str, index: np.ndarray) -> Coloring:
    """The colors of epochs or time steps, in the map that this axis has in all pictures."""
    cmap, high = {"epoch": ("viridis", 0.93), "timestep": ("plasma", 0.9)}[axis]
    return ordered(index, getattr(layout, axis), cmap, 0.0, high)


def note_nodes(figure: Figure, n_shown: int, n_placed: int, n_nodes: int) -> None:
    """Write at the lower edge how many nodes have no place, and how many are drawn, if some are missing."""
    notes = [f"{n_nodes - n_placed:,} of {n_nodes:,} nodes have no place"] * (n_placed < n_nodes)
    notes += [f"{n_shown:,} of {n_placed:,} nodes drawn, chosen at random"] * (n_shown < n_placed)
    write_notes(figure, notes)


def write_notes(figure: Figure, notes: list[str]) -> None:
    """Write ``notes`` in one line at the lower right edge."""
    if notes:
        text = "; ".join(notes)
        size = fitted_size(figure, [text], TICK_SIZE - 1.5, 0.98 * figure.get_figwidth())
        figure.text(0.995, 0.006, text, ha="right", va="bottom", fontsize=size, color=FAINT)


# ---------------------------------------------------------------- frames and dots


def add_frame(
    figure: Figure,
    place: Place,
    label: str,
    points: np.ndarray,
    embedding: Embedding,
    axis: str,
    name: str = "MM-PHATE",
) -> Any:
    """Add axes with limits for ``points``, as a box if these have three columns. Components get ``name`` and a number.

    A single component is drawn against ``axis``. Without a ``name``, components have none.
    """
    axes = figure.add_axes(place, label=label, projection="3d" if points.shape[1] == 3 else None)
    if axes.name == "3d":
        _deep_frame(axes, points, name)
    elif embedding.n_components == 1:
        _time_frame(axes, getattr(embedding.layout, axis), TITLES[axis], name)
    else:
        flat_frame(axes, points, name)
    return axes


def draw_dots(axes: Any, points: np.ndarray, coloring: Coloring, style: dict[str, Any]) -> None:
    """Draw ``points`` in their colors, in the order of their rows."""
    deep: dict[str, Any] = {"depthshade": False} if axes.name == "3d" else {}  # distant dots keep the color of the key
    axes.scatter(*points.T, c=coloring.values, cmap=coloring.cmap, norm=coloring.norm, **style, **deep)


def panel_shape(points: np.ndarray) -> float:
    """Width over height of a panel that suits ``points``, limited in the plane to the range from 0.85 to 1.5."""
    if points.shape[1] == 3:
        return 1.22
    width, height = np.ptp(points, axis=0)
    return float(np.clip(width / height, 0.85, 1.5)) if width > 0 and height > 0 else 1.0


def dot_style(point_size: float | str, n: int, square_inches: float) -> dict[str, Any]:
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


def flat_frame(axes: Axes, points: np.ndarray, name: str) -> None:
    """A frame with the same scale on both axes. The limits of the shorter side are widened to fill the panel."""
    open_frame(axes)
    axes.set(xticks=[], yticks=[])
    set_equal_limits(axes, points)
    axes.set_aspect("equal")
    if name:
        axes.set_xlabel(f"{name} 1", fontsize=TICK_SIZE, color=INK, loc="left", labelpad=4)
        axes.set_ylabel(f"{name} 2", fontsize=TICK_SIZE, color=INK, loc="bottom", labelpad=4)


def set_equal_limits(axes: Any, points: np.ndarray, share: float = 0.54) -> None:
    """Limits around ``points`` (n, 2) with one scale: on the longer side ``share`` of the extent to either side."""
    half, size = share * np.ptp(points, axis=0), axes.bbox.size
    unit = max(half / size) or 1.0
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    (left, lower), (right, upper) = middle - unit * size, middle + unit * size
    axes.set(xlim=(left, right), ylim=(lower, upper))


def _time_frame(axes: Any, labels: np.ndarray, title: str, name: str) -> None:
    open_frame(axes)
    figure = axes.figure
    inches = axes.get_position().width * figure.get_figwidth()
    set_across(axes, along_epochs(figure, labels, inches), title)
    if text_width(figure, axes.get_xlabel(), LABEL_SIZE) > inches + 0.1:
        axes.set_xlabel(title)  # without the note of dates
    axes.set_yticks([])
    if name:
        axes.set_ylabel(f"{name} 1", fontsize=TICK_SIZE, color=INK, loc="bottom", labelpad=4)


def _deep_frame(axes: Any, points: np.ndarray, name: str) -> None:
    """A box of equal scales with pale walls. No side is shorter than a quarter of the longest."""
    extent = np.ptp(points, axis=0)
    extent = np.maximum(extent, 0.25 * extent.max()) if extent.max() > 0 else np.ones(3)
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    for number, (letter, center, size) in enumerate(zip("xyz", middle, extent, strict=True), 1):
        axes.set(**{f"{letter}lim": (center - 0.52 * size, center + 0.52 * size), f"{letter}ticks": []})
        axis = getattr(axes, f"{letter}axis")
        axis.set_pane_color((0.965, 0.965, 0.965, 1.0))
        axis.line.set(color=FAINT, linewidth=0.7)
        axis.labelpad = -14
        axis.set_label_text(f"{name} {number}" if name else "", fontsize=TICK_SIZE, color=INK)
    axes.patch.set_visible(False)
    axes.view_init(elev=24, azim=-58)
    axes.set_box_aspect(extent)
    _fill_panel(axes, names=bool(name))


def _fill_panel(axes: Any, *, names: bool) -> None:
    """Move and scale the axes so that the projected box, with room for ``names`` of its axes, fills the panel."""
    from matplotlib.transforms import Bbox
    from mpl_toolkits.mplot3d.proj3d import proj_transform

    inch = axes.figure.dpi
    panel = axes.bbox.frozen()
    below, right = (0.12 * inch, 0.2 * inch) if names else (0, 0)
    room: Any = Bbox.from_extents(panel.x0, panel.y0 + below, panel.x1 - right, panel.y1)
    axes.apply_aspect()
    corners = np.array(np.meshgrid(axes.get_xlim(), axes.get_ylim(), axes.get_zlim())).reshape(3, 8)
    x, y, _ = proj_transform(*corners, axes.get_proj())
    box: Any = Bbox.null()
    box.update_from_data_xy(axes.transData.transform(np.column_stack([x, y])))
    scale = min(room.width / box.width, room.height / box.height)
    low = (room.min + room.max) / 2 + scale * (axes.bbox.min - (box.min + box.max) / 2)
    moved = Bbox([low, low + scale * axes.bbox.size])
    axes.set_position(moved.transformed(axes.figure.transFigure.inverted()))
