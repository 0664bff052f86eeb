"""The pictures and pages in a folder of results, which are drawn once its results are saved."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..runtime.atomic import scratch_folder
from ..runtime.signals import Stopped, stoppable
from .arguments import PROGRAM
from .result_folder import (
    ENTROPY,
    PICTURES,
    REPORT,
    Results,
    holds,
    read_embeddings,
    read_report,
    write_listed_report,
    written_by,
)

if TYPE_CHECKING:
    from ..embedding import Embedding


class NoPicture(RuntimeWarning):
    """The pictures could not be drawn, and the message says why. `draw` raises it; `draw_results` warns with it."""


def draw(folder: Path, embeddings: Mapping[str, Embedding], report: dict[str, Any] | None) -> list[str]:
    """Draw ``embeddings`` into ``folder`` and return the names of the pictures.

    ``embeddings`` are those of `Results`. If the first embedding has an entropy curve, that is drawn too. Existing
    pictures are replaced only once all of them are drawn. ``report`` and the errors are those of `add`.
    """
    first = next(iter(embeddings.values()))
    names = [*(PICTURES[name] for name in embeddings), *[ENTROPY] * (first.entropy is not None)]
    add(folder, names, report, lambda drawn: _draw(drawn, embeddings))
    return names


def add(folder: Path, names: Sequence[str], report: dict[str, Any] | None, write: Callable[[Path], object]) -> None:
    """Let ``write`` write the files ``names`` into a new folder, and move them to the results in ``folder``.

    report.json of ``folder`` lists them before they are moved, so that ``embed --force`` may replace them. The new
    folder has that report.json while ``write`` runs, if ``names`` make it longer. ``report`` is the content of
    report.json of the run that computed the results, or None if there is none.

    Raises
    ------
    NoPicture
        ``write`` fails, or ``folder`` holds the results of another run. It is unchanged.
    InputError
        A page cannot be written in ``folder``.
    """
    try:
        with stoppable(), scratch_folder(folder / names[0]) as scratch:
            # Another run may replace ``folder`` at any moment. ".." is the folder in which the scratch folder lies.
            drawn, here = scratch / names[0], scratch / os.pardir
            if not holds(here, report):
                raise InputError(f"{folder} holds the results of another run")
            drawn.mkdir()
            longer = _longer_report(drawn, here, names)
            write(drawn)
            for name in [*longer, *names]:
                os.replace(drawn / name, here / name)
    except Exception as error:  # matplotlib's errors have no base class, and none of them may hide the results
        if not holds(folder, report):
            raise NoPicture(f"{folder}: another run has replaced the results; no picture was drawn") from error
        page = names[0].endswith(".html")
        if page and isinstance(error, InputError):  # its sentence names the file
            raise
        missing = f"{names[0]} could not be written" if page else "no picture could be drawn"
        raise NoPicture(f"{folder}: {missing} ({reason(error)})") from error


def reason(error: Exception) -> str:
    """The class and the first line of ``error``."""
    return f"{type(error).__name__}: {str(error).strip()}".partition("\n")[0].removesuffix(": ")


def _draw(folder: Path, embeddings: Mapping[str, Embedding]) -> None:
    from .. import plots

    for name, embedding in embeddings.items():
        plots.panels(embedding, path=folder / PICTURES[name])
    first = next(iter(embeddings.values()))
    if first.entropy is not None:
        plots.entropy(first, path=folder / ENTROPY)


def _longer_report(drawn: Path, folder: Path, names: Sequence[str]) -> list[str]:
    """Write into ``drawn`` the report of ``folder`` with ``names`` added to its files; [] if it lists them already.

    It is moved to ``folder`` before the files, so that none of them is unlisted at any moment.
    """
    report = read_report(folder)
    if report is None or written_by(report).issuperset(names):
        return []
    write_listed_report(drawn, report | {"files": sorted(written_by(report).union(names))})
    return [REPORT]


def draw_results(folder: Path, results: Results) -> None:
    """Draw as `draw` does, but only warn about an error: ``results`` in ``folder`` are complete without pictures.

    Warns
    -----
    NoPicture
        The pictures cannot be drawn.
    """
    try:
        draw(folder, results.embeddings, results.report)
    except NoPicture as error:
        saved_there = holds(folder, results.report)
        remedy = f"; the results are saved; '{PROGRAM} plot {folder}' draws them" if saved_there else ""
        warnings.warn(f"{error}{remedy}", NoPicture, stacklevel=3)
    except (KeyboardInterrupt, Stopped) as stop:
        stop.args = (f"{folder} holds the results, without pictures",)
        raise


def redraw(folder: Path) -> list[str]:
    """Draw every embedding in ``folder`` again. Raises `InputError` if there is none, `NoPicture` as `draw` does."""
    report = read_report(folder)  # first, so that `draw` notices a replacement between the reads
    return draw(folder, read_embeddings(folder), report)
