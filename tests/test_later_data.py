"""Later data in a fitted picture: later epochs, another run, a finer grid of time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mmphate_gpu import MMPHATE, as_trace

E, T, M, P = 12, 6, 5, 14


def run(phase: float = 0.0, n_timesteps: int = T, n_epochs: int = E) -> Any:
    """Units that move along smooth curves, by epoch and by time step, each sample with a phase of its own."""
    rng = np.random.default_rng(0)
    starts, rates = rng.uniform(0, 6, (2, M, P))
    epoch = np.arange(n_epochs)[:, None, None, None] / E
    step = np.linspace(0, 1, n_timesteps)[:, None, None]
    values = np.sin(starts + rates * (epoch + phase) + 2 * step) + 0.3 * step * starts
    return as_trace(values, timestep=np.linspace(0, 1, n_timesteps))


@pytest.fixture(scope="module")
def op() -> MMPHATE:
    return MMPHATE(n_landmark=60, random_state=0, device="cpu").fit(run())


def placed(op: MMPHATE, trace: Any) -> np.ndarray:
    """The places of the nodes, (epoch, timestep, unit, component)."""
    return op.transform(trace).numpy().reshape(*trace.shape[:3], -1)


def state(op: MMPHATE) -> list[bytes]:
    names = ("embedding_", "landmark_op_", "clusters_", "von_neumann_entropy_", "diff_potential_")
    arrays = [getattr(op, name) for name in names] + [op.placement_.points, op.placement_.targets]
    return [np.ascontiguousarray(array).tobytes() for array in arrays] + [repr((op.t_, op.stress_)).encode()]


def test_later_epochs_are_placed_row_by_row_and_the_fit_stays(op):
    before = state(op)
    later = run(n_epochs=E + 3).subsample(epochs=slice(E, None))
    together = placed(op, later)
    alone = [placed(op, later.subsample(epochs=[epoch]))[0] for epoch in range(3)]
    # Products of other heights may sum in another order.
    np.testing.assert_allclose(together, alone, atol=1e-12 * np.ptp(together))
    assert state(op) == before


def test_later_epochs_lie_beyond_the_last_ones(op):
    later = placed(op, run(n_epochs=E + 1).subsample(epochs=[E]))[0]
    distances = np.linalg.norm(placed(op, run()) - later, axis=-1).mean((1, 2))  # (epoch,)
    assert distances.argmin() == E - 1


def test_another_run_that_is_ahead_lies_on_the_epochs_it_has_reached(op):
    """The other run is where the fitted one is two epochs later, so its places are those two epochs later."""
    ahead = placed(op, run(phase=2 / E))
    np.testing.assert_allclose(ahead[:-2], placed(op, run())[2:], atol=1e-9 * np.ptp(ahead))


def test_another_run_may_have_other_sizes(op):
    other = run(n_epochs=2, n_timesteps=3)
    assert op.transform(other).shape == (2 * 3 * M, 2)
    assert torch.equal(op.transform(other.subsample(epochs=[1])), op.transform(other)[3 * M :])


def test_a_finer_grid_of_time_lies_between_the_steps_it_refines(op):
    coarse, fine = placed(op, run()), placed(op, run(n_timesteps=2 * T - 1))
    np.testing.assert_allclose(fine[:, ::2], coarse, atol=1e-12 * np.ptp(coarse))
    ends, between = (coarse[:, :-1], coarse[:, 1:]), fine[:, 1::2]
    gaps = np.linalg.norm(ends[1] - ends[0], axis=-1)
    from_middle = np.linalg.norm(between - (ends[0] + ends[1]) / 2, axis=-1)
    assert from_middle.sum() < 0.15 * gaps.sum()  # measured: 0.07; a step that is off by another has 1
