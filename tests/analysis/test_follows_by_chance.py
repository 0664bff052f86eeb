"""False alarms of `follows` on autocorrelated curves that have nothing in common, in 1,000 draws of each sort."""

import numpy as np
import pytest

from mmphate_gpu.analysis import follows

E = 51


def autoregressive(rho):
    def draw(n, generator):
        values = generator.normal(size=(n, E))
        for i in range(1, E):
            values[:, i] += rho * values[:, i - 1]
        return values

    return draw


def seasonal(n, generator):
    """Waves with periods of 5 to 30 epochs and random phases, in noise."""
    period, phase = generator.uniform(5, 30, (n, 1)), generator.uniform(0, 2 * np.pi, (n, 1))
    return np.sin(2 * np.pi * np.arange(E) / period + phase) + 0.3 * generator.normal(size=(n, E))


def settling(n, generator):
    """What training curves do: a fast change at first that settles, in noise."""
    return 1 - np.exp(-np.arange(E) / generator.uniform(4, 15, (n, 1))) + 0.02 * generator.normal(size=(n, E))


DRAWS = {
    "autoregression 0.5": autoregressive(0.5),
    "autoregression 0.9": autoregressive(0.9),
    "random walk": autoregressive(1.0),
    "seasonal": seasonal,
    "settling": settling,
}


@pytest.mark.parametrize("name", DRAWS)
def test_few_false_alarms_at_lag_0(name):
    """25 curves against each of 40 metrics: at most 7 % of p at the 5 % level."""
    generator = np.random.default_rng(0)
    metrics, curves = DRAWS[name](40, generator), DRAWS[name](1000, generator).reshape(40, 25, E)
    results = [follows(rows.T, metric, 0, random_state=0) for rows, metric in zip(curves, metrics, strict=True)]
    for result in ([r.pearson_p for r in results], [r.spearman_p for r in results]):
        assert np.mean(np.array(result) <= 0.05) <= 0.07


def test_shifts_of_random_walks_are_false_alarms():
    """Why shifts are not the default: random walks have a trend, and a shift breaks it in the middle."""
    generator = np.random.default_rng(0)
    metrics, curves = DRAWS["random walk"](20, generator), DRAWS["random walk"](200, generator).reshape(20, 10, E)
    pairs = zip(curves, metrics, strict=True)
    p = [follows(rows.T, metric, 0, null="shifts").pearson_p for rows, metric in pairs]
    assert np.mean(np.array(p) <= 0.05) > 0.15


@pytest.mark.slow  # 1 to 2 minutes each
@pytest.mark.parametrize("name", DRAWS)
def test_few_false_alarms_over_all_lags(name):
    """1,000 pairs, each tested at 11 lags: at most 7 % have any q at the 5 % level, by each of the four tests."""
    generator = np.random.default_rng(1)
    draws = zip(DRAWS[name](1000, generator), DRAWS[name](1000, generator), strict=True)
    results = [follows(*pair, random_state=seed, n_permutations=199) for seed, pair in enumerate(draws)]
    for measure in ("pearson_q", "spearman_q"):
        for part in (results, [result.changes for result in results]):
            assert np.mean([(getattr(result, measure) <= 0.05).any() for result in part]) <= 0.07
