"""Read an HTML page as a browser does, as far as tests need it."""

from __future__ import annotations

from html.parser import HTMLParser

EMPTY = {"img", "meta", "br"}


class Page(HTMLParser):
    """The elements and the visible text of a page. Elements that are not closed in order are an error."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []  # the innermost element and its text
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == [], self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in EMPTY:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1] == tag, (tag, self._open)
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open[-1] if self._open else "", data))

    def all(self, tag: str) -> list[dict[str, str]]:
        """The attributes of the elements ``tag``."""
        return [attributes for name, attributes in self.elements if name == tag]

    def count(self, tag: str) -> int:
        return len(self.all(tag))

    @property
    def text(self) -> str:
        """The text that a reader sees."""
        return "".join(data for tag, data in self.texts if tag not in ("script", "style"))

    def inside(self, tag: str) -> list[str]:
        """The texts directly inside elements ``tag``."""
        return [data for name, data in self.texts if name == tag]
