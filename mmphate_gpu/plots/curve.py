"""A picture of the von Neumann entropy of the landmark operator, with the diffusion time marked."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ..embedding import Embedding
from ..errors import InputError, check_number
from ..runtime.arrays import real_tensor
from .canvas import FAINT, INK, LABEL_SIZE, TITLE_SIZE, check_path, new_figure, open_frame, plain_style, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVE, CHOSEN = "#31688e", "#c44e20"
LEFT = 0.15  # room for numbers of eight digits
FLAT = 1e-6  # differences below this share of the largest value cannot be read from the axis


@plain_style()
def entropy(embedding_or_entropy: Any, t: int | None = None, *, path: str | os.PathLike[str] | None = None) -> Figure:
    """Draw the entropy against the diffusion time, with the chosen time marked.

    Parameters
    ----------
    embedding_or_entropy : `Embedding` with an entropy, or (t_max,) array
        The curve, in nats.
    t : int, optional
        The time to mark; None marks the time of the embedding, if it has one.
    path : str or path, optional
        A .png, .svg or .pdf file to write. An existing file is replaced.

    Returns
    -------
    matplotlib.figure.Figure, unknown to pyplot.

    Raises
    ------
    InputError, InputTypeError
        An embedding without entropy, a curve that is not one axis of finite numbers, a bad ``t`` or ``path``.
    """
    path = check_path(path)
    values, chosen = _curve(embedding_or_entropy)
    t = chosen if t is None else int(check_number("t", t, low=0, integer=True))
    figure = new_figure((5.4, 3.6))
    axes = figure.add_axes((LEFT, 0.15, 0.96 - LEFT, 0.70), label="entropy")
    open_frame(axes)
    axes.plot(np.arange(len(values)), values, color=CURVE, linewidth=1.8, solid_capstyle="round")
    axes.set_xlabel("Diffusion time $t$", fontsize=LABEL_SIZE, color=INK, parse_math=True)
    axes.set_ylabel("Entropy (nats)", fontsize=LABEL_SIZE, color=INK)
    figure.text(LEFT, 0.94, "von Neumann entropy", fontsize=TITLE_SIZE, color=INK, va="center")
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    axes.ticklabel_format(axis="y", useOffset=False)
    last = max(1, len(values) - 1, t or 0)
    axes.set_xlim(-0.02 * last, 1.02 * last)
    axes.margins(y=0.06)
    _level(axes, values)
    if t is not None:
        _mark(axes, values, t)
    save_figure(figure, path)
    return figure


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
    align = "left" if t <= 0.6 * axes.get_xlim()[1] else "right"
    shift = {"left": -3, "right": 3}[align]
    axes.annotate(
        text, (t, 1), (shift, 4), xycoords=axes.get_xaxis_transform(), textcoords="offset points",
        ha=align, va="bottom", color=CHOSEN, fontsize=LABEL_SIZE, annotation_clip=False, parse_math=True,
    )  # fmt: skip
