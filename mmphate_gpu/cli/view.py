"""The command `view`: picture.html in a folder of results, opened in the browser."""

from __future__ import annotations

import os
import subprocess
import sys
import webbrowser
from pathlib import Path

from .pictures import add
from .report.colorings import colorings
from .result_folder import INTERACTIVE, check_listed, checked_report, read_embeddings

# A graphical browser takes over the address and ends within this time, or stays; nobody waits for it longer.
SECONDS = 10
OPEN = "import sys, webbrowser; sys.exit(not webbrowser.open(sys.argv[1]))"


def write_picture(folder: Path) -> Path:
    """Write the interactive picture of the results in ``folder`` there, and return its path.

    It shows the embedding with most components.

    Raises
    ------
    InputError
        There is no embedding, a file is damaged, or the name is taken by a file that report.json does not list.
    NoPicture
        The picture cannot be drawn or written. An old one stays.
    """
    report, embeddings = checked_report(folder), read_embeddings(folder)
    path = folder / INTERACTIVE
    check_listed(path, report)
    embedding = max(embeddings.values(), key=lambda each: each.n_components)

    def write(drawn: Path) -> None:
        from ..interactive import page

        text = page(
            embedding.coordinates,
            embedding.layout,
            most_active=embedding.most_active,
            columns=colorings(report or {}, embedding),
            title=folder.resolve().name,
        )
        (drawn / INTERACTIVE).write_text(text, encoding="utf-8")

    add(folder, [INTERACTIVE], report, write)
    return path


def show(path: Path) -> str | None:
    """Open ``path`` in a graphical browser; the reason and what to do instead if it cannot be opened."""
    if (reason := _no_browser()) is None and _opened(path.resolve().as_uri()):
        return None
    return (
        f"{reason or 'the browser did not start'}; open {path.resolve()} in a browser, on any machine it is copied to"
    )


def _no_browser() -> str | None:
    """Why no graphical browser can be opened here, or None."""
    if any(name in os.environ for name in ("SSH_CONNECTION", "SSH_TTY")):
        return "this is a session over ssh"
    if sys.platform.startswith(("linux", "freebsd")) and not {"DISPLAY", "WAYLAND_DISPLAY"} & {*os.environ}:
        return "there is no display"
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return "there is no browser"
    # Browsers in a terminal are of the first class; graphical ones are of a class derived from it, or of others.
    return "there is no graphical browser" if type(browser) is webbrowser.GenericBrowser else None


def _opened(address: str) -> bool:
    """Open ``address`` in a process without a terminal, which a browser that is no graphical one could take over."""
    nowhere, command = subprocess.DEVNULL, [sys.executable, "-c", OPEN, address]
    process = subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True)
    try:
        return process.wait(SECONDS) == 0
    except subprocess.TimeoutExpired:
        return True
