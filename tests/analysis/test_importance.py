"""Rankings of units, and whether they agree."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from mmphate_gpu import InputError
from mmphate_gpu.analysis import ablate_units, entropy, label_information, unit_importance
from mmphate_gpu.embedding import Embedding
from mmphate_gpu.slices import SliceLayout

E, T, M = 3, 12, 6
RNG = np.random.default_rng(0)


def embedding_of(spread, n_epochs=E, layout=None):
    """Paths of units in two dimensions that spread as far as ``spread`` says."""
    places = RNG.uniform(size=(n_epochs, T, len(spread), 2)) * np.asarray(spread)[:, None]
    return Embedding(places.reshape(-1, 2), layout or SliceLayout.of_shape(n_epochs, T, len(spread)))


class Memory(nn.Module):
    """Unit ``important`` keeps the class that is shown at the first time step; noise drives the others."""

    def __init__(self, important):
        super().__init__()
        self.rnn = nn.RNN(M, M, nonlinearity="relu", bias=False, dtype=torch.float64)
        self.head = nn.Linear(M, 2, dtype=torch.float64)
        with torch.no_grad():
            for weight in self.parameters():
                weight.zero_()
            self.rnn.weight_hh_l0[important, important] = 1
            self.rnn.weight_ih_l0.copy_(torch.eye(M))
            # The others add a little noise to the logits.
            self.head.weight[1] = torch.linspace(0.01, 0.02, M)
            self.head.weight[:, important] = torch.tensor([-4.0, 4.0])
            self.head.bias[0] = 4

    def forward(self, x):
        return self.head(self.rnn(x)[0][-1])


@pytest.mark.parametrize("important", [0, 4])
def test_a_planted_unit_is_first_by_ablation_by_information_and_by_entropy(important):
    labels = np.arange(40) % 2
    x = torch.from_numpy(RNG.normal(size=(T, 40, M)))
    x[:, :, important] = 0
    x[0, :, important] = torch.from_numpy(labels)
    model = Memory(important)
    with torch.no_grad():
        states = model.rnn(x)[0].transpose(1, 2)[None]  # (1, T, M, P)
    embedding = embedding_of(np.where(np.arange(M) == important, 1, 0.1), n_epochs=1)
    result = unit_importance(
        embedding,
        ablate_units(model, "rnn", x, labels),
        label_information(states, labels, permutations=1, random_state=0),
        scores={"variance": states.var((0, 1, 3)).numpy()},
    )
    for name in ("entropy", "ablation", "information"):
        assert result.ranks[name][important] == 1, name
        assert result.ranks[name].argmin() == important
    assert result.scores["ablation"][important] > 10 * np.delete(result.scores["ablation"], important).max()
    # A bit of information in each time step; the estimate for 40 samples is a little lower.
    assert result.scores["information"][important] == pytest.approx(1, abs=0.1)
    names = ["entropy", "ablation", "information", "variance"]
    assert result.pairs == list(itertools.combinations(names, 2)) and result.q.shape == (6,)


# ---------------------------------------------------------------- correlation and p


@pytest.mark.parametrize("n_units", [2, 3, 5, 6])
def test_few_units_have_the_exact_p(n_units):
    first, second = RNG.normal(size=(2, n_units)).round(1)
    result = unit_importance(scores={"a": first, "b": second})
    orders = [spearmanr(first, order)[0] for order in itertools.permutations(second)]
    assert result.spearman[0] == pytest.approx(spearmanr(first, second)[0], abs=1e-12)
    far = np.abs(orders) >= abs(result.spearman[0]) - 1e-9
    assert result.p[0] == pytest.approx(far.mean(), abs=1e-12)


def test_p_by_hand():
    """Of 24 orders of 4 units only two have the correlation 1 or -1."""
    for sign in (1, -1):
        result = unit_importance(scores={"a": [1, 2, 3, 4], "b": sign * np.array([1, 4, 9, 16])})
        assert result.spearman.tolist() == [sign] and result.p[0] == pytest.approx(2 / 24)
    # The orders of three units have the correlations 1, 0.5, 0.5, -0.5, -0.5 and -1.
    assert unit_importance(scores={"a": [1, 2, 3], "b": [1, 3, 2]}).p.tolist() == [1]


def test_random_permutations_are_near_the_exact_p():
    """Eight units have 40,320 orders. A share of 20,000 draws is within 4 of its standard deviations."""
    first, second = np.arange(8.0), np.array([1.0, 0, 3, 2, 7, 4, 6, 5])
    result = unit_importance(scores={"a": first, "b": second}, n_permutations=20_000, random_state=1)
    centered = first - first.mean()
    orders = np.array(list(itertools.permutations(second))) - second.mean()
    exact = np.mean(np.abs(orders @ centered) >= abs((second - second.mean()) @ centered) - 1e-9)
    assert result.p[0] == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20_000) + 1 / 20_000)
    least = unit_importance(scores={"a": np.arange(30), "b": np.arange(30)}, n_permutations=99, random_state=0)
    assert least.p.tolist() == [0.01]  # (1 + 0) / (1 + 99)


def test_false_alarms_have_their_rate():
    """Of 300 pairs of independent scores about 15 have p <= 0.05; more than 30 has a probability below 0.001."""
    p = [
        unit_importance(scores=dict(zip("ab", RNG.normal(size=(2, 12)), strict=True)), n_permutations=200).p[0]
        for _ in range(300)
    ]
    assert 2 < np.sum(np.array(p) <= 0.05) < 30
    assert 0.4 < np.mean(p) < 0.6


def test_p_is_corrected_for_the_number_of_pairs():
    scores = {"a": np.arange(20), "b": np.arange(20) ** 2, "c": RNG.normal(size=20), "d": np.ones(20)}
    result = unit_importance(scores=scores, n_permutations=999, random_state=0)
    known = ~np.isnan(result.p)
    assert known.tolist() == [True, True, False, True, False, False] and np.isnan(result.spearman[~known]).all()
    # Benjamini and Hochberg by hand, for three pairs of which the first has p = 1 / 1000.
    p = np.sort(result.p[known])
    expected = np.minimum.accumulate((p * 3 / np.arange(1, 4))[::-1])[::-1]
    np.testing.assert_allclose(np.sort(result.q[known]), expected)
    assert result.q[0] == pytest.approx(0.003) and np.isnan(result.q[~known]).all()


# ---------------------------------------------------------------- measures


def test_epochs_are_averaged_or_the_last_is_taken():
    embedding, other = embedding_of(np.linspace(0.1, 1, M)), {"a": np.arange(M)}
    values = entropy(embedding, over="timesteps").values
    for epochs, expected in (("mean", values.mean(0)), ("last", values[-1])):
        scores = unit_importance(embedding, scores=other, epochs=epochs).scores
        np.testing.assert_allclose(scores["entropy"], expected, rtol=1e-12)
    kde = entropy(embedding, over="timesteps", estimator="kde", n_bootstrap=0)
    np.testing.assert_allclose(unit_importance(kde, scores=other).scores["entropy"], kde.values.mean(0), rtol=1e-12)


def test_ranks_share_equal_scores_and_units_without_a_score_have_none():
    result = unit_importance(scores={"a": [5, 7, 7, np.nan, 1], "b": [1.0, 3, 2, 9, 0]})
    assert result.ranks["a"][[0, 1, 2, 4]].tolist() == [3, 1.5, 1.5, 4] and np.isnan(result.ranks["a"][3])
    assert result.spearman[0] == pytest.approx(spearmanr([5, 7, 7, 1], [1, 3, 2, 0])[0])


def test_equal_seeds_give_equal_bits():
    scores = dict(zip("ab", RNG.normal(size=(2, 10)), strict=True))
    first, second, other = (unit_importance(scores=scores, random_state=seed).p[0] for seed in (1, 1, 2))
    assert first == second != other


def test_results_are_tables_and_one_line():
    layout = SliceLayout(np.arange(E), np.arange(T), np.array(["u", "v", "w"]))
    result = unit_importance(embedding_of([0.1, 1, 0.5], layout=layout), scores={"size": [1.0, 5, 3]})
    frame = result.to_frame()
    assert list(frame.columns) == ["unit", "entropy", "size", "rank by entropy", "rank by size"]
    assert frame.unit.tolist() == ["u", "v", "w"] and frame["rank by size"].tolist() == [3, 1, 2]
    assert repr(result) == "UnitImportance(3 units, first by entropy v, size v; entropy ~ size +1.00 (p = 0.33))"
    assert result.to_dict()["pairs"] == [["entropy", "size"]]
    equal = unit_importance(scores={"size": [1.0, 5, 3], "flat": [2.0, 2, 2]})
    assert repr(equal) == "UnitImportance(3 units, first by size 1, flat none; size ~ flat undefined)"


def test_what_is_refused():
    embedding, scores = embedding_of(np.ones(M)), {"a": np.arange(M), "b": np.arange(M)}
    shifted = embedding_of(np.ones(M), layout=SliceLayout(np.arange(E), np.arange(T), np.arange(1, M + 1)))
    ablation = ablate_units(Memory(0), "rnn", torch.zeros(2, 3, M, dtype=torch.float64), [0, 1, 0])
    for match, arguments, options in (
        ("got 1 measures; accepted: at least two", (embedding,), {}),
        ("got 0 measures", (), {}),
        ("embedding is a ndarray; accepted: Embedding or Entropy", (np.ones(3),), {}),
        ("an entropy over nodes; accepted: over='timesteps'", (entropy(embedding, over="nodes"),), {}),
        ("ablation is a Embedding; accepted: UnitAblation", (None, embedding), {}),
        ("information is a Embedding; accepted: LabelInformation", (None, None, embedding), {}),
        ("scores is a list", (embedding,), {"scores": [1, 2]}),
        (r"scores\['a'\] has shape \(2, 3\)", (), {"scores": {"a": np.ones((2, 3))}}),
        (r"scores\['a'\] has shape \(1,\) and dtype <U1", (), {"scores": {"a": ["x"]}}),
        (r"scores\['a'\] has shape \(2,\)", (), {"scores": {"a": [1, np.inf]}}),
        ("scores has the name 'entropy' of another", (embedding,), {"scores": {"entropy": np.ones(M)}}),
        ("a is NaN for all units", (embedding,), {"scores": {"a": np.full(M, np.nan)}}),
        ("units; accepted: the same number", (embedding,), {"scores": {"a": np.ones(M + 1)}}),
        ("units; accepted: the same number", (), {"scores": {"a": [1], "b": [2]}}),
        ("ablation is of the units 0, 1, 2, ..., and entropy of 1, 2, 3, ...", (shifted, ablation), {}),
        ("epochs='first' is unknown", (), {"scores": scores, "epochs": "first"}),
        ("n_permutations=0", (), {"scores": scores, "n_permutations": 0}),
        ("random_state=-1", (), {"scores": scores, "random_state": -1}),
    ):
        with pytest.raises(InputError, match=match):
            unit_importance(*arguments, **options)
