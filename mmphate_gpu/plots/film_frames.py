"""The frames of a film: a figure whose still parts are drawn once, and parts that move."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .canvas import FAINT, INK, SMALLEST, TICK_SIZE, TITLE_SIZE, new_figure
from .colors import Coloring
from .keys import ENTRY, draw_key, with_short_names
from .layout import Place, fitted_names, fitted_size, square_inches, text_width

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

DPI = 144
# Inches around the panel: left for the axis name, right for the key, above for the title, below for each note.
LEFT, RIGHT, TOP, BOTTOM, NOTE = 0.32, 1.05, 0.46, 0.3, 0.11
TITLE_LENGTH = 24  # characters of the name of an epoch


class Scene(Protocol):
    """The parts of a film that move."""

    @property
    def artists(self) -> list[Artist]:
        """In the order in which they are drawn."""

    def __call__(self, number: int) -> None:
        """Move the artists to where they are in the frame of this number."""


@dataclass(frozen=True, eq=False)
class Film:
    """A scene in a figure, with the number of its frames."""

    figure: Figure
    scene: Scene
    n_frames: int
    hold: int  # how many times more the last frame is shown

    @property
    def canvas(self) -> Any:
        return self.figure.canvas

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.canvas.get_width_height()  # type: ignore[no-any-return]

    def numbers(self) -> list[int]:
        """The frames in the order in which they are shown."""
        return [*range(self.n_frames), *[self.n_frames - 1] * self.hold]

    def samples(self, n: int) -> Iterator[np.ndarray]:
        """Draw ``n`` frames, evenly spaced with the first and the last, or fewer if the film has fewer."""
        return self.frames(np.unique(np.linspace(0, self.n_frames - 1, n).round().astype(int)).tolist())

    def frames(self, numbers: Iterable[int]) -> Iterator[np.ndarray]:  # (height, width, 3) uint8 each
        """Draw the frames of these ``numbers``. A frame that is shown again is not drawn again."""
        for artist in self.scene.artists:
            artist.set_animated(True)  # so `draw` draws the other artists only
        self.canvas.draw()
        still, shown, frame = self.canvas.copy_from_bbox(self.figure.bbox), -1, np.empty(0)
        for number in numbers:
            if number != shown:
                self.canvas.restore_region(still)
                frame, shown = self._drawn(number), number
            yield frame

    def _drawn(self, number: int) -> np.ndarray:
        self.scene(number)
        for artist in self.scene.artists:
            self.figure.draw_artist(artist)
        return np.array(self.canvas.buffer_rgba())[..., :3]


@dataclass(frozen=True, eq=False)
class Stage:
    """A figure with a panel for the scene, and room for a title above, a key on the right and notes below."""

    figure: Figure
    panel: Place

    @property
    def square_inches(self) -> float:
        return square_inches(self.figure, self.panel)


def new_stage(figsize: tuple[float, float], n_notes: int) -> Stage:
    """An empty stage with an even number of pixels on each side, which .mp4 needs."""
    width, height = (2 * round(size * DPI / 2) / DPI for size in figsize)
    figure = new_figure((width, height))
    figure.set_dpi(DPI)
    return Stage(figure, _panel(width, height, BOTTOM + NOTE * n_notes))


def _panel(width: float, height: float, bottom: float) -> Place:
    return LEFT / width, bottom / height, 1 - (LEFT + RIGHT) / width, 1 - (TOP + bottom) / height


def add_key(stage: Stage, coloring: Coloring, name: str) -> None:
    """Draw the key of ``coloring`` on the right of the panel, with its ``name`` above."""
    coloring = with_short_names(stage.figure, coloring, RIGHT - 0.33)
    width, height = stage.figure.get_size_inches()
    left, room = stage.panel[0] + stage.panel[2] + 0.12 / width, RIGHT - 0.16
    draw_key(stage.figure, (left, stage.panel[1], room / width, stage.panel[3]), coloring)
    upper = _upper_edge(stage, coloring) + 0.09 / height
    size = fitted_size(stage.figure, [name], TICK_SIZE, room)
    stage.figure.text(left, upper, name, fontsize=size, color=INK, ha="left", va="bottom")


def _upper_edge(stage: Stage, coloring: Coloring) -> float:
    """Where the key of ``coloring``, which is in the middle, ends: a list of names, or a bar of 0.76 of the height."""
    entries = ENTRY * len(coloring.names) / (2 * stage.panel[3] * stage.figure.get_figheight())
    return stage.panel[1] + (0.5 + (min(0.5, entries) if coloring.swatches else 0.38)) * stage.panel[3]


def add_title(stage: Stage, title: str, size: float) -> Any:
    """Write a text of ``size`` points above the panel, and return it."""
    left, bottom, _, height = stage.panel
    upper = bottom + height + 0.13 / stage.figure.get_figheight()
    return stage.figure.text(left, upper, title, fontsize=size, color=INK, ha="left", va="bottom")


def fitted_title(stage: Stage, title: str) -> float:
    """The size at which ``title`` fits above the panel."""
    return fitted_size(stage.figure, [title], TITLE_SIZE, stage.panel[2] * stage.figure.get_figwidth())


def fitted_titles(stage: Stage, word: str, labels: np.ndarray) -> tuple[list[str], float]:
    """``word`` with each of ``labels``, and the size at which all fit, so that it is the same in the whole film."""
    room = stage.panel[2] * stage.figure.get_figwidth() - text_width(stage.figure, f"{word} ", TITLE_SIZE)
    names, size = fitted_names(stage.figure, labels, TITLE_LENGTH, TITLE_SIZE, room)
    return [f"{word} {name}" for name in names], size


def add_time_line(stage: Stage) -> Any:
    """Draw a thin line above the panel, and return the line of the time that is over."""
    from matplotlib.lines import Line2D

    left, bottom, width, height = stage.panel
    level = [bottom + height + 0.06 / stage.figure.get_figheight()] * 2
    stage.figure.add_artist(Line2D([left, left + width], level, color=FAINT, linewidth=0.6, alpha=0.6))
    return stage.figure.add_artist(Line2D([left, left], level, color=INK, linewidth=1.8, solid_capstyle="butt"))


def write_notes(stage: Stage, notes: list[str]) -> None:
    """Write ``notes`` below one another at the lower edge."""
    width, height = stage.figure.get_size_inches()
    size = max(SMALLEST, fitted_size(stage.figure, notes, TICK_SIZE - 1.5, width - LEFT - 0.05))
    for line, note in enumerate(reversed(notes)):
        upward = (0.03 + NOTE * line) / height
        stage.figure.text(LEFT / width, upward, note, fontsize=size, color=FAINT, va="bottom")
