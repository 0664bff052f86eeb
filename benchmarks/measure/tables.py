"""Tables of rows, as plain text and as markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.measure.rows import FOLLOWS, Row, last_line

Line = tuple[str, ...]


class Table(NamedTuple):
    """A table of a suite, with a sentence below it."""

    head: Line
    lines: list[Line]
    note: str = ""


def plain_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    lines = [[last_line(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in [head, *lines]
    )


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    lines = [[last_line(cell).replace("|", r"\|") for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines])


def not_measured(rows: Sequence[Row], tables: Sequence[Table]) -> list[str]:
    """A sentence for each row without numbers whose reason is in none of the ``tables``.

    A case that was not tried after a smaller case gave nothing has no sentence: the smaller case has one.
    """
    cells = {cell for table in tables for line in table.lines for cell in line}
    left = [row for row in rows if row.skipped and row.skipped not in cells and not row.skipped.endswith(FOLLOWS)]
    return [f"Not measured: {row.case} ({row.by}): {row.reason}." for row in left]


# ---------------------------------------------------------------- cells; what is not set is an empty one


def number_text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def seconds_text(seconds: float | None) -> str:
    """Three digits, the precision of such a measurement."""
    return "" if seconds is None else f"{seconds:.2f}" if seconds < 10 else f"{seconds:.1f}"


def spread_text(row: Row) -> str:
    """Seconds, followed by half of the range of the repeats."""
    text = seconds_text(row.seconds)
    if (row.repeats or 0) < 2 or row.seconds_low is None or row.seconds_high is None:
        return text
    return f"{text} ± {seconds_text((row.seconds_high - row.seconds_low) / 2)}"


def bytes_text(n: float | None) -> str:
    if n is None:
        return ""
    if n >= 1e12:
        return f"{n / 1e12:.2f} TB"
    return f"{n / 1e9:.2f} GB" if n >= 1e9 else f"{n / 1e6:.0f} MB"


def shares_text(shares: dict[str, float] | None) -> str:
    """Shares of neighbors kept, one for each k."""
    return " / ".join(f"{share:.3f}" for share in (shares or {}).values())


# ---------------------------------------------------------------- places in texts


def fill(file: Path, mark: str, content: str, *, write: bool) -> int:
    """Fill the place between ``<!-- mark -->`` and ``<!-- /mark -->``; without ``write`` 1 if its content differs."""
    text = file.read_text()
    place = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", re.DOTALL)
    new = place.sub(lambda match: match[1] + content + match[2], text)
    if write:
        file.write_text(new)
    return int(not write and new != text)
