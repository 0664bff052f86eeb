"""Values per epoch and time step, or per epoch and unit, as colors."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..analysis import Baselines, Entropy, LabelInformation, LinearProbe, TimestepAblation, UnitAblation
from ..analysis.means import mean_of_finite
from ..analysis.result import Result
from ..errors import InputError, InputTypeError, check_choice
from .axis import LINE, Ticks, across, by_rank, set_across, set_upward, ticks_within, upward, value_limits
from .canvas import INK, TICK_SIZE, check_path, new_figure, open_frame, plain_style, save_figure
from .keys import draw_bar, show_missing
from .layout import Margins, Place, beside, check_figsize, stacked, title_above, widest
from .names import entropy_title, entropy_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 6.4, 3.4
TOP, BOTTOM, BAR = 0.36, 0.42, 0.13  # inches above and below the cells, and of the bar of colors
MOST = 12  # names on the horizontal axis
SYMBOLS = {"permuted": "▶", "chance": "—"}
AXES = {"epoch": "Epoch", "timestep": "Time step", "unit": "Unit"}
# Maps that readers with any color vision can order. In the two that diverge, red means that the network is worse.
SEQUENTIAL, HIGH_HARMS, LOW_HARMS = "viridis", "RdBu_r", "RdBu"


@dataclass(frozen=True, eq=False)
class View:
    """An array that can be drawn, and what its colors mean."""

    title: str
    values: np.ndarray  # (E, T), (E, M), or any two axes
    columns: tuple[str, np.ndarray]  # name and labels of the first axis, which is horizontal
    rows: tuple[str, np.ndarray]
    unit: str = ""
    cmap: str = SEQUENTIAL
    marks: dict[str, float] = field(default_factory=dict)  # values without information, by name


@plain_style()
def heatmap(
    result: Result,
    *,
    field: str | None = None,
    path: str | os.PathLike[str] | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """Draw a result per epoch and time step, or per epoch and unit, in colors.

    All labels have the same room, and ticks name some of them. Changes have colors that diverge from zero; red means
    that the network is worse. On the color bar of other values, marks show the mean for permuted labels and the level
    of chance. Cells without a value are gray and hatched, and the key says so.

    Parameters
    ----------
    result : LinearProbe, LabelInformation, TimestepAblation, UnitAblation, Entropy or Baselines
        An entropy needs two axes.
    field : str, optional
        The array to draw, by the name of its field; None draws the first that the result has. ``LinearProbe``: "score",
        "cross_entropy". ``LabelInformation``: "mean", "bound", "dsmi", and "per_unit" (the mean over time steps).
        Ablations: "loss_change", "accuracy_change", "loss", "accuracy". ``Entropy``: "values". ``Baselines``: the
        similarities, such as "cka of epochs".
    path : str or path, optional
        A .png, .svg or .pdf file to write. An existing file is replaced. Cells are pixels in all three formats.
    figsize : (width, height), optional
        In inches; None is 6.4 x 3.4.

    Returns
    -------
    matplotlib.figure.Figure, unknown to pyplot
        The axes are labeled "heatmap" and "key".

    Raises
    ------
    InputError, InputTypeError
        Another class of result, a field that it does not have or that has no finite value, or a bad ``path`` or
        ``figsize``.
    """
    path = check_path(path)
    view = _view(result, field)
    figure = new_figure(check_figsize((WIDTH, HEIGHT) if figsize is None else figsize, (2.5, 2.0)))
    norm = _norm(view)
    rows, place = _place(figure, view, norm)
    axes: Any = figure.add_axes(place, label="heatmap")
    _draw_cells(axes, view, norm)
    limits = (-0.5, view.values.shape[0] - 0.5)
    columns = by_rank(view.columns[1], limits, across(figure, place[2] * figure.get_figwidth(), limits), MOST)
    set_across(axes, columns, AXES[view.columns[0]])
    set_upward(axes, rows, AXES[view.rows[0]])
    _draw_key(figure, place, view, norm)
    title_above(figure, place, view.title, 0.08)
    save_figure(figure, path)
    return figure


# ---------------------------------------------------------------- what is drawn


def _view(result: Any, name: str | None) -> View:
    maker = next((maker for accepted, maker in VIEWS.items() if isinstance(result, accepted)), None)
    if maker is None:
        names = " or ".join(accepted.__name__ for accepted in VIEWS)
        raise InputTypeError(f"result is a {type(result).__name__}; accepted: {names}")
    views = maker(result)
    name = next(iter(views)) if name is None else check_choice("field", name, tuple(views))
    if not np.isfinite(views[name].values).any():
        raise InputError(f"result has NaN everywhere in {name!r}; accepted: at least one finite value")
    return views[name]


def _probe_views(probe: LinearProbe) -> dict[str, View]:
    axes = ("epoch", probe.epoch), ("timestep", probe.timestep)
    score = {"permuted": _mean(probe.permuted_score), "chance": float(probe.chance)}
    error = {"permuted": _mean(probe.permuted_cross_entropy)}
    loss, unit = ("squared error", "") if probe.measure == "R2" else ("cross-entropy", "bits")
    return {
        "score": View(f"Linear probe: {probe.measure}", probe.score, *axes, marks=score),
        "cross_entropy": View(f"Linear probe: {loss}", probe.cross_entropy, *axes, unit, marks=error),
    }


def _information_views(information: LabelInformation) -> dict[str, View]:
    epochs, steps = ("epoch", information.epoch), ("timestep", information.timestep)
    titles = {"mean": "mean over units", "bound": "bound of the probe", "dsmi": "spectral (DSMI)"}
    views = {
        name: View(
            f"Label information, {title}", getattr(information, name), epochs, steps, "bits",
            marks={"permuted": _mean(getattr(information, f"permuted_{name}"))},
        )
        for name, title in titles.items()
    }  # fmt: skip
    per_unit = mean_of_finite(information.per_unit, 1)
    units = View("Label information of each unit", per_unit, epochs, ("unit", information.unit), "bits")
    return views | {"per_unit": units}


def _ablation_views(ablation: TimestepAblation | UnitAblation) -> dict[str, View]:
    other = "timestep" if isinstance(ablation, TimestepAblation) else "unit"
    axes = ("epoch", ablation.epoch), (other, getattr(ablation, other))
    without = f", {AXES[other].lower()} replaced ({ablation.replacement})"
    unit = "nats" if "(nats)" in str(ablation.settings.get("loss")) else ""
    return {
        "loss_change": View(f"Change of loss{without}", ablation.loss_change, *axes, unit, HIGH_HARMS),
        "accuracy_change": View(f"Change of accuracy{without}", ablation.accuracy_change, *axes, cmap=LOW_HARMS),
        "loss": View(f"Loss{without}", ablation.loss, *axes, unit),
        "accuracy": View(f"Accuracy{without}", ablation.accuracy, *axes),
    }


def _entropy_views(entropy: Entropy) -> dict[str, View]:
    if len(entropy.dims) != 2:
        raise InputError(f"result is an entropy with {len(entropy.dims)} axes; accepted: two axes, as over units")
    columns, rows = ((name, np.asarray(entropy.coords[name])) for name in entropy.dims)
    return {"values": View(entropy_title(entropy), entropy.values, columns, rows, entropy_unit(entropy.base))}


def _similarity_views(baselines: Baselines) -> dict[str, View]:
    if not baselines.similarity:
        raise InputError('result has no similarity; accepted: baselines with the method "cka" or "svcca"')
    views = {}
    for name, values in baselines.similarity.items():
        method, _, cells = name.partition(" of ")
        axis = cells.removesuffix("s")
        labels = axis, np.asarray(getattr(baselines.layout, axis))
        views[name] = View(f"Similarity ({method.upper()})", values, labels, labels)
    return views


def _mean(values: np.ndarray) -> float:
    return float(mean_of_finite(np.asarray(values).reshape(1, -1), 1)[0])


VIEWS: dict[type, Callable[[Any], dict[str, View]]] = {
    LinearProbe: _probe_views,
    LabelInformation: _information_views,
    TimestepAblation: _ablation_views,
    UnitAblation: _ablation_views,
    Entropy: _entropy_views,
    Baselines: _similarity_views,
}


# ---------------------------------------------------------------- drawing


def _norm(view: View) -> Normalize:
    """Colors from the least to the greatest value or mark; for changes, from -x to x."""
    from matplotlib.colors import Normalize

    values = view.values[np.isfinite(view.values)]
    if view.cmap != SEQUENTIAL:
        size = float(np.abs(values).max()) or 1.0
        return Normalize(-size, size)
    ends = np.array([values.min(), values.max(), *_marks(view).values()])
    low, high = float(ends.min()), float(ends.max())
    return Normalize(low, high) if high > low else Normalize(*value_limits(ends))


def _marks(view: View) -> dict[str, float]:
    return {name: value for name, value in view.marks.items() if np.isfinite(value)}


def _place(figure: Figure, view: View, norm: Normalize) -> tuple[Ticks, Place]:
    """The ticks of the vertical axis, and the place that their texts and the key leave."""
    height = figure.get_figheight() - TOP - BOTTOM
    labels = view.rows[1]
    limits = (-0.5, len(labels) - 0.5)
    rows = by_rank(labels, limits, upward(height, limits), max(2, int(height / LINE)))
    left = 0.32 + widest(figure, rows.names, TICK_SIZE)
    right = 0.24 + _key_width(figure, view, norm)
    return rows, stacked(figure, [1], Margins(left, right, TOP, BOTTOM))[0]


def _key_width(figure: Figure, view: View, norm: Normalize) -> float:
    texts_below = widest(figure, [text for _, text in _entries(view)], TICK_SIZE - 1) + 0.14
    return max(texts_below, BAR + 0.08 + widest(figure, _bar_ticks(norm).names, TICK_SIZE), 0.3)


def _bar_ticks(norm: Normalize) -> Ticks:
    return ticks_within(float(norm.vmin or 0), float(norm.vmax or 0), 5)


def _entries(view: View) -> list[tuple[str, str]]:
    """Symbols and texts below the bar of colors."""
    marked = [(SYMBOLS[name], f"{name} {value:.2g}") for name, value in _marks(view).items()]
    missing = [("▨", "no value")] if not np.isfinite(view.values).all() else []
    return marked + missing


def _draw_cells(axes: Axes, view: View, norm: Normalize) -> None:
    open_frame(axes)
    show_missing(axes)
    image = axes.imshow(
        view.values.T, cmap=view.cmap, norm=norm, aspect="auto", origin="lower", label="cells",
        interpolation_stage="data",  # a pixel of several cells has the color of their mean, which the key has too
    )  # fmt: skip
    image.set_rasterized(True)


def _draw_key(figure: Figure, place: Place, view: View, norm: Normalize) -> None:
    """Draw the bar of colors with its marks, and their texts below it."""
    entries, line = _entries(view), LINE / figure.get_figheight()
    left, bottom, _, height = beside(figure, place, 0.16, 1)
    lower = bottom + line * (len(entries) + 0.5) if entries else bottom
    upper = bottom + height - (line if view.unit else 0)
    bar = draw_bar(figure, (left, lower, BAR / figure.get_figwidth(), upper - lower), norm, view.cmap)
    ticks = _bar_ticks(norm)
    bar.set_ticks(ticks.ticks, labels=ticks.names)
    figure.text(left, upper + 0.3 * line, view.unit, fontsize=TICK_SIZE, color=INK, va="bottom")
    _draw_marks(bar.ax, _marks(view))
    for index, (symbol, text) in enumerate(entries):
        level = bottom + line * (len(entries) - index - 0.7)
        figure.text(left, level, symbol, fontsize=TICK_SIZE - 1, color=INK, va="center")
        figure.text(left + 0.14 / figure.get_figwidth(), level, text, fontsize=TICK_SIZE - 1, color=INK, va="center")


def _draw_marks(bar: Axes, marks: dict[str, float]) -> None:
    """A triangle on the left of the bar points at the permuted level; a line across the bar is the level of chance."""
    if "permuted" in marks:
        across_bar = bar.get_yaxis_transform()
        bar.plot(-0.4, marks["permuted"], ">", transform=across_bar, color=INK, markersize=4, clip_on=False)
    if "chance" in marks:
        bar.axhline(marks["chance"], color="white", linewidth=2.4)
        bar.axhline(marks["chance"], color=INK, linewidth=1)
