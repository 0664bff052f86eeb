"""The examples in docstrings give the output that they show. None of them needs an optional package."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import mmphate_gpu

ROOT = Path(mmphate_gpu.__file__).parent
MODULES = [
    ".".join([ROOT.name, *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")
    for path in sorted(ROOT.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    result = doctest.testmod(importlib.import_module(name))  # prints what differs
    assert result.attempted > 0, "doctest does not read the docstring of the example"
    assert result.failed == 0


def test_the_public_classes_have_examples():
    assert {f"mmphate_gpu.{name}" for name in ("estimator", "m_phate", "trace.convert", "record.recorder")} <= set(
        MODULES
    )
