"""The C++ twin of the random_csr product against the portable version."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from mmphate_gpu.ops.launch.twins import CPP, PORTABLE

from .cases import MATRICES, STORAGE, normal, random_csr
from .instruction_sets import needs_cpp, with_one_and_two_threads

pytestmark = needs_cpp


WIDTHS = (1, 3, 15, 16, 17, 110, 111, 130)
INTERLEAVES = (1, 3, 7)


def block_of(n: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    return normal(n, width).to(dtype)


@pytest.mark.parametrize("block_dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("index", "value"), STORAGE, ids=str)
def test_csr_matmul(index, value, block_dtype, isa):
    for shape in MATRICES:
        parts = random_csr(*shape, value=value, index=index)
        for width in WIDTHS:
            block = block_of(shape[1], width, block_dtype)
            result = CPP["csr_matmul"](*parts, block, 1)
            expected = PORTABLE["csr_matmul"](*parts[:2], parts[2].double(), block.double(), 1)
            assert result.dtype == block_dtype and result.shape == (shape[0], width)
            # Sums of up to 700 products of standard normal numbers with numbers below 1, by a float64 sum. Measured:
            # 3e-14 and 3.3e-5.
            tolerance = 1e-12 if block_dtype == torch.float64 else 1e-4
            torch.testing.assert_close(result.double(), expected, rtol=0, atol=tolerance)
            for interleave in INTERLEAVES[1:]:
                assert torch.equal(CPP["csr_matmul"](*parts, block, interleave), result)


@pytest.mark.parametrize(("n_rows", "n_columns", "width"), [(9, 3000, 130), (200, 70_000, 16), (2, 150_000, 1)])
def test_csr_matmul_in_bands(n_rows, n_columns, width, isa):
    """The block has more rows than fit into the second-level cache, so the columns are taken in bands."""
    parts = random_csr(n_rows, n_columns, value=torch.float64, index=torch.int32, density=0.01)
    block = block_of(n_columns, width, torch.float64)
    result = CPP["csr_matmul"](*parts, block, 1)
    # Sums of up to 150,000 products. Measured: 4e-13.
    torch.testing.assert_close(result, PORTABLE["csr_matmul"](*parts, block, 1), rtol=0, atol=5e-12)
    for interleave in INTERLEAVES[1:]:
        assert torch.equal(CPP["csr_matmul"](*parts, block, interleave), result)


@pytest.mark.parametrize("width", [1, 3, 17, 130])
def test_csr_matmul_without_entries(width, isa):
    """A matrix without entries, rows or columns gives zeros of the right shape."""
    for n_rows, n_columns in ((5, 7), (0, 7), (5, 0)):
        for index in (torch.int32, torch.int64):
            parts = (torch.zeros(n_rows + 1, dtype=index), torch.zeros(0, dtype=index), torch.zeros(0))
            for dtype in (torch.float32, torch.float64):
                block = torch.full((n_columns, width), math.nan, dtype=dtype)
                for interleave in INTERLEAVES:
                    result = CPP["csr_matmul"](*parts, block, interleave)
                    assert result.dtype == dtype and torch.equal(result, torch.zeros(n_rows, width, dtype=dtype))


def test_csr_matmul_reads_no_other_row(isa):
    """The last vector of a row of the block extends into the next row, whose numbers have no effect, not even NaN."""
    n = 40
    even = torch.arange(0, n, 2, dtype=torch.int32)
    parts = torch.tensor([0, n // 2], dtype=torch.int32), even, torch.ones(n // 2, dtype=torch.float64)
    for width in WIDTHS:
        block = block_of(n, width, torch.float64)
        clean = CPP["csr_matmul"](*parts, block, 1)
        block[1::2] = math.nan
        assert torch.equal(CPP["csr_matmul"](*parts, block, 1), clean)


@pytest.mark.parametrize("density", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("n_columns", [70, 1500])
def test_csr_matmul_of_rows_that_go_together(density, n_columns, isa):
    """Rows with similar columns are multiplied together, other rows one by one, with the same bits.

    If ``interleave`` is the number of rows, all rows are multiplied one by one.
    """
    n_rows = 90
    indptr, indices, values = random_csr(n_rows, n_columns, value=torch.float32, index=torch.int32, density=density)
    for width, dtype in itertools.product((17, 110, 111), (torch.float32, torch.float64)):
        block = block_of(n_columns, width, dtype)
        alone = CPP["csr_matmul"](indptr, indices, values, block, n_rows)
        assert torch.equal(CPP["csr_matmul"](indptr, indices, values, block, 1), alone)
        assert torch.equal(CPP["csr_matmul"](indptr, indices, values, block, 3), alone)
        # A missing entry multiplies nothing, not even infinity or NaN.
        block[n_columns // 2], block[-1, -1] = math.inf, math.nan
        expected = PORTABLE["csr_matmul"](indptr, indices, values, block, 1)
        result = CPP["csr_matmul"](indptr, indices, values, block, 1)
        assert torch.equal(result.isnan(), expected.isnan()) and torch.equal(result.isinf(), expected.isinf())
        assert bool(result[::7].eq(0).all())


def test_csr_matmul_of_a_column_named_again_and_again(isa):
    """A row may have more entries than the matrix has columns, both in rows that are multiplied together and alone."""
    n_rows, n_entries = 17, 500
    indptr = torch.arange(n_rows + 1) * n_entries
    indices, values = torch.zeros(n_rows * n_entries, dtype=torch.int64), torch.ones(n_rows * n_entries)
    for width in (5, 40):
        result = CPP["csr_matmul"](indptr, indices, values, torch.ones(1, width, dtype=torch.float64), 1)
        assert bool((result == n_entries).all())


def test_csr_matmul_of_views(isa):
    parts = random_csr(90, 90, value=torch.float64, index=torch.int32)
    block = block_of(40, 90, torch.float64).T
    assert torch.equal(CPP["csr_matmul"](*parts, block, 1), CPP["csr_matmul"](*parts, block.contiguous(), 1))


def test_csr_matmul_has_the_same_bits_with_more_threads(isa):
    parts = random_csr(700, 3000, value=torch.float32, index=torch.int32)
    for width, dtype in itertools.product((1, 17, 110), (torch.float32, torch.float64)):
        block = block_of(3000, width, dtype)
        with_one_and_two_threads(lambda block=block: (CPP["csr_matmul"](*parts, block, 3),))
