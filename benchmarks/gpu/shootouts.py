"""A step of `first_light`: ways to the same result side by side, where a number from a CPU decides between them."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import torch

from benchmarks.gpu.parts import Work, run
from benchmarks.measure.timer import once
from mmphate_gpu.runtime.optional import available

# Rows of square matrices: the projected problem of block Krylov, the largest components of plain SVD, landmarks.
ROWS = {True: (50, 200), False: (550, 1000, 1672, 4000)}
LANDMARKS = {True: (200, 400), False: (1000, 1500, 2000, 3000, 4000)}
# Columns of the basis, of a block, and nodes of HAR.
SKINNY = {True: (55, 11, 20_000), False: (550, 110, 487_680)}
RANDOM = {True: (20_000, 11), False: (487_680, 110)}
# Rows, columns, and entries of a row of a matrix of transitions: those of the suite and of HAR.
GRAMS = {True: {"small": (3000, 300, 20)}, False: {"suite": (48_480, 4000, 170), "HAR": (487_680, 4000, 65)}}
MOST_SECONDS = 8.0  # a call that takes longer is not repeated
MOST_JACOBI = 1700  # rows: Jacobi's method, torch's default for singular values on CUDA, takes tens of seconds for 4000


def parts(options: argparse.Namespace) -> Iterator[tuple[str, Work]]:
    small, device = options.small, options.device
    for n in ROWS[small]:
        for solver in ("eigvalsh", "eigh", "svdvals"):
            yield f"{solver} of {n}", functools.partial(decomposition, solver, n, device)
    for name, shape in GRAMS[small].items():
        yield f"Gram matrix, {name}", functools.partial(gram, *shape, device)
    yield "skinny product", functools.partial(skinny, *SKINNY[small], device)
    yield "random block", functools.partial(random_block, *RANDOM[small], device)
    yield "graph capture", functools.partial(capture, device)
    for n in LANDMARKS[small]:
        yield f"entropy of {n} landmarks", functools.partial(entropy, n, device)


def timed(ways: Mapping[str, Callable[[], Any]], device: torch.device) -> dict[str, Any]:
    """Seconds of the first call of each way and of the faster of two more, or the exception that it raised."""
    results: dict[str, Any] = {}
    for name, way in ways.items():
        try:
            seconds = [once(way, device)]
            if seconds[0] < MOST_SECONDS:
                seconds += [once(way, device) for _ in range(2)]
            results[name] = {"cold_seconds": seconds[0], "seconds": min(seconds[1:] or seconds)}
        # A failure of one way says nothing about the others. A fault of the device shows at the end of the part.
        except Exception as error:
            results[name] = {"fault": f"{type(error).__name__}: {error}"[:500]}
    return results


def decomposition(solver: str, n: int, device: torch.device) -> dict[str, Any]:
    """Decompositions by torch with each of its drivers, and by CuPy."""
    square = torch.randn(n, n, generator=torch.Generator().manual_seed(n), dtype=torch.float64).to(device)
    matrix = square if solver == "svdvals" else square @ square.T / n
    ways = {"torch": lambda: getattr(torch.linalg, solver)(matrix)}
    if solver == "svdvals":
        ways["Gram matrix and eigvalsh"] = lambda: torch.linalg.eigvalsh(matrix.T @ matrix).clamp_min(0).sqrt()
    if solver == "svdvals" and device.type == "cuda":
        ways |= {
            f"torch, {driver}": lambda driver=driver: torch.linalg.svdvals(matrix, driver=driver)
            for driver in ("gesvd", "gesvda")
        }
        if n > MOST_JACOBI:
            del ways["torch"]
    if device.type == "cuda" and available("cupy"):
        import cupy

        name = {"svdvals": "svd"}.get(solver, solver)
        options = {"compute_uv": False} if name == "svd" else {}
        ways["CuPy"] = lambda: getattr(cupy.linalg, name)(cupy.from_dlpack(matrix), **options)
    # The part counts as done without CuPy, because torch's solvers were measured.
    lacks = {"lacks": "CuPy is not installed"} if device.type == "cuda" and not available("cupy") else {}
    return {**timed(ways, device), **lacks}


def gram(n_rows: int, n_columns: int, per_row: int, device: torch.device) -> dict[str, Any]:
    """The library's way, torch's sparse product, and dense blocks in float64, with the products that each makes."""
    from mmphate_gpu.linalg.sparse_gram import sparse_gram
    from mmphate_gpu.ops.csr import Csr, to_torch

    generator = torch.Generator().manual_seed(0)
    spread = torch.randint(0, n_columns - per_row, (n_rows, per_row), generator=generator).sort(1).values
    columns = spread + torch.arange(per_row)  # each once in a row
    indptr = torch.arange(n_rows + 1) * per_row
    values = torch.rand(n_rows * per_row, generator=generator, dtype=torch.float64)
    parts = (part.to(device) for part in (indptr.int(), columns.flatten().int(), values))
    csr = Csr(*parts, (n_rows, n_columns))
    weights = torch.ones(n_rows, dtype=torch.float64, device=device)

    def sparse() -> torch.Tensor:
        rows = to_torch(csr)
        return torch.sparse.mm(rows.t().to_sparse_csr(), rows)

    def dense() -> torch.Tensor:
        total, step = torch.zeros(n_columns, n_columns, dtype=torch.float64, device=device), 2**14
        places = torch.repeat_interleave(torch.arange(step, device=device), per_row)
        for first in range(0, n_rows, step):
            part = slice(first * per_row, min(n_rows, first + step) * per_row)
            places_of_part = csr.indices[part].long()
            block = torch.zeros(step, n_columns, dtype=torch.float64, device=device)
            block[places[: places_of_part.numel()], places_of_part] = csr.values[part]
            total.addmm_(block.T, block)
        return total

    ways = {"library": lambda: sparse_gram(csr, weights), "torch.sparse.mm": sparse, "dense blocks": dense}
    products = {"sparse_products": n_rows * per_row**2, "dense_flop": 2 * n_rows * n_columns**2}
    return {**timed(ways, device), **products}


def skinny(wide: int, narrow: int, n_rows: int, device: torch.device) -> dict[str, Any]:
    """The inner products of orthonormalization, in one product and in pieces that are summed after."""
    basis = torch.randn(n_rows, wide, device=device, dtype=torch.float64)
    block = torch.randn(n_rows, narrow, device=device, dtype=torch.float64)
    pieces = 32
    rows = n_rows // pieces * pieces

    def split() -> torch.Tensor:
        parts = (matrix[:rows].view(pieces, rows // pieces, -1) for matrix in (basis, block))
        left, right = parts
        return torch.bmm(left.mT, right).sum(0).addmm_(basis[rows:].T, block[rows:])

    flop = 2 * wide * narrow * n_rows
    ways = {
        "one product": lambda: basis.T @ block,
        f"{pieces} pieces": split,
        "back": lambda: basis @ (basis.T @ block),
    }
    return {**timed(ways, device), "flop": flop, "bytes": basis.nbytes + block.nbytes}


def random_block(n_rows: int, columns: int, device: torch.device) -> dict[str, Any]:
    """A random start: from the host's generator and copied, from bits of the host, and from the device's generator."""
    n = n_rows * columns
    host = torch.Generator().manual_seed(0)
    on_device = torch.Generator(device).manual_seed(0)

    def bits() -> torch.Tensor:
        """Signs, 62 from each integer."""
        words = torch.randint(-(2**62), 2**62, (-(-n // 62),), generator=host).to(device)
        shifts = torch.arange(62, device=device)
        return ((words[:, None] >> shifts) & 1).flatten()[:n].double().mul_(2).sub_(1)

    ways = {
        "normal on the host": lambda: torch.randn(n, generator=host, dtype=torch.float64).to(device),
        "uniform on the host": lambda: torch.rand(n, generator=host, dtype=torch.float64).to(device),
        "signs from the host's bits": bits,
        "normal on the device": lambda: torch.randn(n, generator=on_device, dtype=torch.float64, device=device),
    }
    return {**timed(ways, device), "numbers": n}


def capture(device: torch.device) -> dict[str, Any]:
    """Capture a graph with gigabytes in the allocator's cache: torch's context empties it, a plain capture keeps it."""
    if device.type == "cpu":
        return {"missing": "a CPU has no graphs"}
    numbers = torch.zeros(1024, device=device)
    side = torch.cuda.Stream(device)

    def fill_cache() -> None:
        kept = [torch.empty(2**28, dtype=torch.uint8, device=device) for _ in range(16)]
        del kept

    def by_context() -> None:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
            numbers.add_(1)
        graph.replay()

    def by_hand() -> None:
        graph = torch.cuda.CUDAGraph()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            graph.capture_begin(capture_error_mode="thread_local")
            numbers.add_(1)
            graph.capture_end()
        graph.replay()

    results = {}
    for name, way in (("torch.cuda.graph", by_context), ("by hand", by_hand)):
        fill_cache()
        results |= timed({name: way}, device)
        results |= timed({f"filling the cache after {name}": fill_cache}, device)
    return results


def entropy(n: int, device: torch.device) -> dict[str, Any]:
    """All singular values against a sample, on an operator of one component; t should be the same by both."""
    from mmphate_gpu.diffusion import entropy as module

    operator = ring_operator(n, device)
    results, estimates = {}, {}
    for name, limit in (("exact", 10**9), ("sampled", 0)):

        def way(name: str = name) -> None:
            estimates[name] = module.entropy_with_error(operator)

        with mock.patch.object(module, "SAMPLE_ABOVE", {device.type: limit}):
            results |= timed({name: way}, device)
    ranges = {name: [*estimate.possible, float(estimate.error.max())] for name, estimate in estimates.items()}
    return {**results, "t_low, t_high, error": ranges}


def ring_operator(n: int, device: torch.device) -> torch.Tensor:  # (n, n) float64
    """Diffusion on points of a noisy ring with a bridge across: rows sum to 1, and singular values fall slowly."""
    angle = torch.linspace(0, 2 * torch.pi, n + 1, dtype=torch.float64)[:-1]
    noise = torch.randn(n, 2, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    points = torch.stack([angle.cos(), (2 * angle).sin()], 1) + 0.02 * noise
    affinity = (-(torch.cdist(points, points) / 0.08).square()).exp()
    return (affinity / affinity.sum(1, keepdim=True)).to(device)


if __name__ == "__main__":
    sys.exit(run(__doc__.splitlines()[0], parts))
