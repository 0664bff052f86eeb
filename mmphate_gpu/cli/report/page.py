"""The page as a whole: its sections in order, its table of contents, and the file."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from ... import __version__
from ...errors import InputError
from ...runtime.atomic import scratch_folder, whole_file
from ...runtime.paths import expanded
from ...runtime.signals import stoppable
from ..arguments import PROGRAM
from ..pictures import add
from ..result_folder import PAGE, REPORT, check_beside, check_listed
from .figures import entropy_section, interactive_section, panels_section
from .html import Html, name, tag
from .measures import analyses_section
from .provenance import files_section, reproduce_section, run_section
from .run import Run
from .summary import headline, trust_section

# The page may run its script and that of the picture in its frame, and show pictures in itself. It loads nothing.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)


def write_page(
    folder: Path, *, analysis_folder: Path | None = None, out: Path | None = None, force: bool = False
) -> Path:
    """Write the page of the results in ``folder``, and return its path: ``out``, or report.html in ``folder``.

    ``analysis_folder`` is a folder of `analyze` for these results. ``force`` replaces a file that report.json does not
    list.

    Raises
    ------
    InputError
        See `Run.read`; or the file exists, or cannot be written.
    NoPicture
        Another run replaces the results in ``folder``.
    """
    run = Run.read(folder, analysis_folder)
    path = folder / PAGE if out is None else checked_out(out, folder, force)
    if out is None:
        check_listed(path, run.report, force=force)
        add(folder, [PAGE], run.report, lambda drawn: _write(run, drawn / PAGE, drawn))
    else:
        with stoppable(), scratch_folder(path) as scratch, whole_file(path, overwrite=force, sweep=False) as new:
            _write(run, new, scratch)
    return path


def checked_out(path: Path, folder: Path, force: bool) -> Path:
    """``path`` with ~ written out; raises `InputError` for another ending, for a place in ``folder``, if it exists."""
    path = expanded(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--out {path} ends in {path.suffix!r}; accepted: '.html'")
    check_beside(path, folder)
    if path.exists() and not force:
        raise InputError(f"--out {path} exists; accepted: a new name, or --force to replace it")
    return path


def _write(run: Run, path: Path, scratch: Path) -> None:
    """Write the page. ``scratch`` is for pictures, and may have the report.json that the folder will have."""
    longer = scratch / REPORT
    page = html(run, scratch, longer if longer.is_file() else run.folder / REPORT)
    path.write_text(page, encoding="utf-8")


def html(run: Run, scratch: Path, report: Path) -> str:
    """The text of the page. What makes the picture untrustworthy comes before the picture."""
    sections = {
        "trust": ("Can the picture be trusted?", trust_section(run)),
        "picture": ("The picture", interactive_section(run)),
        "panels": ("Panels", panels_section(run, scratch)),
        "entropy": ("Entropy, t and stress", entropy_section(run, scratch)),
        "analyses": ("Analyses", analyses_section(run)),
        "run": ("What was run, and how", run_section(run)),
        "reproduce": ("Run it again", reproduce_section(run)),
        "files": ("Files", files_section(run, report)),
    }
    title = run.folder.resolve().name or str(run.folder)
    links = [tag("li", tag("a", heading, href=f"#{key}")) for key, (heading, _) in sections.items()]
    header = tag("header", tag("p", "MM-PHATE report", class_="kicker"), tag("h1", name(title)), headline(run))
    parts = [tag("section", tag("h2", heading), content, id=key) for key, (heading, content) in sections.items()]
    footer = tag("footer", f"Made by {PROGRAM} {__version__}. This file needs no network.")
    body = tag(
        "body",
        tag("nav", tag("p", "Contents"), tag("ol", *links), aria_label="Contents"),
        tag("main", header, *parts, footer),
        tag("script", Html(_data("page.js"))),
    )
    return f"<!doctype html>\n{tag('html', _head(title), body, lang='en')}\n"


def _head(title: str) -> Html:
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="generator", content=f"{PROGRAM} {__version__}"),
        tag("title", f"{title}: MM-PHATE report"),
        tag("style", Html(_data("page.css"))),
    )


def _data(file: str) -> str:
    return (files(__package__) / file).read_text(encoding="utf-8")
