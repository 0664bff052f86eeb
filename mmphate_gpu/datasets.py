"""Synthetic traces: the bifurcation suite of the paper, and random walks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .errors import check_choice, check_number
from .trace import Trace, as_trace

_DT = 0.1
_STATE_NOISE = 0.001
_UNIT_NOISE = 0.001
_UNITS_PER_GROUP = 3

Field = Callable[[np.ndarray, np.float32], np.ndarray]


def _hopf(z: np.ndarray, mu: np.float32) -> np.ndarray:  # (P, 2) -> (P, 2)
    x, y = z[:, 0], z[:, 1]
    radius2 = x * x + y * y
    return np.stack([mu * x - y - radius2 * x, x + mu * y - radius2 * y], axis=1)


def _pitchfork(z: np.ndarray, mu: np.float32) -> np.ndarray:  # (P, 2) -> (P, 2)
    x, y = z[:, 0], z[:, 1]
    return np.stack([mu * x - x**3, -2 * y], axis=1)


# {name: (dynamics of group B, or None if B has the states of A; whether A and B read out through a warp)}
_SCENARIOS: dict[str, tuple[Field | None, tuple[bool, bool]]] = {
    "hopf": (None, (False, True)),
    "hopf_pitchfork": (_pitchfork, (False, False)),
    "hopf_pitchfork_warped": (_pitchfork, (True, True)),
}


def bifurcation(
    scenario: str, n_epochs: int = 101, n_timesteps: int = 80, n_samples: int = 10, seed: int = 24
) -> Trace:
    """Two groups of 3 units that read out a dynamical system while its parameter moves through a bifurcation.

    Each sample is a latent state z = (x, y), integrated by RK4 with a step of 0.1. The state continues from epoch to
    epoch, and epoch e has the parameter ``mu = linspace(-1, 2, n_epochs)[e]``. The activity of a unit is
    ``0.2 (w . z) + 1.2 |z|`` plus noise of 0.001, where w is a random direction.

    Parameters
    ----------
    scenario : {"hopf", "hopf_pitchfork", "hopf_pitchfork_warped"}
        "hopf": both groups follow the same Hopf system, and B reads it out through a quadratic warp.
        "hopf_pitchfork": A follows a Hopf system, and B a pitchfork. "..._warped": the same, with both warped.
    n_epochs, n_timesteps, n_samples : int
        The suite of the paper has 101, 80 and 10.
    seed : int
        Seed of ``numpy.random.default_rng``.

    Returns
    -------
    Trace
        (n_epochs, n_timesteps, 6, n_samples) float32; units 0 to 2 are group A, 3 to 5 group B.

    Raises
    ------
    InputError, InputTypeError
        An unknown scenario; a size below 1 or a seed below 0; fewer than two slices in all.

    Notes
    -----
    O(n_epochs n_timesteps) small array operations, about a second at full size. Deterministic.
    """
    check_choice("scenario", scenario, _SCENARIOS)
    e, t, p = _checked_sizes(n_epochs=n_epochs, n_timesteps=n_timesteps, n_samples=n_samples)
    return as_trace(_activity(*_SCENARIOS[scenario], (e, t, p), _checked_rng(seed)))


def random_walk(n_slices: int = 100, n_units: int = 50, n_samples: int = 25, seed: int = 0) -> Trace:
    """Units that walk at random: cumulative sums over slices of standard normal steps.

    Parameters
    ----------
    n_slices, n_units, n_samples : int
        The shape of the trace.
    seed : int
        Seed of ``numpy.random.default_rng``.

    Returns
    -------
    Trace
        (n_slices, 1, n_units, n_samples) float64.

    Raises
    ------
    InputError, InputTypeError
        A size below 1 or a seed below 0; fewer than two slices.

    Examples
    --------
    >>> random_walk(4, 3, 2).shape
    (4, 1, 3, 2)
    """
    shape = _checked_sizes(n_slices=n_slices, n_units=n_units, n_samples=n_samples)
    return as_trace(np.cumsum(_checked_rng(seed).standard_normal(shape), axis=0))


def _checked_sizes(**sizes: int) -> list[int]:
    return [int(check_number(name, size, low=1, integer=True)) for name, size in sizes.items()]


def _checked_rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(int(check_number("seed", seed, low=0, integer=True)))


def _activity(
    field_b: Field | None, warps: tuple[bool, bool], sizes: tuple[int, int, int], rng: np.random.Generator
) -> np.ndarray:  # (E, T, 6, P) float32
    n_epochs, n_timesteps, n_samples = sizes
    # The order of the random draws decides the trace of a seed: start, states of A, states of B, readout.
    mu = np.linspace(-1, 2, n_epochs).astype(np.float32)
    start = rng.normal(0, 0.6, (n_samples, 2)).astype(np.float32)
    states_a = _states(_hopf, start, mu, n_timesteps, rng)
    states_b = states_a if field_b is None else _states(field_b, start, mu, n_timesteps, rng)
    direction = _direction(rng)
    groups = zip((states_a, states_b), warps, strict=True)
    signals = [_signal(_warped(states) if warp else states, direction) for states, warp in groups]
    epochs = [[_units(signal[e], rng) for signal in signals] for e in range(n_epochs)]
    return np.stack([np.concatenate(pair, axis=1) for pair in epochs])


def _states(
    field: Field, start: np.ndarray, mu: np.ndarray, n_timesteps: int, rng: np.random.Generator
) -> np.ndarray:  # (E, T, P, 2)
    states = np.empty((len(mu), n_timesteps, *start.shape), dtype=np.float32)
    z = start
    for e in range(len(mu)):
        for t in range(n_timesteps):
            z = _rk4(field, z, mu[e]) + rng.normal(0, _STATE_NOISE, z.shape).astype(np.float32)
            states[e, t] = z
    return states


def _rk4(field: Field, z: np.ndarray, mu: np.float32) -> np.ndarray:
    k1 = field(z, mu)
    k2 = field(z + 0.5 * _DT * k1, mu)
    k3 = field(z + 0.5 * _DT * k2, mu)
    k4 = field(z + _DT * k3, mu)
    return z + _DT / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def _warped(states: np.ndarray) -> np.ndarray:
    x, y = states[..., 0], states[..., 1]
    return np.stack([x + 0.15 * x * y, y + 0.15 * x**2], axis=-1)


def _direction(rng: np.random.Generator) -> np.ndarray:  # (2,)
    phi = rng.uniform(0.2 * np.pi, 0.8 * np.pi)
    for _ in range(4):  # the recipe of the suite draws these numbers and does not use them
        rng.normal(size=3)
    return np.array([np.cos(phi), np.sin(phi)], dtype=np.float32)


def _signal(states: np.ndarray, direction: np.ndarray) -> np.ndarray:  # (E, T, P, 2) -> (E, T, P)
    radius = np.sqrt((states**2).sum(axis=-1))
    return (0.2 * (states @ direction) + 1.2 * radius).astype(np.float32)


def _units(signal: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # (T, P) -> (T, 3, P)
    noise = rng.normal(0, _UNIT_NOISE, (_UNITS_PER_GROUP, *signal.shape)).astype(np.float32)
    return (signal[None] + noise).swapaxes(0, 1)
