"""The singular values of the landmark operator, and what the diffusion time leaves of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..diffusion.entropy import entropy_of_components, leading_singular_values
from ..errors import InputTypeError
from ..landmarks import Landmarks
from ..landmarks.operator import symmetric_form
from ..linalg.components import Components, components
from ..runtime.arrays import real_tensor
from .axis import LINE, Ticks, set_across, set_upward
from .canvas import INK, TICK_SIZE, check_path, new_figure, open_frame, plain_style, save_figure
from .curve import CHOSEN, CURVE, LEFT, TimeRange, draw_entropy
from .layout import Margins, cells, check_figsize, check_room, columns_for, fitted_size, title_above

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, CELL = 6.4, 2.3  # inches of the figure, and the least of a panel with its margins
HEIGHT, LEAST = 2.0, 0.6  # inches of the height of a panel
AROUND = Margins(LEFT, 0.14, 0.52, 0.44)  # a panel
EDGE = 0.1  # inches beside and below the notes
FLOOR = 1e-6  # the share of the largest value below which none is drawn; smaller ones may be rounding
NEAR = 0.9  # the share of the largest value from which values count as near it
Note = tuple[str, str]  # color and text


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Singular values or eigenvalues of a landmark operator, and the entropy of their powers."""

    name: str  # of the values
    values: np.ndarray  # (n,), as shares of the largest, which is first
    n_landmark: int
    n_islands: int
    entropy: np.ndarray  # (t_max,)
    t: int
    t_range: TimeRange

    @property
    def n_near(self) -> int:
        return int((self.values >= NEAR).sum())

    @property
    def is_whole(self) -> bool:
        return len(self.values) == self.n_landmark


