"""Traces whose states hold a label, or do not."""

from __future__ import annotations

import numpy as np

from mmphate_gpu import Trace, as_trace


def one_hot_states(
    n_epochs: int = 4, n_timesteps: int = 3, n_classes: int = 4, n_samples: int = 80, noise: float = 0.05, seed: int = 0
) -> Trace:
    """Unit k is 1 for the samples of class k, plus noise. In the first half of the epochs there is only noise."""
    rng = np.random.default_rng(seed)
    label = np.arange(n_samples) % n_classes
    states = rng.normal(0, noise, (n_epochs, n_timesteps, n_classes, n_samples))
    states[n_epochs // 2 :] += np.arange(n_classes)[:, None] == label
    return as_trace(states, label=label)


def noise_states(
    n_epochs: int = 8, n_timesteps: int = 5, n_units: int = 6, n_samples: int = 60, seed: int = 0
) -> Trace:
    """Normal states, and labels of three classes, which have nothing in common."""
    rng = np.random.default_rng(seed)
    return as_trace(rng.normal(size=(n_epochs, n_timesteps, n_units, n_samples)), label=np.arange(n_samples) % 3)


def without_samples(trace: Trace, timestep: int, samples: list[int], unit: int = 0) -> Trace:
    """``trace`` with a mask that hides ``samples`` of one unit at one time step."""
    mask = np.ones(trace.shape, dtype=bool)
    mask[:, timestep, unit, samples] = False
    return as_trace(trace.data, mask=mask, label=trace.label)
