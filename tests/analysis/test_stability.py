"""The stability of communities over a change: equal, renamed, independent and missing ones."""

import json

import numpy as np
import pytest

from mmphate_gpu import Embedding, InputError, InputTypeError
from mmphate_gpu.analysis import community_stability, stability
from mmphate_gpu.slices import SliceLayout

GROUPS = np.repeat(np.arange(4), 6)


def embedding_of(slices, n_timesteps=1, **labels):  # (S, M, C)
    n_slices, n_units, n_components = slices.shape
    axes = {"epoch": np.arange(n_slices // n_timesteps), "timestep": np.arange(n_timesteps), "unit": np.arange(n_units)}
    return Embedding(slices.reshape(-1, n_components), SliceLayout(**(axes | labels)))


def grouped(groups, seed=0, noise=0.01):  # (M, 2)
    rng = np.random.default_rng(seed)
    centers = np.array([[0, 0], [1, 0], [0, 1], [1.2, 1.2]])
    return centers[groups] + noise * rng.normal(size=(len(groups), 2))


def test_the_same_groups_are_stable_and_others_are_not():
    """For a random order of these 24 units the index is 0 on average, with a standard deviation of 0.06."""
    shuffled = np.random.default_rng(5).permutation(GROUPS)
    embedding = embedding_of(
        np.stack([grouped(GROUPS), grouped(GROUPS, 1), grouped(3 - GROUPS, 2), grouped(shuffled, 3)])
    )
    means = [community_stability(embedding, 0, after, ks=[4], random_state=0).mean for after in (1, 2, 3)]
    assert means[:2] == [1.0, 1.0] and abs(means[2]) < 0.2


def test_random_places_are_at_chance():
    """The standard deviation of a pair of slices is 0.03, so four standard errors of the mean of 30 are 0.023."""
    rng = np.random.default_rng(0)
    places = embedding_of(rng.normal(size=(60, 30, 2)))
    means = [community_stability(places, i, i + 30, n_seeds=3, random_state=i).mean for i in range(30)]
    assert abs(np.mean(means)) < 0.023


def test_the_default_numbers_and_seeds_are_those_of_the_paper():
    embedding = embedding_of(np.stack([grouped(GROUPS), grouped(GROUPS, 1)]))
    result = community_stability(embedding, 0, 1, random_state=3)
    assert result.ks.tolist() == [3, 4, 5, 6, 7, 8] and result.rand.shape == (6, 20)
    assert result.mean == pytest.approx(result.rand.mean())
    assert result.rand[1].tolist() == [1.0] * 20  # four groups
    again = community_stability(embedding, 0, 1, random_state=3)
    assert again.rand.tolist() == result.rand.tolist()


def test_the_index_is_symmetric_in_time_and_free_of_the_place():
    rng = np.random.default_rng(0)
    slices = rng.normal(size=(2, 24, 2))
    turn, _ = np.linalg.qr(rng.normal(size=(2, 2)))
    means = [
        community_stability(embedding_of(values), *order, ks=[3], n_seeds=60, random_state=0).mean
        for values, order in (
            (slices, (0, 1)),
            (slices, (1, 0)),
            (np.stack([3 * slices[0] @ turn + 1, slices[1]]), (0, 1)),
        )
    ]
    # The best of 10 starts is nearly always the same partition, so little depends on the draws.
    assert means == pytest.approx([means[0]] * 3, abs=0.02)


@pytest.mark.parametrize("scale", [2.0**700, 2.0**-700])
def test_the_scale_of_the_picture_is_free(scale):
    slices = np.random.default_rng(0).normal(size=(2, 24, 2))
    first, second = (
        community_stability(embedding_of(values), 0, 1, ks=[3], n_seeds=5, random_state=0)
        for values in (slices, scale * slices)
    )
    assert first.rand.tolist() == second.rand.tolist()


def test_slices_are_named_by_number_or_by_epoch_and_time_step():
    rng = np.random.default_rng(0)
    epoch = np.array(["2026-01-01", "2026-02-01", "2026-03-01"], dtype="datetime64[D]")
    embedding = embedding_of(rng.normal(size=(6, 12, 2)), n_timesteps=2, epoch=epoch, timestep=np.array([10, 20]))
    pairs = [(1, 5), ((0, 1), (2, 1)), ((-3, -1), -1), (np.int64(1), [2, 1])]
    results = [community_stability(embedding, *pair, ks=[3], n_seeds=2, random_state=0) for pair in pairs]
    assert [result.rand.tolist() for result in results] == [results[0].rand.tolist()] * 4
    assert json.loads(json.dumps(results[0].to_dict()))["after"] == ["2026-03-01", 20]
    assert results[0].before == (epoch[0], 20) and results[0].after == (epoch[2], 20)
    assert repr(results[0]).startswith("CommunityStability((epoch 2026-01-01, time step 20) to (epoch 2026-03-01, ")


def test_units_without_a_place_in_either_slice_do_not_count():
    slices = np.stack([grouped(GROUPS), grouped(GROUPS, 1)])
    slices[0, 3] = slices[1, 9] = np.nan
    kept = np.delete(slices, [3, 9], axis=1)
    first, second = (
        community_stability(embedding_of(values), 0, 1, ks=[2, 4], n_seeds=5, random_state=0)
        for values in (slices, kept)
    )
    assert first.rand.tolist() == second.rand.tolist()


def test_a_table_has_a_row_for_each_run():
    pytest.importorskip("pandas")
    embedding = embedding_of(np.stack([grouped(GROUPS), grouped(GROUPS, 1)]))
    frame = community_stability(embedding, 0, 1, ks=[2, 4], n_seeds=3).to_frame()
    assert list(frame) == ["k", "seed", "rand"] and len(frame) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"after": 2}, r"after=2 is out of range"),
        ({"before": -3}, r"before=-3 is out of range"),
        ({"before": (0, 1)}, r"before=1 is out of range"),
        ({"before": (0, 0, 0)}, r"has 3 indices; accepted: a slice, or \(epoch, timestep\)"),
        ({"before": "first"}, r"before='first' must be an integer"),
        ({"ks": []}, "ks is empty"),
        ({"ks": 3}, "ks=3 is a int; accepted: a sequence of integers"),
        ({"ks": [24]}, "ks=24 is out of range; it must be an integer >= 2 and <= 23"),
        ({"ks": [1, 2]}, "ks=1 is out of range"),
        ({"n_seeds": 0}, "n_seeds=0"),
        ({"embedding": embedding_of(np.zeros((2, 2, 2)))}, r"embedding has 2 unit\(s\)"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    embedding = embedding_of(np.stack([grouped(GROUPS), grouped(GROUPS, 1)]))
    with pytest.raises(InputError, match=message):
        community_stability(**({"embedding": embedding, "before": 0, "after": 1} | arguments))


def test_something_else_than_an_embedding_is_refused():
    with pytest.raises(InputTypeError, match="embedding is a ndarray; accepted: an Embedding"):
        community_stability(np.zeros((48, 2)), 0, 1)
    assert stability._RESTARTS == 10
