"""The von Neumann entropy of the landmark operator, and the diffusion time it led to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..embedding import Embedding
from ..params import InputError, InputTypeError, check_number
from .canvas import FAINT, INK, LABEL_SIZE, TITLE_SIZE, check_path, new_figure, open_frame, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVE, CHOSEN = "#31688e", "#c44e20"


def entropy(embedding_or_entropy: Any, t: int | None = None, *, path: str | os.PathLike[str] | None = None) -> Figure:
    """Draw the entropy against the diffusion time, with the chosen time marked.

    Parameters
    ----------
    embedding_or_entropy : an `Embedding` that holds its entropy, or the curve (t_max,) itself.
    t : the time to mark; None takes the embedding's own, and marks nothing where there is none.
    path : .png, .svg or .pdf to write, replacing one that is there.

    Returns
    -------
    matplotlib.figure.Figure, unknown to pyplot.

    Raises
    ------
    InputError, InputTypeError
        No entropy to draw, a curve that is not one axis of finite numbers, a bad ``t`` or ``path``.
    """
    path = check_path(path)
    values, own_t = _curve(embedding_or_entropy)
    t = own_t if t is None else int(check_number("t", t, low=0, integer=True))
    figure = new_figure((5.4, 3.6))
    axes = figure.add_axes((0.12, 0.15, 0.84, 0.70), label="entropy")
    open_frame(axes)
    axes.plot(np.arange(len(values)), values, color=CURVE, linewidth=1.8, solid_capstyle="round")
    axes.set_xlabel("Diffusion time $t$", fontsize=LABEL_SIZE, color=INK)
    axes.set_ylabel("Entropy (nats)", fontsize=LABEL_SIZE, color=INK)
    figure.text(0.12, 0.94, "von Neumann entropy", fontsize=TITLE_SIZE, color=INK, va="center")
    axes.locator_params(axis="x", integer=True)
    axes.margins(x=0.02, y=0.06)
    if t is not None:
        _mark(axes, values, t)
    save_figure(figure, path)
    return figure


def _curve(source: Any) -> tuple[np.ndarray, int | None]:
    if isinstance(source, Embedding):
        if source.entropy is None:
            raise InputError("embedding has no entropy; an embedding that holds its entropy, or a curve, is accepted")
        return source.entropy, source.t
    try:
        values = torch.as_tensor(source, device="cpu").detach().to(torch.float64).numpy()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputTypeError(f"entropy is a {type(source).__name__}; real numbers on one axis are accepted") from error
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise InputError(f"entropy has shape {values.shape}; one non-empty axis of finite numbers is accepted")
    return values, None


def _mark(axes: Axes, values: np.ndarray, t: int) -> None:
    """A line at ``t`` with its label above the frame, where no curve can run into it."""
    axes.axvline(t, color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
    text = f"$t$ = {t}"
    if t < len(values):
        axes.plot([t], [values[t]], "o", color=CHOSEN, markersize=6.5, markeredgecolor="white", zorder=3)
        text += f"   (entropy {values[t]:.2f})"
    align = "left" if t < 0.6 * len(values) else "right"
    shift = {"left": -3, "right": 3}[align]
    axes.annotate(
        text, (t, 1), (shift, 4), xycoords=axes.get_xaxis_transform(), textcoords="offset points",
        ha=align, va="bottom", color=CHOSEN, fontsize=LABEL_SIZE, annotation_clip=False,
    )  # fmt: skip
