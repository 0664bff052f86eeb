"""The program that type checkers read uses every public name."""

from __future__ import annotations

import ast
from pathlib import Path

import mmphate_gpu

PROGRAM = ast.parse((Path(__file__).parent / "public_api.py").read_text(encoding="utf-8"))


def test_every_public_name_is_imported():
    imports = [node for node in ast.walk(PROGRAM) if isinstance(node, ast.ImportFrom) and node.module == "mmphate_gpu"]
    names = {alias.name for node in imports for alias in node.names}
    assert names == {*mmphate_gpu.__all__} - {"__version__"}


def test_every_public_name_is_declared_to_type_checkers():
    package = ast.parse(Path(mmphate_gpu.__file__).read_text(encoding="utf-8"))
    block = next(node for node in package.body if isinstance(node, ast.If))
    declared = {alias.asname: node.module for node in block.body for alias in node.names}
    modules = {name: None for name in mmphate_gpu._MODULES}
    assert declared == mmphate_gpu._HOMES | modules
