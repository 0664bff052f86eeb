"""Forms that multiply in half precision: how far products are off, and what stays exact."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from mmphate_gpu.affinities import Interslice, intraslice_affinity
from mmphate_gpu.operators import lazy_fused as lazy_fused_module
from mmphate_gpu.operators import tiles as tiles_module
from mmphate_gpu.ops import csr as csr_ops
from mmphate_gpu.ops import tile_block
from mmphate_gpu.ops.launch.twins import TRITON
from mmphate_gpu.slices import unit_major

from .forms import FORMS, HALF_FORMS, THRESH, assert_near, make, make_long, right_hand_side


@pytest.mark.parametrize("half_form", HALF_FORMS)
def test_products_in_half_precision_are_near(half_form, dtype, device):
    """Within the rounding of both factors, entry by entry, whatever a column's scale; zeros stay zeros."""
    exact, half = make_long("lazy", torch.float64, device), make_long(half_form, dtype, device)
    block = right_hand_side(exact.shape[0], 130, dtype=dtype, device=device)
    block *= torch.logspace(-30, 30, 130, dtype=torch.float64, device=device).to(dtype)
    block[:, 3] = 0
    expected, actual = exact.product(block.double()), (half @ block).double()
    assert not actual[:, 3].any()
    error = (actual - expected).abs()
    # Twice 2^-11 of the products' sizes, and 2^-22 where both meet.
    assert bool((error <= (2.0**-10 + 2.0**-20) * exact.product(block.double().abs())).all())
    # By columns, of their norm: median 2.2e-4, worst 6.3e-4 (one whose products nearly cancel).
    by_column = error.norm(dim=0) / expected.norm(dim=0).clamp_min(1e-300)
    assert 1e-5 < float(by_column.median()) < 5e-4


def test_tiles_multiply_what_they_show(dtype, device):
    """Products of half numbers are exact in float32: nothing is left but the rounding of its sums."""
    operator = make_long("tiles", dtype, device)
    block = right_hand_side(operator.shape[0], 33, dtype=torch.float16, device=device).to(dtype)
    # Measured: 2.1e-6 for sums of up to 90.
    assert_near(operator @ block, operator.to_dense().double() @ block.double(), 2e-5)
    assert_near(operator.row_sums(), operator.to_dense().double().sum(1), 2e-5)


def test_tiles_show_the_exact_pattern(dtype, device):
    operator = make_long("tiles", dtype, device)
    exact, shown = operator.to_csr(), operator.to_dense().double()
    expected = csr_ops.to_torch(exact).to_dense().double()
    assert torch.equal(shown > 0, expected > 0)
    error = (shown - expected).abs()
    assert float((error / expected.clamp_min(THRESH)).max()) <= 2.0**-11 * 1.001
    rows, columns = (part % 3 for part in torch.nonzero(error, as_tuple=True))
    assert torch.equal(rows, columns)  # and the intraslice part is exact


@pytest.mark.parametrize("half_form", HALF_FORMS)
def test_rows_of_the_half_precision_diffusion_sum_to_one(half_form, dtype, device):
    """D^-1 K as it is applied, for which degrees come from the same product; exact ones would leave 1e-4."""
    operator = make_long(half_form, dtype, device)
    ones = torch.ones(operator.shape[0], 1, dtype=torch.float64, device=device)
    sums = operator.product(ones)[:, 0] / operator.row_sums()
    assert float((sums - 1).abs().max()) < 1e-12
    assert float((operator.row_sums() / make_long("lazy", dtype, device).row_sums() - 1).abs().max()) > 1e-6


AFFINITY_GOAL, PRODUCT_GOAL = 5e-5, 5e-4


def test_errors_are_within_the_goals(form, dtype, device):
    """The 99th percentile of the errors of entries and sums; the error of a product with 130 random columns."""
    pairs = [(make("sparse", torch.float64, device), make(form, dtype, device))]
    if form in HALF_FORMS:
        pairs.append((make_long("lazy", torch.float64, device), make_long(form, dtype, device)))
    for exact, operator in pairs:
        labels = torch.arange(exact.shape[0], device=device) % 9
        expected, actual = ((form_.to_csr(), form_.aggregate(labels, 9)) for form_ in (exact, operator))
        # Measured: 2.9e-8 of entries, 8.4e-7 of sums of up to 24, 0 in float64. Tiles too return exact entries.
        for csr, exact_csr in zip(actual, expected, strict=True):
            assert torch.equal(csr.indices, exact_csr.indices)
            assert np.percentile((csr.values.double() - exact_csr.values).abs().cpu(), 99) <= AFFINITY_GOAL
        block = right_hand_side(exact.shape[0], 130, dtype=torch.float64, device=device)
        error = (operator.product(block) - exact.product(block)).norm() / exact.product(block).norm()
        # Measured: 7.6e-9, in half precision 1.9e-4 (short) and 2.5e-4 (long). A column by itself, whose products may
        # nearly cancel: up to 7.5e-4 and 5.0e-4.
        assert float(error) <= PRODUCT_GOAL


class _NoKernel:
    """Takes the place of a Triton kernel, and does nothing."""

    def __init__(self) -> None:
        self.started = 0

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        self.started += 1
        return lambda *arguments, **options: None


@pytest.mark.parametrize("half_form", HALF_FORMS)
def test_products_read_no_number_from_a_gpu(half_form, monkeypatch):
    """The Triton launchers run on fake tensors, which have shapes and no numbers: reading one raises."""
    pytest.importorskip("triton")
    from mmphate_gpu.ops.triton import blocks, products

    operator = make_long(half_form, torch.float32, torch.device("cpu"))
    block = right_hand_side(operator.shape[0], 5, dtype=torch.float32, device=operator.device)
    first, kernel = operator @ block, _NoKernel()
    name, module = ("tile_matmul", tiles_module) if half_form == "tiles" else ("gaussian_product", lazy_fused_module)
    monkeypatch.setattr(products, f"{name}_kernel", kernel)
    monkeypatch.setattr(module, name, TRITON.launchers[name])
    for around in ("tile_block", "tile_rows"):
        monkeypatch.setattr(blocks, f"{around}_kernel", kernel)
        monkeypatch.setattr(tile_block, around, TRITON.launchers[around])
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:  # `product` and `@` would turn it off
        fake_block = fake.from_tensor(block)
        assert operator._matmul(fake_block).shape == first.shape and kernel.started == 3
        with pytest.raises(DataDependentOutputException):  # the mode is on
            float(fake_block.sum())


def test_without_an_entry_there_is_no_tile(dtype, device):
    """Slices all out of reach of one another."""
    stack = 100.0 * torch.arange(10, dtype=torch.float64, device=device)[:, None, None].expand(10, 2, 3)
    intraslice = intraslice_affinity(stack, thresh=THRESH, dtype=dtype)
    bandwidth = torch.tensor(1.0, dtype=torch.float64, device=device)
    interslice = Interslice(unit_major(stack), bandwidth, THRESH)
    assert interslice.tile_layout.n_active == 0
    for half_form in HALF_FORMS:
        operator = FORMS[half_form](intraslice, interslice)
        assert_near(operator @ torch.eye(20, dtype=dtype, device=device), operator.to_dense(), 0)
        assert_near(operator.row_sums(), operator.to_dense().sum(1), 1e-6)
