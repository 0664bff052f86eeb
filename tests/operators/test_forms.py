"""What single forms hold and refuse. tests/conformance has what all of them do."""

from __future__ import annotations

import pickle

import pytest
import torch

from mmphate_gpu.affinities import Interslice
from mmphate_gpu.errors import InputError
from mmphate_gpu.operators import LazyAffinity, SparseAffinity, TiledAffinity
from mmphate_gpu.operators.assemble import assembled_bytes, entries_at_once
from mmphate_gpu.operators.lazy_keops import LazyKeopsAffinity
from mmphate_gpu.operators.tiles import tiles_bytes
from mmphate_gpu.ops.tile_layout import TILE
from mmphate_gpu.stages import _bytes

from ..conformance.forms import N_FEATURES, N_NODES, N_UNITS, long_points, make, make_long, parts, right_hand_side

CPU = torch.device("cpu")


@pytest.fixture(params=[torch.float32, torch.float64], ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


def test_sparse_bytes_are_as_predicted():
    """The choice between the forms relies on them."""
    intraslice, interslice = parts(torch.float32, CPU)
    operator = SparseAffinity.of_parts(intraslice, interslice)
    assert intraslice.nnz + int(interslice.counts.sum()) == operator.nnz
    assert operator.nbytes == assembled_bytes(operator.nnz, N_NODES, torch.float32)


def test_assembled_bytes_beyond_int32():
    """HAR with pitchfork-like units: 2.1e9 entries. 12 bytes each with int64 columns, 8 below 2^31."""
    assert assembled_bytes(2**31 - 1, 1000, torch.float32) == (2**31 - 1) * 8 + 1001 * 4
    assert assembled_bytes(2**31, 1000, torch.float32) == 2**31 * 12 + 1001 * 8


def test_more_entries_at_once_on_a_gpu():
    """A chunk on a GPU takes at most a sixteenth of its free memory, and is never smaller than on the CPU."""
    assert entries_at_once(5e8) == 2**24 and entries_at_once(1e3) == 2**18 and entries_at_once(2**25) == 2**21
    assert 26 * entries_at_once(5e8, 80 * 2**30) <= 5 * 2**30 < 26 * (entries_at_once(5e8, 80 * 2**30) + 1)
    assert entries_at_once(5e8, 2**30) == 2**24 and entries_at_once(5e8, 2**40) == 2**28


def test_interleave_is_a_hint_only(dtype, device):
    csr, block = make("sparse", dtype, device).csr, right_hand_side(N_NODES, 40, dtype=dtype, device=device)
    expected = SparseAffinity(csr) @ block
    for interleave in (2, N_UNITS, N_NODES, 1000):
        assert torch.equal(SparseAffinity(csr, interleave=interleave) @ block, expected)
    again = pickle.loads(pickle.dumps(SparseAffinity(csr, interleave=N_UNITS)))
    assert again.interleave == N_UNITS


def test_lazy_checks_its_parts():
    intraslice, interslice = parts(torch.float64, CPU)
    fewer = Interslice(interslice.unit_points[:, 1:], interslice.bandwidth, interslice.thresh)
    with pytest.raises(InputError, match=r"intraslice has shape \(92, 4\); accepted: \(88, 4\)"):
        LazyAffinity(intraslice, fewer)


@pytest.mark.parametrize("form", [LazyAffinity, LazyKeopsAffinity])
def test_lazy_stores_points_and_intraslice_only(form, dtype, device):
    """And, once they have been counted, how many entries each row has."""
    operator = form(*parts(dtype, device))
    expected = N_NODES * N_FEATURES * 8 + operator.intraslice.nnz * (4 + dtype.itemsize) + (N_NODES + 1) * 4
    assert operator.nbytes == expected
    operator.row_sums()
    assert operator.nbytes == expected + N_NODES * 8
    operator.to_dense()
    assert operator.nbytes == expected + N_NODES * 8


def test_tiles_bytes_are_as_predicted(device):
    operator = make_long("tiles", torch.float32, device)
    held = operator.tiles.numel() * operator.tiles.element_size()
    assert held == tiles_bytes(operator.layout.n_stored) == 2 * TILE**2 * operator.layout.n_stored
    on_diagonal = 9  # three of each of three units
    assert 2 * operator.layout.n_stored == operator.layout.n_active + on_diagonal
    lazy = LazyAffinity(operator.intraslice, operator.interslice)
    assert operator.nbytes == lazy.nbytes + held + 4 * operator.layout.n_active


def test_tiles_that_do_not_fit_are_refused(monkeypatch):
    long_parts = parts(torch.float32, CPU, long_points())
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", "100000")
    words = r"the affinity in [0-9]+ tiles needs .* KiB but cpu has 97.7 KiB available .*; storage=\"lazy\" stores none"
    with pytest.raises(InputError, match=words):
        TiledAffinity(*long_parts)


@pytest.mark.parametrize("form", ["lazy", "lazy fused", "tiles"])
def test_the_report_of_a_stage_counts_what_a_form_holds(form):
    """With all that is made at first use: counts, layout, tiles of points."""
    operator = make_long(form, torch.float32, CPU)
    operator @ torch.ones(operator.shape[0])
    operator.aggregate(torch.zeros(operator.shape[0], dtype=torch.int64), 1)
    assert _bytes(operator) == operator.nbytes + 8  # the bandwidth
