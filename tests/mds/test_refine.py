"""Refinement: the forces by hand, what stays, and what is kept after it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmphate_gpu import MMPHATE, as_trace, neighborhood_preservation
from mmphate_gpu.mds import refine
from mmphate_gpu.mds.refine import n_neighbors, refined, refined_nodes
from mmphate_gpu.neighbors import kneighbors

from .distance_cases import RNG

OPTIONS = {"n_landmark": 40, "random_state": 0, "device": "cpu"}


def walk(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(RNG(seed).normal(size=shape)).cumsum(1)


def case(n_units: int = 3, n_slices: int = 60, n_components: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Places (M, S, C) beside those of the states, and the five nearest slices by the states (M, S, 5)."""
    states = walk(n_units, n_slices, 4)
    places = states[..., :n_components] + 0.5 * torch.from_numpy(RNG(1).normal(size=(n_units, n_slices, n_components)))
    return places, kneighbors(states, 5)[1]


# ---------------------------------------------------------------- the formula


def by_the_formula(places: np.ndarray, neighbors: np.ndarray) -> np.ndarray:
    """Step 14 of docs/method.md, node by node."""
    golden = (np.sqrt(5) - 1) / 2
    n_units, n_slices, k = neighbors.shape
    near = [[[places[u, j] for j in neighbors[u, i]] for i in range(n_slices)] for u in range(n_units)]
    spacing = np.linalg.norm(np.array(near) - places[:, :, None], axis=-1).mean(-1)
    unit = 2 * np.sort(spacing, axis=None)[(spacing.size - 1) // 2]
    start = places / unit
    y, rank = start.copy(), 0
    for sweep in range(30):
        force = 0.3 * (start - y)
        shifts = [1 + int(np.floor((n_slices - 1) * ((rank + r) * golden % 1))) for r in range(1, 6)]
        rank += 5
        for u in range(n_units):
            for i in range(n_slices):
                for j in neighbors[u, i]:
                    q = np.sum((y[u, j] - y[u, i]) ** 2)
                    force[u, i] += (y[u, j] - y[u, i]) / (np.sqrt(q) * (1 + np.sqrt(q))) / k
                for shift in shifts:
                    away = y[u, i] - y[u, i - shift]
                    q = np.sum(away**2)
                    pushed = away / ((0.001 + q) * (1 + np.sqrt(q)))
                    force[u, i] += pushed * min(1, 4 / np.linalg.norm(pushed)) / 5
        y += (1 - sweep / 30) * force
    return y * unit


@pytest.mark.parametrize("n_components", [1, 2, 3])
def test_the_sweeps_are_those_of_the_formula(n_components, device):
    places, neighbors = case(2, 12, n_components)
    wanted = by_the_formula(places.numpy(), neighbors.numpy())
    # Other orders of sums, whose rounding each sweep enlarges. Measured: 1e-11.
    actual = refined(places.to(device), neighbors.to(device))
    np.testing.assert_allclose(actual.cpu().numpy(), wanted, rtol=0, atol=1e-8)
    assert np.abs(wanted - places.numpy()).max() > 0.01


def test_two_nodes_by_hand():
    """Each is the other's neighbor, and the only one that can repel: their mean stays, and they are at one distance."""
    places = torch.tensor([[[0.0], [1.0]]], dtype=torch.float64)
    first, second = refined(places, torch.tensor([[[1], [0]]]))[0, :, 0].tolist()
    assert first + second == pytest.approx(1, abs=1e-14) and first < 0  # they repel more than they attract


# ---------------------------------------------------------------- what does not change


def test_units_do_not_mix():
    """The forces are those within a unit. Equal units have the unit of distance of each of them."""
    places, neighbors = case(1)
    alone = refined(places, neighbors)
    mirrored = -places.flip(0)
    both = refined(torch.cat([places, mirrored]), torch.cat([neighbors, neighbors]))
    torch.testing.assert_close(both, torch.cat([alone, -alone]), rtol=0, atol=1e-12)  # measured: 0


@pytest.mark.parametrize("angle", [0.3, 2.0])
@pytest.mark.parametrize("scale", [1e-150, 1e-3, 1e150])
def test_rotation_shift_and_scale_go_through(angle, scale):
    places, neighbors = case()
    turn = torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], dtype=torch.float64)
    moved = refined(scale * (places @ turn + 3), neighbors) / scale
    # Nearly equal places attract and repel as distant ones do, so each sweep enlarges rounding. Measured: 3e-7.
    torch.testing.assert_close(moved, refined(places, neighbors) @ turn + 3, rtol=0, atol=1e-5)


