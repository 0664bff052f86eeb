"""The page of the command `report`, and changes of the files that it reads."""

from __future__ import annotations

import json
from pathlib import Path

from mmphate_gpu.cli import main

from .pages import Page

TRACE = "my trace's.npz"  # a name that a shell and Python have to quote


def report(*argv: str, code: int = 0) -> Page | None:
    """The page that the command writes."""
    assert main(["report", *argv]) == code
    out = [argument for argument in argv if argument.endswith(".html")]
    path = Path(out[0]) if out else Path(argv[0]) / "report.html"
    return Page(path.read_text(encoding="utf-8")) if code == 0 else None


def edit(path: str, **values: object) -> None:
    """Replace entries of a JSON file."""
    content = json.loads(Path(path).read_text())
    Path(path).write_text(json.dumps(content | values))
