"""Every Triton kernel compiles to machine code without a GPU, within the limits of every supported card."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mmphate_gpu.runtime.optional import available

pytestmark = pytest.mark.skipif(not available("triton"), reason="triton is not installed")

TYPES = {
    "tiles": "*fp16",
    "slots": "*i32",
    "diagonal": "*i64",
    "rough": "*fp32",
    "radii": "*fp32",
    "states": "*i8",
    "block": "*fp16",
    "points": "*fp32",
    "centers": "*fp32",
    "out": "*fp32",
    "limit": "fp32",
    "indptr": "*i64",
    "columns": "*i32",
    "width": "i32",
    "norms": "*fp32",
    "labels": "*i64",
    "least": "*fp32",
    "n": "i32",
    "k": "i32",
    "rows": "*i64",
    "scale": "*fp64",
    "inverse": "*fp64",
    "order": "*i64",
    "places": "*i64",
    "indices": "*i32",
    "values": "*fp32",
    "sums": "*fp32",
    "n_points": "i32",
    "n_sets": "i32",
    "n_places": "i32",
    "whole": "i32",
}
# Types that differ for the kernels around a product, and those of blocks of float64 and float32.
AROUND = {
    "tile_block": {"out": "*fp16"},
    "tile_rows": {"indptr": "*i32"},
}
AROUND_TYPES = {"float64": "*fp64", "float32": "*fp32"}
# Types that differ for the kernels that decide.
DECIDING = {
    "tile_reached": {"points": "*fp64", "columns": "*i64", "out": "*i8"},
    "tile_entries": {"points": "*fp64", "columns": "*i64", "out": "*fp16"},
}
# Of the ops, not of their kernels.
SIZES = {"TILE": 128, "FEATURES": 16}
SHARED_BYTES = 99 * 1024  # of a block, on the smallest cards since compute capability 8.0: 8.6, 8.9 and 12.0
MMA = "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"
TCGEN05 = "tcgen05.mma.cta_group::1.kind::f16"
PRODUCTS = {80: MMA, 86: MMA, 89: MMA, 90: "wgmma.mma_async", 100: TCGEN05, 120: MMA}
# Every run of the tests compiles for these, which have different product instructions. Slow tests compile for all.
ALWAYS = (80, 90)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel in the cache would say nothing of the compiler."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def _compiled(kernel: str, capability: int, constants: dict[str, Any], **others: str) -> Any:
    """The kernel, compiled. ``others`` are types of arguments that differ from the usual ones."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from mmphate_gpu.ops.triton import blocks, nearest, pairs, products

    homes = {"tile_block": blocks, "tile_rows": blocks, "assign_nearest": nearest, **dict.fromkeys(DECIDING, pairs)}
    module = homes.get(kernel, products)
    options = {"tile_block": blocks.INTO_OPTIONS, "tile_rows": blocks.OUT_OPTIONS}.get(kernel) or module.OPTIONS
    function = getattr(module, f"{kernel}_kernel")
    names = function.arg_names
    known = {name: getattr(module, name, SIZES.get(name)) for name in names if name.isupper()}
    constants = known | {name: value for name, value in constants.items() if name in known}
    types = TYPES | DECIDING.get(kernel, {}) | AROUND.get(kernel, {}) | others
    signature = {name: "constexpr" if name in constants else types[name] for name in names}
    vectors = "whole" if kernel in AROUND else "width"  # a multiple of 16 columns, as in the launchers
    whole = {(at,): [["tt.divisibility", 16]] for at, name in enumerate(names) if signature[name][0] == "*"}
    whole |= {(at,): [["tt.divisibility", 16]] for at, name in enumerate(names) if name == vectors}
    source = ASTSource(fn=function, signature=signature, constexprs=constants, attrs=whole)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def _capabilities(always: tuple[int, ...] = ALWAYS) -> list[Any]:
    return [
        pytest.param(number, id=f"{number // 10}.{number % 10}", marks=[] if number in always else pytest.mark.slow)
        for number in PRODUCTS
    ]


@pytest.mark.parametrize("capability", _capabilities(tuple(PRODUCTS)))
def test_stored_tiles_compile(capability: int) -> None:
    compiled = _compiled("tile_matmul", capability, {"PANEL": 128})
    assert_in_half_precision(compiled, capability)
    # A thread copies 16 bytes at a time, also of tiles that are transposed. The copies of 4 bytes are numbers of tiles,
    # and the loads of 8 bytes are starts of rows.
    fetched = re.findall(r"cp\.async\.c[ag]\.shared\.global .*\], (0x\w+)", compiled.asm["ptx"])
    assert set(fetched) == {"0x4", "0x10"}
    assert set(re.findall(r"\bld\.global[.\w]*", compiled.asm["ptx"])) <= {"ld.global.b64", "ld.global.v4.b32"}