def test_equal_places_and_a_single_slice_stay():
    _, neighbors = case()
    equal = torch.full((3, 60, 2), 0.1, dtype=torch.float64)
    assert torch.equal(refined(equal, neighbors), equal)
    row = walk(1, 4, 2)[0]
    assert torch.equal(refined_nodes(row, walk(1, 4, 3), 5), row)  # one slice of four units


def test_few_slices_have_fewer_neighbors():
    assert [n_neighbors(10, n) for n in (2, 3, 12, 400, 1800, 2000, 10**6)] == [0, 1, 4, 5, 9, 10, 10]
    states, places = walk(20, 3, 4), walk(20, 3, 2).flatten(0, 1)
    assert torch.equal(refined_nodes(places, states, 10), refined_nodes(places, states, 5))
    assert not torch.equal(refined_nodes(places, states, 5), refined_nodes(places, states, 4))
    assert torch.equal(refined_nodes(places[:6], states[:2], 10), places[:6])  # a third of two slices is none


def test_float32_is_float64_up_to_rounding():
    places, neighbors = case(3, 400)
    wanted, single = refined(places, neighbors), refined(places.float(), neighbors)
    assert single.dtype == torch.float32
    # Each sweep enlarges rounding, as above. Measured: 0.08 of the moves, by their root mean square.
    assert (single - wanted).square().mean() < 0.1**2 * (wanted - places).square().mean()


def test_chunks_and_threads_change_no_bit(monkeypatch):
    places, neighbors = case(5, 8003)  # torch shares an op of more than 32,768 entries between threads
    wanted, threads = refined(places, neighbors), torch.get_num_threads()
    try:
        torch.set_num_threads(2 if threads == 1 else 1)
        assert torch.equal(refined(places, neighbors), wanted)
    finally:
        torch.set_num_threads(threads)
    monkeypatch.setattr(refine, "NODES_IN_CACHE", 1)
    assert torch.equal(refined(places, neighbors), wanted)


# ---------------------------------------------------------------- missing nodes


def test_nodes_without_a_place_touch_no_other():
    """The others move as if each force of such a node were 0, and as if a node that lacks neighbors had the rest."""
    places, neighbors = case()
    places[1, 7] = torch.nan
    neighbors[1][neighbors[1] == 7] = 0
    neighbors[1, 7] = 7
    moved = refined(places, neighbors)
    assert moved[1, 7].isnan().all() and int(moved.isnan().sum()) == 2
    places[1, 7] = 1e3  # so far away that it repels nobody
    torch.testing.assert_close(refined(places, neighbors)[0], moved[0], rtol=0, atol=0.05)


def test_a_masked_fit_keeps_its_missing_nodes():
    trace = RNG(0).normal(size=(30, 4, 10)).cumsum(0)
    present = np.ones(trace.shape, bool)
    present[5, 1], present[3, 2], present[9:12, 0, 4:] = False, False, False
    masked = as_trace(np.where(present, trace, 0), mask=present)
    with pytest.warns(UserWarning, match="2 of 120 nodes"):
        before = MMPHATE(**OPTIONS).fit_transform(masked)
    with pytest.warns(UserWarning, match="2 of 120 nodes"):
        after = MMPHATE(**OPTIONS, refine_knn=5).fit_transform(masked)
    assert torch.equal(torch.isnan(before), torch.isnan(after)) and int(torch.isnan(after).sum()) == 4
    assert not torch.allclose(before, after, equal_nan=True)


# ---------------------------------------------------------------- what it is for


def test_a_fit_keeps_more_of_the_nearest_slices():
    """A path that returns to itself, with few landmarks: its slices lie on chords until they are refined."""
    angle = torch.linspace(0, 40 * np.pi, 400, dtype=torch.float64)[:, None, None]
    trace = torch.cos(angle * torch.tensor([1, np.sqrt(2)]).view(2, 1) + torch.linspace(0, 3, 12).double())
    op = MMPHATE(n_components=2, gamma=1, landmarks="stratified", **OPTIONS).fit(trace)
    before = op.embedding_
    after = op.set_params(refine_knn=10).fit(trace).embedding_
    (_, few), (_, more) = (neighborhood_preservation(trace, places, 10) for places in (before, after))
    assert more > few + 0.05
    moved = (after - before).square().mean().sqrt() / (before - before.mean(0)).square().mean().sqrt()
    assert moved < 0.1


def test_without_it_no_bit_changes():
    trace = RNG(0).normal(size=(30, 4, 10)).cumsum(0)
    op = MMPHATE(**OPTIONS).fit(trace)
    plain = op.transitions_ @ torch.from_numpy(np.asarray(op._stages.result("mds").coordinates)).numpy()
    np.testing.assert_allclose(op.embedding_, plain, rtol=0, atol=1e-12)  # two libraries add up in other orders
    assert np.array_equal(op.embedding_, MMPHATE(**OPTIONS, refine_knn=0).fit_transform(trace))
