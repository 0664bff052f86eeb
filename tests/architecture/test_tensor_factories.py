"""Every call that makes a tensor names its device, and its dtype if the default of torch would decide it.

So `torch.set_default_device` and `torch.set_default_dtype` in a script of the user change nothing. The first would make
tensors on a device that the C++ twins cannot read, and the second would round them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import mmphate_gpu

ROOT = Path(mmphate_gpu.__file__).parent
# Without a dtype these use the default of torch.
FLOATING = {
    *("empty", "empty_strided", "eye", "full", "linspace", "logspace", "normal", "ones", "rand", "randn"),
    *("scalar_tensor", "tensor", "zeros"),
}
# The dtype of these is that of their values, or int64.
INFERRED = {
    *("arange", "as_tensor", "asarray", "randint", "randperm", "sparse_coo_tensor", "sparse_csr_tensor"),
    *("tril_indices", "triu_indices", "Generator"),
}


def faults(source: str) -> Iterator[str]:
    """The calls in a module that make a tensor without a device or a dtype, with line numbers."""
    tree = ast.parse(source)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "torch":
            names = {alias.name for alias in node.names} & (FLOATING | INFERRED)
            yield from (f"line {node.lineno}: {name} is imported from torch, write torch.{name}" for name in names)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "torch":
            missing = _missing(node.attr, parents[node])
            yield from (f"line {node.lineno}: torch.{node.attr} without {name}" for name in missing)


def _missing(name: str, parent: ast.AST) -> list[str]:
    """The arguments that the call of the factory ``name``, or the `partial` of it, lacks."""
    if name not in FLOATING | INFERRED | {"where"} or not isinstance(parent, ast.Call):
        return []
    if name == "where":  # two Python numbers make a tensor of the default dtype
        values = parent.args[1:]
        return ["a tensor beside the Python numbers"] * (len(values) == 2 and all(map(_is_real, values)))
    named = {keyword.arg for keyword in parent.keywords}
    if name == "Generator" and parent.args:
        named.add("device")
    wants_dtype = name in FLOATING or (name == "arange" and any(map(_is_real, parent.args)))
    return [argument for argument in ["device", "dtype"][: 1 + wants_dtype] if argument not in named]


def _is_real(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Constant) and isinstance(part.value, float) for part in ast.walk(node)) and not any(
        isinstance(part, ast.Name) for part in ast.walk(node)
    )


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_tensors_are_made_with_a_device_and_a_dtype(path):
    assert list(faults(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "x = torch.zeros(3, device=d)",
        "x = torch.zeros(3, dtype=k)",
        "x = torch.tensor(0.5, device=d)",
        "x = torch.arange(3)",
        "x = torch.arange(0.0, 1.0, device=d)",
        "x = torch.as_tensor(array)",
        "x = torch.randint(0, 2, (3,), dtype=torch.int8)",
        "g = torch.Generator()",
        "x = torch.empty(3, **options)",
        "zeros = partial(torch.zeros, dtype=k)",
        "from torch import zeros",
        "x = torch.where(y < 0, -1.0, 1.0)",
    ],
)
def test_calls_that_use_a_default_are_reported(source):
    assert list(faults(source))


@pytest.mark.parametrize(
    "source",
    [
        "x = torch.zeros(3, dtype=k, device=d)",
        "x = torch.arange(n, device=d)",
        "x = y.new_zeros(3)",
        "x = torch.zeros_like(y)",
        "x = torch.from_numpy(array)",
        'g = torch.Generator("cpu")',
        "zeros = partial(torch.zeros, dtype=k, device=d)",
        "x = torch.where(y < 0, -1, 1)",
        "x = torch.where(y < 0, y, 1.0)",
        "x: torch.Tensor",
    ],
)
def test_calls_without_defaults_pass(source):
    assert not list(faults(source))
