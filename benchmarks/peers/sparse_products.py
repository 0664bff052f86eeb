"""Sparse products: SciPy (one thread), torch (MKL on a CPU, cuSPARSE on a GPU), and CuPy (cuSPARSE)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.peers import Peer, Result

if TYPE_CHECKING:
    from benchmarks.peers.comparisons import Product


def scipy_float64(inputs: Product) -> Callable[[], Result]:
    matrix, columns = inputs.in_scipy("float64"), inputs.block.numpy()
    return lambda: Result(matrix @ columns)


def scipy_float32(inputs: Product) -> Callable[[], Result]:
    matrix, columns = inputs.in_scipy("float32"), inputs.block32.numpy()
    return lambda: Result(matrix @ columns)


def torch_float64(inputs: Product) -> Callable[[], Result]:
    matrix, columns = inputs.in_torch("float64"), inputs.block
    return lambda: Result(matrix @ columns)


def torch_float32(inputs: Product) -> Callable[[], Result]:
    matrix, columns = inputs.in_torch("float32"), inputs.block32
    return lambda: Result(matrix @ columns)


def cupy_float32(inputs: Product) -> Callable[[], Result]:
    import cupy
    import torch

    matrix, columns = inputs.in_cupy(), cupy.from_dlpack(inputs.block32)
    return lambda: Result(torch.from_dlpack(matrix @ columns))


PEERS = (
    Peer(
        "scipy",
        {"product": {"float64": scipy_float64, "float32": scipy_float32}},
        ("scipy.sparse",),
        ("scipy",),
        devices=("cpu",),
    ),
    Peer("torch", {"product": {"float64": torch_float64, "float32": torch_float32}}, ("torch",)),
    Peer(
        "cupy", {"product": {"float32": cupy_float32}}, ("cupy",), ("cupy-cuda12x", "cupy-cuda13x"), devices=("cuda",)
    ),
)
