"""Panels above one another, with margins in inches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import InputError, InputTypeError, check_number
from .canvas import INK, TITLE_SIZE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Place = tuple[float, float, float, float]  # left, bottom, width, height, in fractions of the figure


class Margins(NamedTuple):
    """Inches around the panels, and between them."""

    left: float
    right: float
    top: float
    bottom: float
    gap: float = 0.0


def check_figsize(figsize: Any, least: tuple[float, float]) -> tuple[float, float]:
    """``figsize`` as two numbers of inches; raises `InputError` below ``least``, which has room for the texts."""
    if isinstance(figsize, str) or not hasattr(figsize, "__len__"):
        raise InputTypeError(f"figsize={figsize!r} is a {type(figsize).__name__}; accepted: (width, height) in inches")
    if len(figsize) != 2:
        raise InputError(f"figsize={figsize!r} has {len(figsize)} numbers; accepted: (width, height) in inches")
    sides = enumerate(zip(figsize, least, strict=True))
    width, height = (check_number(f"figsize[{side}]", size, low=low) for side, (size, low) in sides)
    return width, height


def stacked(figure: Figure, shares: Sequence[float], margins: Margins) -> list[Place]:
    """Places of panels above one another, the highest first, with heights in proportion to ``shares``."""
    width, height = figure.get_size_inches()
    inside = height - margins.top - margins.bottom - margins.gap * (len(shares) - 1)
    heights = [inside * share / sum(shares) for share in shares]
    upper, places = height - margins.top, []
    for size in heights:
        panel = margins.left, upper - size, width - margins.left - margins.right, size
        places.append((panel[0] / width, panel[1] / height, panel[2] / width, panel[3] / height))
        upper -= size + margins.gap
    return places


def beside(figure: Figure, place: Place, gap: float, width: float) -> Place:
    """The place of ``width`` inches on the right of ``place``, after ``gap`` inches."""
    total = figure.get_figwidth()
    return place[0] + place[2] + gap / total, place[1], width / total, place[3]


def title_above(figure: Figure, place: Place, title: str, inches: float = 0.1) -> None:
    """Write ``title`` at the left edge of ``place``, ``inches`` above it, as large as the figure is wide."""
    bottom = place[1] + place[3] + inches / figure.get_figheight()
    room = (1 - place[0]) * figure.get_figwidth() - 0.08
    size = fitted_size(figure, [title], TITLE_SIZE, room)
    figure.text(place[0], bottom, title, fontsize=size, color=INK, ha="left", va="bottom")


def text_width(figure: Figure, text: str, size: float) -> float:
    """The inches that ``text`` takes in a font of ``size`` points."""
    drawn = figure.text(0, 0, text, fontsize=size)
    width = drawn.get_window_extent().width
    drawn.remove()
    return width / figure.dpi


def widest(figure: Figure, texts: Sequence[str], size: float) -> float:
    """The inches that the widest of ``texts`` takes."""
    return max((text_width(figure, text, size) for text in set(texts)), default=0.0)


def fitted_size(figure: Figure, texts: Sequence[str], size: float, room: float) -> float:
    """``size`` in points, or less if the widest of ``texts`` would take more than ``room`` inches."""
    return size * min(1.0, room / max(widest(figure, texts, size), 0.01))
