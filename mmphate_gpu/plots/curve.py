"""A picture of the von Neumann entropy of the landmark operator, with the diffusion time marked."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ..embedding import Embedding, time_text
from ..errors import InputError, check_number
from ..runtime.arrays import real_tensor
from .canvas import FAINT, INK, LABEL_SIZE, check_path, new_figure, open_frame, plain_style, save_figure
from .layout import check_figsize, title_above

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVE, CHOSEN = "#31688e", "#c44e20"
LEFT, RIGHT = 0.81, 0.22  # inches; on the left numbers of eight digits have room
TimeRange = tuple[int, int] | None
FLAT = 1e-6  # differences below this share of the largest value cannot be read from the axis


@plain_style()
def entropy(
    embedding_or_entropy: Any,
    t: int | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """Draw the entropy against the diffusion time, with the chosen time and its error bar.

    The band is the range of times that other landmarks of the same nodes could give (``t_range``). A time that was not
    chosen by the entropy has no band.

    Parameters
    ----------
    embedding_or_entropy : `Embedding` with an entropy, or (t_max,) array
        The curve, in nats.
    t : int, optional
        The time to mark; None marks the time of the embedding, if it has one.
    path : str or path, optional
        A .png, .svg or .pdf file to write. An existing file is replaced.
    figsize : (width, height), optional
        In inches; None is 5.4 x 3.6.

    Returns
    -------
    matplotlib.figure.Figure, unknown to pyplot.

    Raises
    ------
    InputError, InputTypeError
        An embedding without entropy, a curve that is not one axis of finite numbers, a bad ``t``, ``path`` or
        ``figsize``.
    """
    path = check_path(path)
    values, chosen, t_range = _curve(embedding_or_entropy)
    if t is not None:
        chosen, t_range = int(check_number("t", t, low=0, integer=True)), None
    figure = new_figure((5.4, 3.6) if figsize is None else check_figsize(figsize, (2.5, 1.5)))
    width, height = figure.get_size_inches()
    around = 0.54 / height, 0.5 / height
    place = LEFT / width, around[0], 1 - (LEFT + RIGHT) / width, 1 - sum(around)
    draw_entropy(figure.add_axes(place, label="entropy"), values, chosen, t_range)
    title_above(figure, place, "von Neumann entropy", 0.22)
    save_figure(figure, path)
    return figure


def draw_entropy(axes: Axes, values: np.ndarray, t: int | None, t_range: TimeRange = None) -> None:
    """Draw the curve of ``values`` with its axes. The label of ``t`` needs 0.2 inches above the frame."""
    open_frame(axes)
    axes.plot(np.arange(len(values)), values, color=CURVE, linewidth=1.8, solid_capstyle="round")
    axes.set_xlabel("Diffusion time $t$", fontsize=LABEL_SIZE, color=INK, labelpad=2, parse_math=True)
    axes.set_ylabel("Entropy (nats)", fontsize=LABEL_SIZE, color=INK)
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    axes.ticklabel_format(axis="y", useOffset=False)
    last = max(1, len(values) - 1, t or 0)
    axes.set_xlim(-0.02 * last, 1.02 * last)
    axes.margins(y=0.06)
    _level(axes, values)
    if t is not None:
        _mark(axes, values, t, t_range)


def _curve(source: Any) -> tuple[np.ndarray, int | None, TimeRange]:
    if isinstance(source, Embedding):
        if source.entropy is None:
            raise InputError("embedding has no entropy; accepted: an embedding with an entropy, or a curve")
        return _checked(source.entropy), source.t, source.t_range
    return _checked(real_tensor("entropy", source).double().cpu().numpy()), None, None


def _checked(values: np.ndarray) -> np.ndarray:
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise InputError(f"entropy has shape {values.shape}; accepted: one non-empty axis of finite numbers")
    return values


def _level(axes: Axes, values: np.ndarray) -> None:
    """Set the limits of the axis so that a curve that changes only by rounding is drawn as a level line."""
    size = max(1.0, float(np.abs(values).max()))
    if np.ptp(values) < FLAT * size:
        axes.set_ylim(values[0] - 0.5 * size, values[0] + 0.5 * size)


def _mark(axes: Axes, values: np.ndarray, t: int, t_range: TimeRange) -> None:
    """Draw a line at ``t``, a band over ``t_range``, and a label above the frame, where the curve cannot cross it."""
    axes.axvline(t, color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
    texts = [f"$t$ = {t:,}"]
    if t_range is not None:
        axes.axvspan(*t_range, color=CHOSEN, alpha=0.13, linewidth=0, zorder=-1)
        texts = [f"$t$ = {time_text(t, t_range)}", *texts]
    if t < len(values):
        axes.plot([t], [values[t]], "o", color=CHOSEN, markersize=6.5, markeredgecolor="white", zorder=3)
        texts = [f"{texts[0]}   (entropy {values[t]:.2f})", *texts]
    _write_above(axes, texts, t)


def _write_above(axes: Axes, texts: list[str], t: int) -> None:
    """Write the first of ``texts`` that has room above the frame, beside the line at ``t``; else the last."""
    label = axes.annotate(
        "", (t, 1), (-3, 4), xycoords=axes.get_xaxis_transform(), textcoords="offset points", va="bottom",
        color=CHOSEN, fontsize=LABEL_SIZE, annotation_clip=False, parse_math=True,
    )  # fmt: skip
    for text in texts:
        for side, x in (("left", -3), ("right", 3)):
            label.set(text=text, ha=side, x=x)
            box = label.get_window_extent()
            if box.x1 <= axes.bbox.x1 if side == "left" else axes.bbox.x0 <= box.x0:
                return
