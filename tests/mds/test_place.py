"""Placement of new points among the fitted points."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from mmphate_gpu import MMPHATE, InputError, Placement, as_trace
from mmphate_gpu.mds.place import place

from .distance_cases import RNG


def test_place_is_a_mean_with_the_weights_above_thresh(device):
    rng = RNG(0)
    new, fitted, targets = (torch.from_numpy(rng.normal(size=shape)) for shape in ((2, 5, 3), (2, 30, 3), (2, 30, 2)))
    bandwidth = torch.tensor(0.9, dtype=torch.float64)
    result = place(*(part.to(device) for part in (new, fitted, targets, bandwidth)), thresh=1e-2).cpu().numpy()
    for unit in range(2):
        weights = np.exp(-((cdist(new[unit], fitted[unit]) / 0.9) ** 2))
        weights[weights < 1e-2] = 0
        wanted = weights @ targets[unit].numpy() / weights.sum(1, keepdims=True)
        np.testing.assert_allclose(result[unit], wanted, rtol=0, atol=1e-13)


def test_a_point_beyond_all_fitted_points_is_placed_at_the_nearest():
    """All its weights are below thresh, and the result is not 0 / 0."""
    fitted = torch.tensor([[[0.0], [1.0]]], dtype=torch.float64)
    targets = torch.tensor([[[5.0], [7.0]]], dtype=torch.float64)
    far = torch.tensor([[[1e6], [-1e6]]], dtype=torch.float64)
    result = place(far, fitted, targets, torch.tensor(1.0, dtype=torch.float64), thresh=1e-4)
    assert result.flatten().tolist() == [7, 5]


def test_place_rows_do_not_depend_on_one_another():
    rng = RNG(0)
    new, fitted, targets = (torch.from_numpy(rng.normal(size=shape)) for shape in ((1, 9, 3), (1, 30, 3), (1, 30, 2)))
    bandwidth = torch.tensor(0.9, dtype=torch.float64)
    whole = place(new, fitted, targets, bandwidth, thresh=1e-4)
    single = torch.cat([place(row, fitted, targets, bandwidth, thresh=1e-4) for row in new.split(1, dim=1)], 1)
    # Matrix products of one row and of nine may differ in the last bits. Measured: 2e-16.
    torch.testing.assert_close(whole, single, rtol=0, atol=1e-14)


def test_masked_points_are_compared_over_common_samples(device):
    """By hand: of two samples one is common, so squared distances count twice; the third point shares none."""
    nan = float("nan")
    new = torch.tensor([[[0.0, nan], [nan, nan], [nan, 1.0]]], dtype=torch.float64)
    fitted = torch.tensor([[[1.0, nan], [2.0, nan], [nan, nan]]], dtype=torch.float64)
    targets = torch.tensor([[[5.0], [7.0], [1e9]]], dtype=torch.float64)
    parts = (part.to(device) for part in (new, fitted, targets, torch.tensor(2.0, dtype=torch.float64)))
    result = place(*parts, thresh=1e-4, masked=True).flatten().cpu()
    near, far = math.exp(-2 / 4), math.exp(-8 / 4)
    assert float(result[0]) == pytest.approx((5 * near + 7 * far) / (near + far), rel=1e-14)
    assert result[1:].isnan().all()


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("n_pca", [None, 3])
def test_a_placement_that_was_saved_places_alike(tmp_path, n_pca):
    walk = np.random.default_rng(0).normal(size=(30, 3, 6)).cumsum(0)
    placement = MMPHATE(n_pca=n_pca, random_state=0, n_landmark=20, device="cpu").fit(walk[:27]).placement_
    n_units, n_samples = walk.shape[1:]
    assert repr(placement) == f"Placement(27 slices, {n_units} units, {n_samples} samples; 2 components)"
    placement.save(tmp_path / "p.npz")
    again = Placement.load(tmp_path / "p.npz")
    assert (again.axes is None) == (n_pca is None) and (again.n_samples, again.normalize) == (6, True)
    new = as_trace(walk[27:])
    assert torch.equal(again.coordinates(new), placement.coordinates(new))
    with pytest.raises(InputError, match="exists"):
        placement.save(tmp_path / "p.npz")
    with pytest.raises(InputError, match=r"path='p.npy' ends in '.npy'; accepted: '.npz'"):
        placement.save("p.npy")


def entries_of(change: dict) -> dict:
    points, targets = np.zeros((2, 5, 3)), np.zeros((2, 5, 2))
    numbers = {"bandwidth": np.array(1.0), "thresh": np.array(1e-4), "n_samples": np.array(3)}
    flags = {"normalize": np.array(True), "masked": np.array(False)}
    entries = {"points": points, "targets": targets, **numbers, **flags} | change
    return {name: value for name, value in entries.items() if value is not None}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"thresh": None}, "it holds .*; accepted: an .npz written by Placement.save"),
        ({"other": np.zeros(2)}, "it holds .*; accepted: an .npz written by Placement.save"),
        ({"points": np.zeros((2, 5))}, r"points has shape \(2, 5\); accepted: three axes"),
        ({"targets": np.zeros((2, 4, 2))}, r"targets has shape \(2, 4, 2\); accepted: \(2, 5, 2\)"),
        ({"bandwidth": np.zeros(2)}, r"bandwidth has shape \(2,\); accepted: \(\)"),
        ({"points": np.zeros((2, 5, 3), np.float32)}, "points has dtype float32; accepted: float64"),
        ({"mean": np.zeros(7), "loadings": np.zeros((6, 3))}, r"loadings has shape \(6, 3\); accepted: \(7, 3\)"),
    ],
)
def test_files_that_hold_no_placement_are_refused(tmp_path, change, words):
    np.savez(tmp_path / "p.npz", **entries_of(change))
    with pytest.raises(InputError, match=rf"p\.npz.*{words}"):
        Placement.load(tmp_path / "p.npz")


def test_damaged_files_are_refused(tmp_path):
    np.savez(tmp_path / "p.npz", **entries_of({}))
    assert Placement.load(tmp_path / "p.npz").points.shape == (2, 5, 3)
    whole = (tmp_path / "p.npz").read_bytes()
    (tmp_path / "p.npz").write_bytes(whole[:400])
    for name in ("p.npz", "absent.npz"):
        with pytest.raises(InputError, match=name):
            Placement.load(tmp_path / name)
