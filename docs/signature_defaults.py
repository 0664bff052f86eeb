"""A griffe extension: the default of a parameter is that of the signature.

Griffe takes the first of ``{"a", "b"}`` for the default, and gives all names of one line the default of the first name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from griffe import Class, DocstringSectionParameters, Extension, Function, Module, Object


class SignatureDefaults(Extension):
    def on_package(self, *, pkg: Module, **_: Any) -> None:
        for member in _with_parameters(pkg):
            sections = member.docstring.parse("numpy", warnings=False) if member.docstring else []
            for section in sections:
                if isinstance(section, DocstringSectionParameters):
                    for parameter in section.value:
                        name = parameter.name
                        parameter.value = member.parameters[name].default if name in member.parameters else None
            if sections:
                member.docstring.__dict__["parsed"] = sections  # the value of a cached property


def _with_parameters(parent: Object) -> Iterator[Class | Function]:
    for member in parent.members.values():
        if not member.is_alias:
            if isinstance(member, Class | Function):
                yield member
            yield from _with_parameters(member)