@plain_style()
def spectrum(
    estimator_or_landmarks: Any,
    *,
    path: str | os.PathLike[str] | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """Draw the singular values of the landmark operator, their powers at the diffusion time, and the entropy.

    On the left are the singular values s (step 9 of docs/method.md), as shares of the largest, and s^(t + 1), whose
    entropy is that at the time t. On the right is the entropy for every time. The dotted lines mark exp(H): so
    many equal values would have the same entropy H. The notes count the islands, which are the connected components of
    the operator, and the values above 0.9 of the largest. If these are more than the islands, some parts of the graph
    are nearly separate. An estimator with ``t="eigenvalues"`` has its eigenvalues drawn in their place.

    Parameters
    ----------
    estimator_or_landmarks : fitted MMPHATE, or Landmarks
        The t of `Landmarks` is the knee of their entropy.
    path : str or path, optional
        A .png, .svg or .pdf file to write. An existing file is replaced.
    figsize : (width, height), optional
        In inches; None is 6.4 wide. In less than 4.6 inches of width the panels lie above one another.

    Returns
    -------
    matplotlib.figure.Figure, unknown to pyplot
        The axes are labeled "values" and "entropy".

    Raises
    ------
    InputError, InputTypeError
        Something other than an estimator or landmarks, or a bad ``path`` or ``figsize``.
    NotFittedError
        The estimator is not fitted.

    Notes
    -----
    O(L^3) time for L landmarks, as for the entropy. Of an island with more than 8000 landmarks (on CUDA 1500), at most
    200 leading values are drawn, and a note says so.
    """
    path = check_path(path)
    shown = _spectrum(estimator_or_landmarks)
    notes = _notes(shown)
    figure, columns = _page(figsize, len(notes))
    places = cells(figure, 2, columns, AROUND, Margins(0, 0, 0, EDGE + LINE * len(notes)))
    titles = {"values": shown.name.capitalize(), "entropy": "von Neumann entropy"}
    for place, (name, title) in zip(places, titles.items(), strict=True):
        axes = figure.add_axes(place, label=name)
        if name == "values":
            _draw_values(axes, shown)
        else:
            draw_entropy(axes, shown.entropy, shown.t, shown.t_range)
        title_above(figure, place, title, 0.22)
    _write_notes(figure, notes)
    save_figure(figure, path)
    return figure


# ---------------------------------------------------------------- what is drawn


def _spectrum(source: Any) -> Spectrum:
    if isinstance(source, Landmarks):
        groups = components(source.landmark_op) if source.groups is None else source.groups
        estimate = entropy_of_components(source.landmark_op, groups, 100)
        t_range = estimate.t_low, estimate.t_high
        return _of_operator(source.landmark_op, groups, estimate.entropy, estimate.t, t_range)
    from ..estimator import MMPHATE  # it loads scikit-learn, which no other picture needs

    if isinstance(source, MMPHATE):
        operator = real_tensor("landmark_op_", source.landmark_op_)
        entropy = real_tensor("von_neumann_entropy_", source.von_neumann_entropy_)
        groups, name = components(operator), "singular values"
        if source.t == "eigenvalues":
            degrees = real_tensor("landmark_degrees_", source.landmark_degrees_)
            operator, name = symmetric_form(operator, degrees), "eigenvalues"
        return _of_operator(operator, groups, entropy, source.t_, source.t_range_, name)
    accepted = "a fitted MMPHATE or Landmarks"
    raise InputTypeError(f"estimator_or_landmarks is a {type(source).__name__}; accepted: {accepted}")


def _of_operator(
    operator: torch.Tensor,
    groups: Components,
    entropy: torch.Tensor,
    t: int,
    t_range: TimeRange,
    name: str = "singular values",
) -> Spectrum:
    values = leading_singular_values(operator, groups).cpu().numpy()
    n_islands = sum(len(members) for members in groups)
    return Spectrum(name, values / values[0], len(operator), n_islands, entropy.double().cpu().numpy(), t, t_range)


def _notes(shown: Spectrum) -> list[Note]:
    counts = f"{shown.n_landmark:,} landmarks, {_counted(shown.n_islands, 'island')}"
    notes = [(CURVE, shown.name + _equal_values(shown, 0))]
    notes += [(CHOSEN, f"their powers t + 1 = {shown.t + 1:,}" + _equal_values(shown, shown.t))]
    notes += [(INK, f"{counts}, {_counted(shown.n_near, 'value')} above {NEAR} of the largest")]
    if not shown.is_whole:
        notes.append((INK, f"the {len(shown.values):,} leading values: large islands are sampled"))
    return notes


def _counted(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'s' * (n > 1)}"


def _equal_values(shown: Spectrum, t: int) -> str:
    """What the dotted line at the entropy of ``t`` means, if the curve of the entropy reaches t."""
    return f" (dotted: exp(H) = {np.exp(shown.entropy[t]):,.1f})" if t < len(shown.entropy) else ""


# ---------------------------------------------------------------- drawing


def _page(figsize: Any, n_notes: int) -> tuple[Figure, int]:
    """A figure, and the number of columns of panels."""
    size = None if figsize is None else check_figsize(figsize, (2.5, 2.0))
    width = WIDTH if size is None else size[0]
    columns = columns_for(width, CELL, 2)
    rows, frame, notes = 2 // columns, AROUND.top + AROUND.bottom, EDGE + LINE * n_notes
    height = rows * (HEIGHT + frame) + notes if size is None else size[1]
    check_room(size, height, rows * (LEAST + frame) + notes)
    return new_figure((width, height)), columns


def _draw_values(axes: Axes, shown: Spectrum) -> None:
    open_frame(axes)
    axes.set(xscale="log", yscale="log")
    axes.minorticks_off()
    number = np.arange(1, len(shown.values) + 1)
    marker = "o" if len(number) <= 60 else ""
    for values, color in ((shown.values, CURVE), (shown.values ** (shown.t + 1), CHOSEN)):
        axes.plot(number, np.maximum(values, 0.1 * FLOOR), color=color, linewidth=1.4, marker=marker, markersize=2.5)
    for time, color in ((0, CURVE), (shown.t, CHOSEN)):
        if time < len(shown.entropy):
            axes.axvline(np.exp(shown.entropy[time]), color=color, linewidth=0.9, linestyle=":", zorder=0)
    last = len(number)
    powers = 10 ** np.arange(int(np.log10(last)) + 1)
    across = np.array([*powers[powers <= last / 2], last])
    set_across(axes, Ticks(across, (0.9, 1.1 * last), across, [f"{n:,}" for n in across]), "Number")
    upward = 10.0 ** np.arange(-6, 1, 2)
    set_upward(axes, Ticks(upward, (FLOOR, 2.0), upward, [f"{share:g}" for share in upward]), "Share of the largest")


def _write_notes(figure: Figure, notes: list[Note]) -> None:
    """Write the notes at the bottom, a line each, with a square of the color of their curve."""
    width, height = figure.get_size_inches()
    room = width - 2 * EDGE - 0.13
    size = fitted_size(figure, [text for _, text in notes], TICK_SIZE - 1, room)
    for index, (color, text) in enumerate(notes):
        level = (0.06 + LINE * (len(notes) - index - 0.5)) / height
        square = "■" if color != INK else ""
        figure.text(EDGE / width, level, square, fontsize=TICK_SIZE - 1, color=color, va="center")
        figure.text((EDGE + 0.13) / width, level, text, fontsize=size, color=INK, va="center")
