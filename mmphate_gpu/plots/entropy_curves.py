"""Entropy against the epoch, with phases shaded and metrics beneath."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..analysis import Entropy, Phases
from ..analysis.entropy import DEVIATIONS
from ..analysis.means import mean_of_finite
from ..errors import InputError, InputTypeError, check_choice
from ..runtime.arrays import real_tensor
from .axis import LINE, Ticks, along_epochs, set_across, set_upward, value_ticks
from .canvas import INK, LABEL_SIZE, TICK_SIZE, check_path, new_figure, open_frame, plain_style, save_figure
from .colors import Coloring, categorical, ordered
from .keys import draw_key
from .layout import Margins, Place, beside, check_figsize, fitted_names, stacked, text_width, title_above, widest
from .names import entropy_title, entropy_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT, METRIC_HEIGHT = 6.4, 2.5, 0.8  # inches of the figure, of the curves and of a metric
MOST_LINES = 200  # more thin lines are a solid area
STRIP = 0.16  # inches of the strip that names the phases
KEYS = {"timestep": "Time step", "unit": "Unit"}
# Safe for readers who cannot tell red from green.
PHASE_COLORS = {"growth": "#0072b2", "compression": "#e69f00", "plateau": "#8a8a8a"}
MEAN, METRIC = "#262626", "#31688e"
EDGE = 0.12  # inches between the notes and the edges of the figure
Note = tuple[str, str]  # color and text


@dataclass(frozen=True, eq=False)
class Curves:
    """What is drawn above: thin lines, their mean, and its band."""

    epoch: np.ndarray  # (E,)
    mean: np.ndarray  # (E,)
    band: np.ndarray | None  # (2, E)
    lines: np.ndarray  # (E, n), with n = 0 if only the mean is drawn
    coloring: Coloring | None  # of the lines
    key: str


@plain_style()
def entropy_curves(
    entropy: Entropy,
    *,
    phases: Phases | None = None,
    metrics: Mapping[str, Any] | None = None,
    by: str | None = "auto",
    path: str | os.PathLike[str] | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """Draw an entropy against the epoch: a thin line for every time step or unit, their mean, and its interval.

    The interval is that of the mean, from the replicates of the entropy. Phases are shaded; a key names each phase with
    its slope and the interval of the slope. Each metric has a panel beneath, with the same epochs. Rising numbers and
    dates lie at their values, and other labels of epochs at equal distances. Of more than 200 lines, 200 are drawn,
    evenly spaced along their axis.

    Parameters
    ----------
    entropy : Entropy
        An entropy that has an epoch axis: over units, or over time steps.
    phases : Phases, optional
        The phases of a curve with the same epochs.
    metrics : mapping of names to (E,) real arrays, optional
        Curves to draw beneath, such as ``trace.metrics``. NaN leaves a gap.
    by : "auto", "timestep", "unit" or None
        The axis with a line for each of its labels; "auto" is the axis that the entropy has beside the epochs. None
        draws the mean only.
    path : str or path, optional
        A .png, .svg or .pdf file to write. An existing file is replaced.
    figsize : (width, height), optional
        In inches; None fits the number of metrics and of phases.

    Returns
    -------
    matplotlib.figure.Figure, unknown to pyplot
        The axes are labeled "entropy", "phases", "key" and with the names of the metrics.

    Raises
    ------
    InputError, InputTypeError
        Something other than an `Entropy`, one without epochs or without a finite value, phases or metrics of other
        lengths, or a bad ``by``, ``path`` or ``figsize``.
    """
    path = check_path(path)
    curves = _curves(entropy, by)
    series = _metrics(metrics, len(curves.epoch))
    notes = [(MEAN, _mean_note(curves)), *_phase_notes(phases, len(curves.epoch))]
    figure = new_figure(_figsize(figsize, len(series), notes))
    levels = value_ticks(np.concatenate([_flat(part) for part in (curves.mean, curves.band, curves.lines)]))
    scales = {name: value_ticks(values, 2) for name, values in series.items()}
    margins = _margins(figure, curves, [levels, *scales.values()], notes)
    places = stacked(figure, [HEIGHT, *[METRIC_HEIGHT] * len(series)], margins)
    epochs = along_epochs(figure, curves.epoch, places[0][2] * figure.get_figwidth())
    panels = [_panel(figure, place, name) for place, name in zip(places, ["entropy", *series], strict=True)]
    _draw_curves(panels[0], curves, epochs)
    for axes, (name, values) in zip(panels[1:], series.items(), strict=True):
        _draw_metric(axes, epochs, values, name)
    for axes, ticks in zip(panels, [levels, *scales.values()], strict=True):
        set_upward(axes, ticks, entropy_unit(entropy.base) if axes is panels[0] else "")
        set_across(axes, epochs, "Epoch" if axes is panels[-1] else None)
    if phases is not None:
        _draw_phases(figure, panels, epochs, phases)
    _write_notes(figure, notes)
    if curves.coloring is not None:
        _draw_lines_key(figure, beside(figure, places[0], 0.12, _key_width(figure, curves)), curves)
    title_above(figure, places[0], entropy_title(entropy), STRIP + 0.06 if phases is not None else 0.08)
    save_figure(figure, path)
    return figure


def _flat(part: np.ndarray | None) -> np.ndarray:
    return np.zeros(0) if part is None else part.ravel()


# ---------------------------------------------------------------- what is drawn


def _curves(entropy: Any, by: str | None) -> Curves:
    if not isinstance(entropy, Entropy):
        raise InputTypeError(f"entropy is a {type(entropy).__name__}; accepted: an Entropy")
    if "epoch" not in entropy.dims:
        axes = ", ".join(entropy.dims) or "no axis"
        raise InputError(f"entropy has {axes}; accepted: an entropy with an epoch axis, as over units or time steps")
    if not np.isfinite(entropy.values).any():
        raise InputError("entropy has NaN everywhere; accepted: at least one finite value")
    other = next((name for name in entropy.dims if name != "epoch"), None)
    if by is not None:
        check_choice("by", by, ("auto",) if other is None else ("auto", other))
    values = _epochs_first(entropy, entropy.values)
    mean = mean_of_finite(values, 1)
    curves = Curves(np.asarray(entropy.coords["epoch"]), mean, _band(entropy, mean), values[:, :0], None, "")
    if by is None or other is None or values.shape[1] == 1:
        return curves
    return _with_lines(curves, values, np.asarray(entropy.coords[other]), other)


def _band(entropy: Entropy, mean: np.ndarray) -> np.ndarray | None:  # (2, E)
    """The interval of the mean over the other axis, from the replicates of this mean."""
    if entropy.replicates is None:
        return None
    means = np.stack([mean_of_finite(_epochs_first(entropy, values), 1) for values in entropy.replicates])
    reach = DEVIATIONS * np.sqrt(np.mean((means - mean) ** 2, axis=0))
    return np.stack([mean - reach, mean + reach])


def _with_lines(curves: Curves, values: np.ndarray, labels: np.ndarray, name: str) -> Curves:
    shown = np.unique(np.linspace(0, len(labels) - 1, MOST_LINES).astype(int))
    ranked = name == "timestep"
    coloring = ordered(shown, labels, "plasma", 0.0, 0.9) if ranked else categorical(shown, labels)
    return replace(curves, lines=values[:, shown], coloring=coloring, key=KEYS.get(name, name))


def _epochs_first(entropy: Entropy, values: np.ndarray) -> np.ndarray:  # (E, n)
    moved = np.moveaxis(np.asarray(values, dtype=float), entropy.dims.index("epoch"), 0)
    return moved.reshape(len(moved), -1)


def _metrics(metrics: Any, n_epochs: int) -> dict[str, np.ndarray]:
    if metrics is None:
        return {}
    if not isinstance(metrics, Mapping):
        raise InputTypeError(f"metrics is a {type(metrics).__name__}; accepted: a mapping of names to (E,) arrays")
    series = {
        name: real_tensor(f"metrics[{name!r}]", values).double().cpu().numpy() for name, values in metrics.items()
    }
    for name, values in series.items():
        if values.shape != (n_epochs,):
            raise InputError(f"metrics[{name!r}] has shape {values.shape}; accepted: ({n_epochs},), one value an epoch")
    return {str(name): values for name, values in series.items()}


def _mean_note(curves: Curves) -> str:
    return "mean" if curves.band is None else "mean, with its interval"


def _phase_notes(phases: Any, n_epochs: int) -> list[Note]:
    """A line for every phase: its number, name, slope and interval."""
    if phases is None:
        return []
    if not isinstance(phases, Phases):
        raise InputTypeError(f"phases is a {type(phases).__name__}; accepted: Phases")
    if len(phases.epoch) != n_epochs:
        raise InputError(f"phases has {len(phases.epoch)} epochs; accepted: {n_epochs}, those of the entropy")
    bounds = zip(phases.trend, phases.slope, phases.low, phases.high, strict=True)
    per = phases.settings["per"]
    return [
        (PHASE_COLORS[str(name)], f"{number} {name} {slope:+.2g} per {per} [{low:+.2g}, {high:+.2g}]")
        for number, (name, slope, low, high) in enumerate(bounds, 1)
    ]


# ---------------------------------------------------------------- where it is drawn


def _figsize(figsize: Any, n_metrics: int, notes: list[Note]) -> tuple[float, float]:
    around = 1.1 + LINE * len(notes)
    if figsize is None:
        return WIDTH, HEIGHT + around + (METRIC_HEIGHT + 0.28) * n_metrics
    return check_figsize(figsize, (2.5, around + 0.9 + 0.6 * n_metrics))


def _margins(figure: Figure, curves: Curves, scales: list[Ticks], notes: list[Note]) -> Margins:
    left = 0.32 + max(widest(figure, scale.names, TICK_SIZE) for scale in scales)
    right = 0.12 if curves.coloring is None else 0.2 + _key_width(figure, curves)
    strip = STRIP if len(notes) > 1 else 0
    return Margins(left, right, 0.36 + strip, 0.5 + LINE * len(_note_rows(figure, notes)), 0.28)


def _key_width(figure: Figure, curves: Curves) -> float:
    assert curves.coloring is not None
    return max(0.3 + widest(figure, curves.coloring.names, TICK_SIZE), text_width(figure, curves.key, TICK_SIZE))


def _note_rows(figure: Figure, notes: list[Note]) -> list[list[Note]]:
    """The notes in rows of as many as have room beside one another."""
    wide = widest(figure, [text for _, text in notes], TICK_SIZE - 1) + 0.3
    columns = max(1, int((figure.get_figwidth() - EDGE) / wide))
    return [notes[start : start + columns] for start in range(0, len(notes), columns)]


def _panel(figure: Figure, place: Place, name: str) -> Axes:
    axes = figure.add_axes(place, label=name)
    open_frame(axes)
    return axes


# ---------------------------------------------------------------- drawing


def _draw_curves(axes: Axes, curves: Curves, epochs: Ticks) -> None:
    known = np.isfinite(curves.mean)
    alone = known.sum() == 1  # lines and bands need two epochs
    if curves.band is not None and alone:
        ends = curves.band[:, known]
        axes.vlines(epochs.places[known], *ends, color=MEAN, alpha=0.3, linewidth=6, label="interval", zorder=2)
    elif curves.band is not None:
        axes.fill_between(epochs.places, *curves.band, color=MEAN, alpha=0.16, linewidth=0, label="interval", zorder=2)
    if curves.coloring is not None:
        _draw_lines(axes, curves, epochs.places)
        if alone:
            _draw_dots(axes, curves, epochs.places, known)
    style: dict[str, Any] = {"linewidth": 1.8, "marker": "o" if alone else "", "markersize": 4}
    axes.plot(epochs.places, curves.mean, color=MEAN, label="mean", zorder=3, **style)


def _draw_lines(axes: Axes, curves: Curves, places: np.ndarray) -> None:
    from matplotlib.collections import LineCollection

    segments = [np.column_stack([places, line]) for line in curves.lines.T]
    style: dict[str, Any] = {"colors": _line_colors(curves), "linewidths": 0.8, "alpha": 0.75, "zorder": 1}
    axes.add_collection(LineCollection(segments, label="lines", **style))


def _draw_dots(axes: Axes, curves: Curves, places: np.ndarray, known: np.ndarray) -> None:
    """Draw the values of the lines at the only epoch that has any."""
    across = np.repeat(places[known], curves.lines.shape[1])
    axes.scatter(across, curves.lines[known][0], s=12, c=_line_colors(curves), label="dots", zorder=1)


def _line_colors(curves: Curves) -> np.ndarray:  # (n, 4)
    assert curves.coloring is not None
    return np.asarray(curves.coloring.cmap(curves.coloring.norm(curves.coloring.values)))


def _draw_metric(axes: Any, epochs: Ticks, values: np.ndarray, name: str) -> None:
    marker = "" if np.isfinite(values).all() and len(values) > 1 else "."
    axes.plot(epochs.places, values, color=METRIC, linewidth=1.3, marker=marker, markersize=3.5, zorder=3)
    note, figure = "" if np.isfinite(values).any() else " (no value)", axes.figure
    room = (1 - axes.get_position().x0) * figure.get_figwidth() - 0.08 - text_width(figure, note, LABEL_SIZE)
    (title,), size = fitted_names(figure, np.array([name], dtype=object), 36, LABEL_SIZE, room)
    axes.set_title(title + note, loc="left", fontsize=size, color=INK, pad=3)


def _draw_phases(figure: Figure, panels: list[Axes], epochs: Ticks, phases: Phases) -> None:
    """Shade the panels, draw the fitted lines, and name the phases in a strip above."""
    edges = _edges(epochs, phases)
    left, bottom, width, height = panels[0].get_position().bounds
    total = figure.get_figheight()
    strip = figure.add_axes((left, bottom + height, width, STRIP / total), label="phases")
    strip.set_axis_off()
    strip.set(xlim=epochs.limits, ylim=(0, 1))
    for index, name in enumerate(phases.trend):
        start, stop = edges[index : index + 2]
        color = PHASE_COLORS[str(name)]
        for axes in panels:
            axes.axvspan(start, stop, color=color, alpha=0.12, linewidth=0, zorder=0)
        strip.axvspan(start, stop, facecolor=color, alpha=0.45, edgecolor="white", linewidth=1.5)
        _name_phase(strip, (start, stop), f"{index + 1}", str(name))
        part = slice(phases.start_index[index], phases.stop_index[index] + 1)
        panels[0].plot(epochs.places[part], phases.fitted[part], color=color, linewidth=1.2, linestyle="--", zorder=4)


def _edges(epochs: Ticks, phases: Phases) -> np.ndarray:  # (n + 1,)
    """Phases meet in the middle between the last epoch of the earlier and the first epoch of the later."""
    first, last = epochs.places[phases.start_index], epochs.places[phases.stop_index]
    return np.concatenate([epochs.limits[:1], (last[:-1] + first[1:]) / 2, epochs.limits[1:]])


def _name_phase(strip: Axes, span: tuple[float, float], number: str, name: str) -> None:
    """Write number and name into the strip, or only what has room."""
    text = strip.text(sum(span) / 2, 0.45, "", fontsize=TICK_SIZE - 1, color=INK, ha="center", va="center")
    left, right = (strip.transData.transform((edge, 0))[0] for edge in span)
    for shown in (f"{number} {name}", number, ""):
        text.set_text(shown)
        if not shown or text.get_window_extent().width <= right - left - 2:
            return


def _write_notes(figure: Figure, notes: list[Note]) -> None:
    """Write the key of the mean and of the phases at the bottom of the figure."""
    width, height = figure.get_size_inches()
    rows = _note_rows(figure, notes)
    step = (width - EDGE) / len(rows[0])
    for index, (color, text) in enumerate(notes):
        row, column = divmod(index, len(rows[0]))
        left, level = EDGE + column * step, (0.06 + LINE * (len(rows) - row - 0.5)) / height
        figure.text(left / width, level, "■", fontsize=TICK_SIZE - 1, color=color, va="center")
        figure.text((left + 0.13) / width, level, text, fontsize=TICK_SIZE - 1, color=INK, va="center")


def _draw_lines_key(figure: Figure, place: Place, curves: Curves) -> None:
    assert curves.coloring is not None
    draw_key(figure, place, curves.coloring)
    level = place[1] + place[3] + 0.02 / figure.get_figheight()
    figure.text(place[0], level, curves.key, fontsize=TICK_SIZE, color=INK, va="bottom")
