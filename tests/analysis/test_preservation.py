"""Neighborhood preservation is that of the dense reference and of hand-made cases, and bad input is refused."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmphate_gpu import reference
from mmphate_gpu.analysis import neighborhood_preservation, preservation
from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.trace import as_trace


def walk(shape=(30, 5, 6), seed=0):
    return np.random.default_rng(seed).standard_normal(shape).cumsum(axis=0)


def crowded(seed=0):
    """A trace with repeated slices and a dead unit, and an embedding on a coarse grid: both have many ties."""
    rng = np.random.default_rng(seed)
    trace = walk(seed=seed)[rng.integers(0, 8, 30)]
    trace[:, 3] = 0.1
    return trace, rng.integers(0, 3, (150, 2)).astype(float)


@pytest.mark.parametrize("k", [1, 3, 4, 10, 29])
def test_preservation_is_that_of_the_reference(k, device):
    trace, embedding = walk(), np.random.default_rng(1).standard_normal((150, 3))
    result = neighborhood_preservation(torch.from_numpy(trace).to(device), embedding, k)
    assert result == pytest.approx(reference.neighborhood_preservation(trace, embedding, k), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("k", [1, 4, 10])
def test_preservation_with_ties_is_that_of_the_reference(k, seed, device):
    trace, embedding = crowded(seed)
    result = neighborhood_preservation(torch.from_numpy(trace).to(device), embedding, k)
    assert result == pytest.approx(reference.neighborhood_preservation(trace, embedding, k), abs=1e-12)


@pytest.mark.parametrize("pairs", [1, 70, 1000])
def test_the_size_of_chunks_does_not_matter(monkeypatch, pairs):
    trace, embedding = crowded()
    expected = neighborhood_preservation(trace, embedding, [2, 7])
    monkeypatch.setattr(preservation, "_CHUNK_PAIRS", pairs)
    assert neighborhood_preservation(trace, embedding, [2, 7]) == expected


def test_preservation_with_a_mask_is_that_of_the_reference():
    trace, embedding = walk((3, 10, 5, 6)), np.random.default_rng(1).standard_normal((150, 2))
    mask = np.random.default_rng(2).random(trace.shape) < 0.7
    mask[..., 0] = True
    result = neighborhood_preservation(as_trace(trace, mask=mask), embedding, 3)
    assert result == pytest.approx(reference.neighborhood_preservation(trace, embedding, 3, mask=mask), abs=1e-12)


def test_sample_space_itself_is_fully_preserved():
    trace = walk()
    z = (trace - trace.mean(-1, keepdims=True)) / trace.std(-1, ddof=1, keepdims=True)
    assert neighborhood_preservation(trace, z.reshape(150, 6), 4) == (1.0, 1.0)


def test_several_k_give_the_results_of_each():
    trace, embedding = crowded()
    result = neighborhood_preservation(trace, embedding, (2, 7))
    assert result == [neighborhood_preservation(trace, embedding, k) for k in (2, 7)]
    assert neighborhood_preservation(trace, embedding, np.array([2])) == result[:1]


def test_an_embedding_may_be_a_tensor_an_object_or_a_list():
    trace, embedding = walk(), np.random.default_rng(1).standard_normal((150, 2)).astype(np.float32)
    expected = neighborhood_preservation(trace, embedding, 3)
    for other in (torch.from_numpy(embedding), SimpleNamespace(coordinates=embedding), embedding.tolist()):
        assert neighborhood_preservation(trace, other, 3) == pytest.approx(expected, abs=1e-12)


def test_intra_is_nan_for_one_unit_and_1_if_all_others_are_neighbors():
    trace = walk((8, 1, 4))
    intra, inter = neighborhood_preservation(trace, trace[:, 0], 7)
    assert np.isnan(intra) and inter == 1
    assert neighborhood_preservation(walk((8, 3, 4)), walk((24, 2), 1), 5)[0] == 1  # capped at 2 others


def test_a_single_sample_gives_the_result_of_the_reference():
    trace, embedding = walk((8, 3, 1)), walk((24, 2), 1)
    assert neighborhood_preservation(trace, embedding, 2) == reference.neighborhood_preservation(trace, embedding, 2)


@pytest.mark.parametrize(
    ("k", "error", "message"),
    [
        (0, InputError, "k=0 is out of range; it must be an integer >= 1 and <= 29"),
        (30, InputError, "k=30 is out of range"),
        ([10, 30], InputError, "k=30 is out of range"),
        (2.5, InputTypeError, "k=2.5 must be an integer"),
        (True, InputTypeError, "k=True must be an integer"),
        ("10", InputTypeError, "k='10' must be an integer"),
        (None, InputTypeError, "k=None must be an integer"),
        ([], InputError, "k is empty"),
    ],
)
def test_a_bad_k_is_refused(k, error, message):
    with pytest.raises(error, match=message):
        neighborhood_preservation(walk(), np.zeros((150, 2)), k)


@pytest.mark.parametrize("shape", [(149, 2), (150,), (30, 5, 2), (150, 0)])
def test_an_embedding_of_another_shape_is_refused(shape):
    with pytest.raises(InputError, match=r"embedding has shape .* accepted: \(150, n_components\)"):
        neighborhood_preservation(walk(), np.zeros(shape), 2)


def test_bad_values_of_an_embedding_are_refused():
    embedding = np.zeros((150, 2))
    embedding[7, 1] = np.nan
    with pytest.raises(InputError, match="embedding is not finite in row 7"):
        neighborhood_preservation(walk(), embedding, 2)
    with pytest.raises(InputTypeError, match="embedding has dtype complex128"):
        neighborhood_preservation(walk(), embedding.astype(complex), 2)


def test_the_raw_form_is_that_of_the_reference():
    trace, embedding = walk() * np.linspace(1, 30, 6), np.random.default_rng(2).normal(size=(150, 2))
    raw = neighborhood_preservation(trace, embedding, 4, normalize=False)
    assert raw == pytest.approx(reference.neighborhood_preservation(trace, embedding, 4, normalize=False), abs=1e-12)
    assert raw != neighborhood_preservation(trace, embedding, 4)


def test_trace_and_embedding_are_not_changed():
    trace, embedding = crowded()
    before = trace.copy(), embedding.copy()
    neighborhood_preservation(trace, embedding, 3)
    assert np.array_equal(trace, before[0]) and np.array_equal(embedding, before[1])
