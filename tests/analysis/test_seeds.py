"""A result has the seed that was drawn for it, so that it can be made again."""

import numpy as np
import pytest
import torch

from mmphate_gpu import MMPHATE, Embedding, analysis
from mmphate_gpu.datasets import random_walk
from mmphate_gpu.slices import SliceLayout

RNG = np.random.default_rng(0)
WALK = random_walk(12, 12, 8)
PICTURE = Embedding(RNG.normal(size=(144, 2)), SliceLayout.of_shape(12, 1, 12))
LABELS = np.arange(8) % 2
CURVES = RNG.normal(size=(40, 2)).cumsum(0)
SCORES = dict(zip("ab", CURVES.T, strict=True))
FIT = MMPHATE(n_landmark=20)
SMALL = {"k": 3, "estimator": FIT}


class Reader(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = torch.nn.GRU(1, 3)

    def forward(self, x):
        return self.rnn(x)[0][-1]


READER, PROBE = Reader(), torch.rand(4, 8, 1)
CALLS = {
    "entropy": lambda seed: analysis.entropy(PICTURE, random_state=seed),
    "trace_entropy": lambda seed: analysis.trace_entropy(WALK, random_state=seed),
    "phases": lambda seed: analysis.phases(CURVES, random_state=seed),
    "compression_kind": lambda seed: analysis.compression_kind(np.arange(9.0)[::-1], np.ones(9), random_state=seed),
    "follows": lambda seed: analysis.follows(CURVES, CURVES[:, 0], 1, random_state=seed),
    "linear_probe": lambda seed: analysis.linear_probe(WALK, LABELS, folds=2, random_state=seed),
    "label_information": lambda seed: analysis.label_information(WALK, LABELS, random_state=seed),
    "ablate_units": lambda seed: analysis.ablate_units(READER, "rnn", PROBE, LABELS, random_state=seed),
    "unit_importance": lambda seed: analysis.unit_importance(scores=SCORES, random_state=seed),
    "unit_communities": lambda seed: analysis.unit_communities(PICTURE, n_null=3, random_state=seed),
    "community_stability": lambda seed: analysis.community_stability(PICTURE, 0, 1, random_state=seed),
    "trust": lambda seed: analysis.trust(WALK, PICTURE, k=3, random_state=seed),
    "null_models": lambda seed: analysis.null_models(WALK, ("units",), repeats=1, random_state=seed, **SMALL),
    "subsample_study": lambda seed: analysis.subsample_study(WALK, "epochs", (0.5,), 1, random_state=seed, **SMALL),
    "baselines": lambda seed: analysis.baselines(WALK, ("pca",), random_state=seed, **SMALL),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_seed_that_was_drawn_gives_the_same(name):
    first = CALLS[name](None)
    seed = first.settings["random_state"]
    assert isinstance(seed, int)
    again = CALLS[name](seed).to_dict() | {"seconds": None}
    np.testing.assert_equal(again, first.to_dict() | {"seconds": None})
