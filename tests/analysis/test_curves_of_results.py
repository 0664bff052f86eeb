"""Phases, kinds of compression and `follows` of the results of other analyses."""

import numpy as np
import pytest

from mmphate_gpu import Embedding, as_trace
from mmphate_gpu.analysis import compression_kind, entropy, follows, linear_probe, phases
from mmphate_gpu.slices import SliceLayout

E, T, M, P, C = 30, 2, 12, 24, 2
LABEL = np.arange(P) % 2


@pytest.fixture(scope="module")
def shrinking():
    """The knn entropy of clouds that keep their shape, and from epoch 10 shrink by 2^(1 / 10) an epoch."""
    size = 2.0 ** -(np.maximum(np.arange(E) - 9, 0) / 10)
    cloud = np.random.default_rng(0).normal(size=(T, M, C))
    coordinates = (size[:, None, None, None] * cloud).reshape(-1, C)
    layout = SliceLayout(np.arange(E) * 5, np.arange(T), np.arange(M))
    return entropy(Embedding(coordinates, layout), estimator="knn", random_state=0)


def test_the_phases_of_an_entropy(shrinking):
    """C bits are lost when the size is halved, so 2 / 10 an epoch, and the labels of epochs are 5 apart."""
    result = phases(shrinking)
    assert result.trend.tolist() == ["plateau", "compression"] and result.start.tolist() in ([0, 45], [0, 50])
    # All replicates shrink alike, so the interval is rounding.
    np.testing.assert_allclose([result.slope[1], result.low[1], result.high[1]], -0.2 / 5, atol=1e-9)
    assert result.settings["bootstrap"] == "replicates of the entropy"


def probe(signal):
    """The probe of states that hold the label in one unit, as strongly as ``signal`` says of each epoch."""
    states = np.random.default_rng(1).normal(size=(E, T, M, P))
    states[:, :, 3] += signal[:, None, None] * (2 * LABEL - 1)
    trace = as_trace(states, label=LABEL, epoch=np.arange(E) * 5)
    return linear_probe(trace, random_state=0)


def test_compression_that_keeps_the_label_and_compression_that_loses_it(shrinking):
    kept, lost = np.full(E, 30.0), np.where(np.arange(E) < 20, 30.0, 0)
    verdicts = [compression_kind(phases(shrinking), probe(signal), random_state=0).verdict for signal in (kept, lost)]
    assert [verdict.tolist() for verdict in verdicts] == [["useful"], ["loss"]]


def test_an_entropy_follows_a_metric_of_its_trace(shrinking):
    metric = np.random.default_rng(2).normal(size=E).cumsum()
    trace = as_trace(np.ones((E, T, M, P)), epoch=shrinking.coords["epoch"], metrics={"loss": metric})
    result = follows(shrinking, "loss", 2, trace=trace, random_state=0)
    assert result.timestep.tolist() == [0, 1] and result.settings["epochs"].tolist() == (np.arange(E) * 5).tolist()
    assert result.pearson_q.min() > 0.05
