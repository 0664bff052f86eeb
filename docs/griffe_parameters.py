"""A griffe extension: parameters as this project writes them down.

The default of a parameter is that of the signature. Griffe takes the first of ``{"a", "b"}``, and gives all names of
one line the default of the first name. A sentence behind the colon is a description, and not a type.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from griffe import (
    Class,
    DocstringNamedElement,
    DocstringSectionAttributes,
    DocstringSectionParameters,
    Extension,
    Function,
    Module,
    Object,
)

LONGEST_TYPE = 60  # characters


class Parameters(Extension):
    def on_package(self, *, pkg: Module, **_: Any) -> None:
        for member in _with_parameters(pkg):
            sections = member.docstring.parse("numpy", warnings=False) if member.docstring else []
            for section in sections:
                if isinstance(section, DocstringSectionParameters | DocstringSectionAttributes):
                    for element in section.value:
                        _describe(element)
                if isinstance(section, DocstringSectionParameters):
                    for parameter in section.value:
                        known = parameter.name in member.parameters
                        parameter.value = member.parameters[parameter.name].default if known else None
            if sections:
                member.docstring.__dict__["parsed"] = sections  # the value of a cached property


def _describe(element: DocstringNamedElement) -> None:
    text = str(element.annotation or "")
    if text.endswith(".") or len(text) > LONGEST_TYPE:
        new_sentence = element.description[:1].isupper() and not text.endswith(".")
        element.description = f"{text}{'. ' if new_sentence else ' '}{element.description}".strip()
        element.annotation = None


def _with_parameters(parent: Object) -> Iterator[Class | Function]:
    for member in parent.members.values():
        if not member.is_alias:
            if isinstance(member, Class | Function):
                yield member
            yield from _with_parameters(member)
