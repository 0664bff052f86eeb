"""Every public name stands on an API page, and every option of the command line on its page."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import types
from typing import Any

import pytest

import mmphate_gpu
from mmphate_gpu.cli import main

from .pages import DOCS, text

API = "\n".join(text(page) for page in sorted((DOCS / "api").glob("*.md")))
IDENTIFIERS = re.findall(r"^::: (\S+)$", API, flags=re.MULTILINE)
# The rooms of the public names; what they list in __all__ is public as well.
ROOMS = sorted({"affinities", "neighbors", *mmphate_gpu._MODULES, *mmphate_gpu._HOMES.values()})
COMMANDS = ("demo", "embed", "analyze", "plan", "plot", "report", "view", "export", "config")
CLI = text(DOCS / "api" / "cli.md")


@functools.cache
def documented() -> dict[str, Any]:
    """The object of each identifier; None where there is none."""
    parts = {identifier: identifier.rpartition(".") for identifier in IDENTIFIERS}
    return {name: getattr(importlib.import_module(home), last, None) for name, (home, _, last) in parts.items()}


def missing(values: dict[str, Any]) -> list[str]:
    known = set(map(id, documented().values()))
    return [name for name, value in values.items() if id(value) not in known]


def public_names(room: str) -> list[str]:
    module = importlib.import_module(f"mmphate_gpu.{room}")
    defined = inspect.getmembers(module, lambda member: getattr(member, "__module__", "") == module.__name__)
    without_list = [name for name, _ in defined if not name.startswith("_")] if room in mmphate_gpu._MODULES else []
    return list(getattr(module, "__all__", without_list))


def test_identifiers_can_be_imported_and_occur_once():
    assert [identifier for identifier, value in documented().items() if value is None] == []
    assert len(IDENTIFIERS) == len(set(map(id, documented().values()))) > 60


def test_a_function_is_not_taken_for_its_module():
    """`planning.plan` is a function and, for a reader of the sources, the module that has it."""
    homes = {identifier: getattr(value, "__module__", "") for identifier, value in documented().items()}
    alike = {name: home for name, home in homes.items() if home.rpartition(".")[2] == name.rpartition(".")[2]}
    assert {name: home for name, home in alike.items() if name != f"{home}.{home.rpartition('.')[2]}"} == {}


def test_the_names_of_the_package_are_documented():
    values = {name: getattr(mmphate_gpu, name) for name in mmphate_gpu.__all__}
    named = {name for name, value in values.items() if isinstance(value, (str, types.ModuleType))}
    assert [name for name in named if f"`mmphate_gpu.{name}`" not in API] == []
    assert missing({name: value for name, value in values.items() if name not in named}) == []


@pytest.mark.parametrize("room", ROOMS)
def test_the_names_of_a_room_are_documented(room):
    module = importlib.import_module(f"mmphate_gpu.{room}")
    assert missing({name: getattr(module, name) for name in public_names(room)}) == []


def options(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text))


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main([command, "--help"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_options_of_a_command_are_documented(command, capsys):
    section = re.search(rf"^## {command}\n(.*?)^## ", CLI, flags=re.MULTILINE | re.DOTALL)
    assert section is not None
    assert options(section[1]) == options(help_of(command, capsys)) - {"--help"}


def test_commands_are_documented(capsys):
    assert main(["--help"]) == 0
    listed = re.findall(r"^    (\w+)  ", capsys.readouterr().out, flags=re.MULTILINE)
    assert sorted(listed) == sorted([*COMMANDS, "bench"])
    assert sorted(re.findall(r"^## ([a-z]+)$", CLI, flags=re.MULTILINE)) == sorted(listed)
