"""Elements of HTML. Every text is escaped, unless it is `Html` already."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable

from ...runtime.streams import encodable

EMPTY = ("img", "meta", "br")  # elements without an end
# Control characters and line separators have no glyph, and HTML forbids some of them.
INVISIBLE = ("Cc", "Zl", "Zp")
KEPT = "\n\t"


class Html(str):
    """Text of HTML, which is not escaped again."""


def escaped(text: str) -> Html:
    """``text`` for a page in UTF-8, with a visible escape for each character that a page cannot show.

    Examples
    --------
    >>> print(escaped("<b> & " + chr(0) + chr(0xD800)))
    &lt;b&gt; &amp; \\x00\\ud800
    """
    shown = "".join(_visible(character) for character in text)
    return Html(html.escape(encodable(shown)))


def _visible(character: str) -> str:
    hidden = character not in KEPT and unicodedata.category(character) in INVISIBLE
    return character.encode("unicode_escape").decode() if hidden else character


def tag(name: str, /, *children: str | None, **attributes: str | None) -> Html:
    """An element with ``children``. None is left out. An underscore in the name of an attribute is a hyphen.

    Examples
    --------
    >>> print(tag("p", "a < b", tag("b", "c"), class_="plain"))
    <p class="plain">a &lt; b<b>c</b></p>
    """
    named = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items() if value is not None}
    start = "".join(f' {name}="{escaped(value)}"' for name, value in named.items())
    if name in EMPTY:
        return Html(f"<{name}{start}>")
    return Html(f"<{name}{start}>{join(children)}</{name}>")


def join(children: Iterable[str | None]) -> Html:
    """The children one after another."""
    return Html(
        "".join(child if isinstance(child, Html) else escaped(child) for child in children if child is not None)
    )


def name(text: object) -> Html:
    """A text that a user may have chosen. Its direction, such as right to left, changes nothing around it."""
    return tag("bdi", str(text))


def code(text: str) -> Html:
    """Lines of code, which scroll by themselves."""
    return tag("pre", tag("code", text, dir="ltr"), tabindex="0")


def paragraph(*children: str | None, class_: str | None = None) -> Html:
    return tag("p", *children, class_=class_)


def bullets(items: Iterable[str], class_: str | None = None) -> Html:
    return tag("ul", *(tag("li", item) for item in items), class_=class_)


def table(head: Iterable[str], rows: Iterable[Iterable[str]], caption: str, class_: str | None = None) -> Html:
    """A table that scrolls by itself. The first cell of each row is its heading."""
    columns = tag("thead", tag("tr", *(tag("th", text, scope="col") for text in head)))
    body = tag("tbody", *map(_row, rows))
    inner = tag("table", tag("caption", caption), columns, body, class_=class_)
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _row(cells: Iterable[str]) -> Html:
    first, *others = cells
    return tag("tr", tag("th", first, scope="row"), *(tag("td", cell) for cell in others))
