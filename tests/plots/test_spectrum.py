"""Spectra: the singular values, their powers, and the entropy that these have."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

import mmphate_gpu as mp
from mmphate_gpu.diffusion import entropy as entropy_module
from mmphate_gpu.diffusion import entropy_with_error
from mmphate_gpu.diffusion.entropy import leading_singular_values
from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.linalg.components import components
from mmphate_gpu.plots import entropy, spectrum
from mmphate_gpu.slices import SliceLayout

from .results import assert_legible, axes_of, tick_names


def landmarks(*blocks):
    """Landmarks whose operator has these diagonal blocks."""
    operator = torch.block_diag(*(torch.as_tensor(block, dtype=torch.float64) for block in blocks))
    n = len(operator)
    return mp.Landmarks(operator, torch.eye(n).to_sparse_csr(), torch.arange(n))


def stochastic(n, seed=0):
    values = np.random.default_rng(seed).random((n, n)) ** 4 + np.eye(n)
    return values / values.sum(1, keepdims=True)


def notes(figure):
    return [text.get_text() for text in figure.texts]


def test_values_and_their_powers_are_shares_of_the_largest():
    operator = stochastic(30)
    source = landmarks(operator)
    figure = spectrum(source)
    axes = axes_of(figure, "values")
    values, powers, *dotted = (line.get_ydata() for line in axes.lines)
    expected = np.linalg.svd(operator, compute_uv=False)
    np.testing.assert_allclose(values, expected / expected[0], rtol=1e-12)
    t = mp.optimal_t(operator)
    np.testing.assert_allclose(powers, np.maximum((expected / expected[0]) ** (t + 1), 1e-7), rtol=1e-10)
    curve = mp.von_neumann_entropy(operator)
    marks = [line.get_xdata()[0] for line in axes.lines[2:]]
    np.testing.assert_allclose(marks, np.exp(curve[[0, t]]), rtol=1e-12)
    assert len(dotted) == 2
    np.testing.assert_array_equal(axes_of(figure, "entropy").lines[0].get_ydata(), curve)


def test_equal_values_count_themselves():
    """The identity has n equal singular values, so that exp(H) is n at every time, and every landmark is an island."""
    figure = spectrum(landmarks(*np.ones((8, 1, 1))))
    assert "8 landmarks, 8 islands, 8 values above 0.9 of the largest" in notes(figure)
    assert "singular values (dotted: exp(H) = 8.0)" in notes(figure)


def test_islands_and_values_near_the_largest_are_counted():
    halves = np.full((4, 4), 0.25)
    figure = spectrum(landmarks(halves, halves, halves))
    assert "12 landmarks, 3 islands, 3 values above 0.9 of the largest" in notes(figure)
    nearly = np.kron(np.array([[0.99, 0.01], [0.01, 0.99]]), halves)  # the values 1 and 0.98
    assert "8 landmarks, 1 island, 2 values above 0.9 of the largest" in notes(spectrum(landmarks(nearly)))


@pytest.mark.parametrize("as_input", [np.asarray, torch.from_numpy])
def test_an_estimator_has_its_time_and_entropy(as_input):
    trace = np.random.default_rng(0).normal(size=(30, 4, 6)).cumsum(0)
    op = mp.MMPHATE(n_landmark=40, t=7, random_state=0, device="cpu").fit(as_input(trace))
    figure = spectrum(op)
    assert any(text.startswith("their powers t + 1 = 8 ") for text in notes(figure))
    first, second = axes_of(figure, "entropy"), axes_of(entropy(op.result_), "entropy")
    for line, other in zip(first.lines, second.lines, strict=True):
        np.testing.assert_array_equal(line.get_xydata(), other.get_xydata())
    assert first.texts[0].get_text() == second.texts[0].get_text()


@pytest.mark.parametrize("t", ["auto", "eigenvalues"])
def test_a_time_that_was_chosen_has_a_band_and_its_range(t):
    trace = np.random.default_rng(0).normal(size=(30, 4, 6)).cumsum(0)
    op = mp.MMPHATE(n_landmark=40, t=t, random_state=0, device="cpu").fit(trace)
    low, high = op.t_range_
    for figure in (spectrum(op), spectrum(op, figsize=(3.35, 5.4)), entropy(op.result_), entropy(op.result_, op.t_)):
        assert_legible(figure)
        axes = axes_of(figure, "entropy")
        if len(axes.patches) == 0:  # a time that the caller names
            assert figure.axes[0].texts[0].get_text().startswith(f"$t$ = {op.t_}   (entropy")
        else:
            assert (axes.patches[0].get_x(), axes.patches[0].get_width()) == (low, high - low)
            assert axes.texts[0].get_text().startswith(f"$t$ = {op.t_} ({low} to {high})")
    assert len(axes.patches) == 0


def test_landmarks_have_the_range_of_their_knee():
    source = landmarks(stochastic(30))
    estimate = entropy_with_error(source.landmark_op)
    text = axes_of(spectrum(source), "entropy").texts[0].get_text()
    assert text.startswith(f"$t$ = {estimate.t} ({estimate.t_low} to {estimate.t_high})")


def test_a_time_of_eigenvalues_has_the_eigenvalues_drawn():
    trace = np.random.default_rng(0).normal(size=(30, 4, 6)).cumsum(0)
    op = mp.MMPHATE(n_landmark=40, t="eigenvalues", random_state=0, device="cpu").fit(trace)
    figure = spectrum(op)
    expected = np.sort(np.abs(np.linalg.eigvals(op.landmark_op_)))[::-1]
    # The general solver is off by more than the symmetric one; the largest eigenvalue is 1.
    np.testing.assert_allclose(axes_of(figure, "values").lines[0].get_ydata(), expected, rtol=0, atol=1e-10)
    assert any(text.startswith("eigenvalues (dotted: exp(H) = ") for text in notes(figure))
    scaled = op.landmark_degrees_[:, None] * op.landmark_op_
    np.testing.assert_allclose(scaled, scaled.T, rtol=0, atol=1e-12 * scaled.max())  # rounding


def test_a_time_beyond_the_curve_has_no_dotted_line():
    trace = np.random.default_rng(0).normal(size=(30, 4, 6)).cumsum(0)
    op = mp.MMPHATE(n_landmark=40, t=200, random_state=0, device="cpu").fit(trace)
    figure = spectrum(op)
    assert "their powers t + 1 = 201" in notes(figure)
    assert len(axes_of(figure, "values").lines) == 3
    assert_legible(figure)


def test_large_components_have_their_leading_values(monkeypatch):
    """A sampled component has the leading values that converged; they are those of the SVD, beside all of the small."""
    operator = landmarks(stochastic(300, seed=1), stochastic(5)).landmark_op
    groups = components(operator)
    every = leading_singular_values(operator, groups).numpy()
    assert len(every) == 305
    monkeypatch.setattr(entropy_module, "SAMPLE_ABOVE", {"cpu": 40, "cuda": 40})
    leading = leading_singular_values(operator, groups).numpy()
    assert 5 < len(leading) <= 205
    small = np.linalg.svd(operator[:5, :5].numpy() if groups[0][0, 0] == 0 else operator[300:, 300:].numpy())[1]
    assert np.abs(leading[:, None] - small).min(0).max() < 1e-12
    # The error of an eigenvalue of A^T A is the square of the residual, 1e-5 of the largest.
    np.testing.assert_allclose(np.abs(leading[:, None] - every).min(1), 0, atol=1e-9)
    figure = spectrum(mp.Landmarks(operator, torch.eye(305).to_sparse_csr(), torch.arange(305)))
    assert f"the {len(leading)} leading values: large islands are sampled" in notes(figure)


@pytest.mark.parametrize("figsize", [None, (3.35, 5.4), (7.2, 3.4), (2.5, 4.2)])
@pytest.mark.parametrize("n", [3, 8, 40, 400])
def test_texts_do_not_touch(n, figsize):
    figure = spectrum(landmarks(stochastic(n)), figsize=figsize)
    assert_legible(figure)
    names = tick_names(axes_of(figure, "values"), "x")
    assert names[0] == "1" and names[-1] == str(n) and len(set(names)) == len(names)


@pytest.mark.parametrize("t", [0, 20, 50, 60, 90, 99, 1000])
@pytest.mark.parametrize("figsize", [None, (3.35, 2.2), (2.5, 1.5)])
def test_the_label_of_the_time_has_room(t, figsize):
    curve = np.linspace(3, 1, 100)
    assert_legible(entropy(curve, t, figsize=figsize))
    if t > 0:
        layout = SliceLayout.of_shape(2, 1, 1)
        shown = mp.Embedding(np.zeros((2, 2)), layout, entropy=curve, t=t, t_range=(max(1, t - 5), t + 5))
        assert_legible(entropy(shown, figsize=figsize))


def test_bad_arguments_are_refused(tmp_path):
    with pytest.raises(InputTypeError, match="estimator_or_landmarks is a ndarray; accepted: a fitted MMPHATE or"):
        spectrum(np.eye(3))
    with pytest.raises(NotFittedError, match="not fitted"):
        spectrum(mp.MMPHATE())
    with pytest.raises(InputError, match="figsize=.* has no room for the panels; accepted: a height of 3.7 or more"):
        spectrum(landmarks(stochastic(5)), figsize=(3.35, 2.5))
    with pytest.raises(InputError, match="figsize"):
        entropy([3.0, 2.0], figsize=(1, 1))
    with pytest.raises(InputError, match="path"):
        spectrum(landmarks(stochastic(5)), path=tmp_path / "picture.gif")


def test_a_file_is_written(tmp_path):
    spectrum(landmarks(stochastic(5)), path=tmp_path / "spectrum.pdf")
    assert (tmp_path / "spectrum.pdf").read_bytes().startswith(b"%PDF")
