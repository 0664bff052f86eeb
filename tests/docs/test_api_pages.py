"""Every public name stands on an API page, and every option of the command line on its page."""

from __future__ import annotations

import importlib
import inspect
import re
import types

import pytest

import mmphate_gpu
from mmphate_gpu.cli import main

from .pages import DOCS, text

API = "\n".join(text(page) for page in sorted((DOCS / "api").glob("*.md")))
IDENTIFIERS = re.findall(r"^::: (\S+)$", API, flags=re.MULTILINE)
# The rooms of the public names; what they list in __all__ is public as well.
ROOMS = sorted({"neighbors", *mmphate_gpu._MODULES, *mmphate_gpu._HOMES.values()})
COMMANDS = ("demo", "embed", "plan", "plot", "config")
CLI = text(DOCS / "api" / "cli.md")


def imported(identifier: str) -> object:
    module, _, attribute = identifier.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def public_names(room: str) -> list[str]:
    module = importlib.import_module(f"mmphate_gpu.{room}")
    defined = inspect.getmembers(module, lambda member: getattr(member, "__module__", "") == module.__name__)
    without_list = [name for name, _ in defined if not name.startswith("_")] if room in mmphate_gpu._MODULES else []
    return list(getattr(module, "__all__", without_list))


def test_identifiers_can_be_imported_and_occur_once():
    documented = [id(imported(identifier)) for identifier in IDENTIFIERS]
    assert len(documented) == len(set(documented)) > 60


def test_a_function_is_not_taken_for_its_module():
    """`planning.plan` is a function and, for a reader of the sources, the module that has it."""
    homes = {identifier: getattr(imported(identifier), "__module__", "") for identifier in IDENTIFIERS}
    alike = {i: home for i, home in homes.items() if home.rpartition(".")[2] == i.rpartition(".")[2]}
    assert {i: home for i, home in alike.items() if i != f"{home}.{home.rpartition('.')[2]}"} == {}


def test_the_names_of_the_package_are_documented():
    documented = {id(imported(identifier)) for identifier in IDENTIFIERS}
    values = {name: getattr(mmphate_gpu, name) for name in mmphate_gpu.__all__}
    named = {name for name, value in values.items() if isinstance(value, (str, types.ModuleType))}
    assert [name for name in named if f"`mmphate_gpu.{name}`" not in API] == []
    assert [name for name, value in values.items() if name not in named and id(value) not in documented] == []


@pytest.mark.parametrize("room", ROOMS)
def test_the_names_of_a_room_are_documented(room):
    documented = {id(imported(identifier)) for identifier in IDENTIFIERS}
    module = importlib.import_module(f"mmphate_gpu.{room}")
    assert [name for name in public_names(room) if id(getattr(module, name)) not in documented] == []


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
