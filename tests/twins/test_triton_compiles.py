"""Every Triton kernel compiles to machine code without a GPU, within the means of every card it is for."""

from __future__ import annotations

import re
from typing import Any

import pytest

from mmphate_gpu._optional import available

pytestmark = pytest.mark.skipif(not available("triton"), reason="triton is not installed")

TYPES = {
    "tiles": "*fp16",
    "block": "*fp16",
    "points": "*fp32",
    "centers": "*fp32",
    "out": "*fp32",
    "limit": "fp32",
    "indptr": "*i64",
    "columns": "*i32",
    "width": "i32",
}
SHARED_BYTES = 99 * 1024  # of a block, on the smallest cards since compute capability 8.0
PRODUCTS = {80: "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", 90: "wgmma.mma_async"}


def _compiled(kernel: str, capability: int, constants: dict[str, Any]) -> Any:
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from mmphate_gpu.ops import _triton

    function = getattr(_triton, f"{kernel}_kernel")
    names = function.arg_names
    constants = {name: constants.get(name, getattr(_triton, name, None)) for name in names if name.isupper()}
    signature = {name: "constexpr" if name in constants else TYPES[name] for name in names}
    whole = {(at,): [["tt.divisibility", 16]] for at, name in enumerate(names) if signature[name][0] == "*"}
    whole[(names.index("width"),)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=function, signature=signature, constexprs=constants, attrs=whole)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=_triton.OPTIONS)


@pytest.mark.parametrize("capability", PRODUCTS)
@pytest.mark.parametrize("panel", [16, 128])
@pytest.mark.parametrize(
    ("kernel", "constants"),
    [
        ("tile_matmul", {}),
        ("gaussian_product", {"P": 10, "SPLIT": False}),
        ("gaussian_product", {"P": 112, "SPLIT": True}),
    ],
    ids=["tiles", "differences", "products"],
)
def test_kernel_compiles(kernel: str, constants: dict[str, Any], panel: int, capability: int) -> None:
    found = _compiled(kernel, capability, {"PANEL": panel, **constants})
    assert found.asm["cubin"] and found.metadata.shared <= SHARED_BYTES
    # Half precision with float32 sums, on the tensor cores, and nothing shorter in front of it.
    kinds = set(re.findall(r"\b(?:wgmma\.mma_async|mma\.sync)[.\w]*", found.asm["ptx"]))
    assert kinds and all(kind.startswith(PRODUCTS[capability]) and ".f32.f16.f16" in kind for kind in kinds)
    assert "tf32" not in found.asm["ptx"] and "bf16" not in found.asm["ptx"]


def test_every_launcher_has_the_arguments_of_its_portable_version() -> None:
    import inspect

    from mmphate_gpu.ops import _triton, gaussian_product, tile_matmul  # noqa: F401 - importing defines the ops
    from mmphate_gpu.ops.twins import PORTABLE

    for name in ("gaussian_product", "tile_matmul"):
        ours, theirs = (inspect.signature(one).parameters for one in (getattr(_triton, name), PORTABLE[name]))
        assert list(ours) == list(theirs)
