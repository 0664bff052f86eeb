"""A picture of the von Neumann entropy of the landmark operator, with the diffusion time marked."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ..embedding import Embedding
from ..errors import InputError, check_number
from ..runtime.arrays import real_tensor
from .canvas import FAINT, INK, LABEL_SIZE, check_path, new_figure, open_frame, plain_style, save_figure
from .layout import check_figsize, title_above

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVE, CHOSEN = "#31688e", "#c44e20"
LEFT, RIGHT = 0.81, 0.22  # inches; on the left numbers of eight digits have room
FLAT = 1e-6  # differences below this share of the largest value cannot be read from the axis


@plain_style()
def entropy(
    embedding_or_entropy: Any,
    t: int | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """Draw the entropy against the diffusion time, with the chosen time marked.

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
    values, chosen = _curve(embedding_or_entropy)
    t = chosen if t is None else int(check_number("t", t, low=0, integer=True))
    figure = new_figure((5.4, 3.6) if figsize is None else check_figsize(figsize, (2.5, 1.5)))
    width, height = figure.get_size_inches()
    around = 0.54 / height, 0.5 / height
    place = LEFT / width, around[0], 1 - (LEFT + RIGHT) / width, 1 - sum(around)
    draw_entropy(figure.add_axes(place, label="entropy"), values, t)
    title_above(figure, place, "von Neumann entropy", 0.22)
    save_figure(figure, path)
    return figure


def draw_entropy(axes: Axes, values: np.ndarray, t: int | None) -> None:
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
        _mark(axes, values, t)


def _curve(source: Any) -> tuple[np.ndarray, int | None]:
    if isinstance(source, Embedding):
        if source.entropy is None:
            raise InputError("embedding has no entropy; accepted: an embedding with an entropy, or a curve")
        return _checked(source.entropy), source.t
    return _checked(real_tensor("entropy", source).double().cpu().numpy()), None


def _checked(values: np.ndarray) -> np.ndarray:
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise InputError(f"entropy has shape {values.shape}; accepted: one non-empty axis of finite numbers")
    return values


def _level(axes: Axes, values: np.ndarray) -> None:
    """Set the limits of the axis so that a curve that changes only by rounding is drawn as a level line."""
    size = max(1.0, float(np.abs(values).max()))
    if np.ptp(values) < FLAT * size:
        axes.set_ylim(values[0] - 0.5 * size, values[0] + 0.5 * size)


def _mark(axes: Axes, values: np.ndarray, t: int) -> None:
    """Draw a line at ``t``, with its label above the frame, where the curve cannot cross it."""
    axes.axvline(t, color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
    text = f"$t$ = {t}"
    if t < len(values):
        axes.plot([t], [values[t]], "o", color=CHOSEN, markersize=6.5, markeredgecolor="white", zorder=3)
        text += f"   (entropy {values[t]:.2f})"
    label = axes.annotate(
        text, (t, 1), (-3, 4), xycoords=axes.get_xaxis_transform(), textcoords="offset points", va="bottom",
        color=CHOSEN, fontsize=LABEL_SIZE, annotation_clip=False, parse_math=True,
    )  # fmt: skip
    if label.get_window_extent().x1 > axes.bbox.x1:
        label.set(ha="right", x=3)
    if label.get_window_extent().x0 < axes.bbox.x0:  # only the time has room
        label.set_text(f"$t$ = {t}")
