"""Figures without pyplot, so without windows and global state, and files that appear whole."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..runtime.atomic import whole_file
from ..runtime.paths import expanded, writable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
DPI = 220
INK, FAINT = "#262626", "#9a9a9a"
TITLE_SIZE, LABEL_SIZE, TICK_SIZE = 11, 8.5, 8
SMALLEST = 5.5  # points of the smallest text; where even this has no room, names are cut or left out
FONT = "DejaVu Sans"  # it comes with matplotlib


@contextmanager
def plain_style() -> Iterator[None]:
    """Use the defaults of matplotlib while the block runs, and then restore the settings of the user.

    A dollar sign in a text is drawn as it is. A character that no font has is drawn as a box, without a warning.
    """
    import matplotlib
    from matplotlib.font_manager import fontManager

    settings = {name: value for name, value in matplotlib.rcParamsDefault.items() if not name.startswith("backend")}
    # The user's fonts may have a character that `FONT` lacks.
    users = {*matplotlib.rcParams["font.family"], *matplotlib.rcParams["font.sans-serif"]}
    settings |= {"font.family": [FONT, *sorted(users & {*fontManager.get_font_names()})], "text.parse_math": False}
    settings["svg.hashsalt"] = "mmphate-gpu"  # the same file each time
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        yield


def check_path(path: str | os.PathLike[str] | None) -> Path | None:
    """``path`` with ~ expanded; raises `InputError` unless it is a .png, .svg or .pdf in an existing folder."""
    return None if path is None else check_file(path, SUFFIXES)


def check_file(path: str | os.PathLike[str], suffixes: tuple[str, ...]) -> Path:
    """``path`` with ~ expanded; raises `InputError` unless it has one of ``suffixes`` and is in an existing folder."""
    path = expanded(path)
    if path.suffix.lower() not in suffixes:
        raise InputError(f"path={str(path)!r} ends in {path.suffix!r}; accepted: {', '.join(suffixes)}")
    with writable(path):
        if not path.parent.is_dir():
            raise InputError(f"path={str(path)!r} is in a folder that does not exist; accepted: an existing folder")
        if path.is_dir():
            raise InputError(f"path={str(path)!r} is a folder; accepted: the path of a picture to write")
    return path


def new_figure(figsize: tuple[float, float]) -> Figure:
    """An empty white figure of ``figsize`` inches, which pyplot does not know."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=figsize, dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path | None) -> None:
    """Write ``figure`` to ``path``, or do nothing for None. An existing file is replaced. The bits are reproducible."""
    if path is None:
        return
    file_format = path.suffix.lower()[1:]
    stamp = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[file_format]
    # Draw into memory first: on a full disk matplotlib leaves a file open and raises other errors.
    picture = io.BytesIO()
    figure.savefig(picture, format=file_format, dpi=DPI, metadata=stamp)
    with whole_file(path, overwrite=True) as new:
        new.write_bytes(picture.getvalue())


def open_frame(axes: Axes) -> None:
    """Draw only the left and the lower edge, thin and gray."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color=FAINT, linewidth=0.7)
    axes.tick_params(color=FAINT, labelcolor=INK, labelsize=TICK_SIZE, width=0.7, length=3)