@pytest.mark.parametrize(("kernel", "constants"), [
    ("tile_matmul", {"PANEL": 16}),
    ("gaussian_product", {"PANEL": 16, "P": 10, "SPLIT": False}),
    ("gaussian_product", {"PANEL": 128, "P": 10, "SPLIT": False}),
    ("gaussian_product", {"PANEL": 128, "P": 32, "SPLIT": True}),
], ids=["tiles, one vector", "differences, one vector", "differences", "products"])  # fmt: skip
@pytest.mark.parametrize("capability", _capabilities())
def test_kernel_compiles(kernel: str, constants: dict[str, Any], capability: int) -> None:
    assert_in_half_precision(_compiled(kernel, capability, constants), capability)


def assert_in_half_precision(compiled: Any, capability: int) -> None:
    """Products run on the tensor cores, in half precision with float32 sums, and shared memory fits every card."""
    assert compiled.asm["cubin"] and compiled.metadata.shared <= SHARED_BYTES
    instructions = set(re.findall(r"\b(?:wgmma\.mma_async|mma\.sync|tcgen05\.mma\.cta)[.\w:]*", compiled.asm["ptx"]))
    assert instructions and all(name.startswith(PRODUCTS[capability]) for name in instructions)
    assert capability == 100 or all(".f32.f16.f16" in name for name in instructions)
    assert "tf32" not in compiled.asm["ptx"] and "bf16" not in compiled.asm["ptx"]


@pytest.mark.parametrize("capability", _capabilities())
@pytest.mark.parametrize("n_features", [2, 100])
def test_nearest_centers_compile(n_features: int, capability: int) -> None:
    from mmphate_gpu.ops.triton import nearest

    compiled = _compiled("assign_nearest", capability, {"D": n_features, **nearest.BLOCK})
    assert compiled.asm["cubin"] and compiled.metadata.shared <= SHARED_BYTES
    assert (".kind::tf32" if capability == 100 else ".f32.tf32.tf32") in compiled.asm["ptx"]


@pytest.mark.parametrize("capability", _capabilities())
@pytest.mark.parametrize("kernel", DECIDING)
@pytest.mark.parametrize("masked", [False, True])
def test_deciding_kernel_compiles(kernel: str, capability: int, masked: bool) -> None:
    """Float64 operations are not fused, as in the other twins."""
    compiled = _compiled(kernel, capability, {"P": 10, "MASKED": masked})
    ptx = compiled.asm["ptx"]
    assert compiled.asm["cubin"] and compiled.metadata.shared <= SHARED_BYTES
    assert "sub.rn.f64" in ptx and "mul.rn.f64" in ptx and "sqrt.rn.f64" in ptx
    assert "fma.rn.f64" not in ptx and ("div.rn.f64" in ptx) == (masked or kernel == "tile_entries")


@pytest.mark.parametrize("capability", _capabilities())
@pytest.mark.parametrize("dtype", AROUND_TYPES)
@pytest.mark.parametrize("kernel", AROUND)
def test_kernel_around_a_product_compiles(kernel: str, dtype: str, capability: int) -> None:
    """Kernels for blocks of both types compile. Numbers round to float32 first, and then to half precision."""
    of_block = dict.fromkeys(
        ("block", "scale", "inverse", *(["out"] if kernel == "tile_rows" else [])), AROUND_TYPES[dtype]
    )
    compiled = _compiled(kernel, capability, {"PANEL": 128}, **of_block)
    assert compiled.asm["cubin"] and compiled.metadata.shared <= SHARED_BYTES
    assert kernel == "tile_rows" or (
        "cvt.rn.f16" in compiled.asm["ptx"] and "cvt.rn.f16.f64" not in compiled.asm["ptx"]
    )


def test_every_launcher_has_the_arguments_of_its_portable_version() -> None:
    import inspect

    from mmphate_gpu.ops import assign_nearest, gaussian_product, tile_matmul  # noqa: F401
    from mmphate_gpu.ops.launch.twins import PORTABLE, TRITON

    of_tiles = ["tile_block", "tile_entries", "tile_matmul", "tile_reached", "tile_rows"]
    assert sorted(TRITON.launchers) == ["assign_nearest", "gaussian_product", *of_tiles]
    for name in sorted(TRITON.launchers):
        ours, theirs = (inspect.signature(op).parameters for op in (TRITON.launchers[name], PORTABLE[name]))
        assert list(ours) == list(theirs)
