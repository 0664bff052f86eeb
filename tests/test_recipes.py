"""Recipes: named sets of parameters, for the estimators and for `LiveEmbedding`. The command line is in tests/cli."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import clone

from mmphate_gpu import M_PHATE, MMPHATE, InputError, InputTypeError, LiveEmbedding, Params, Recorder
from mmphate_gpu.cli.arguments import FIT
from mmphate_gpu.params import RECIPES, recipe_parameters

STABLE = RECIPES["stable"]


def walk() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(30, 4, 10)).cumsum(0)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_legal_parameters_with_an_option_each(name):
    recipe = RECIPES[name]
    Params(**recipe)
    assert recipe.keys() <= MMPHATE().get_params().keys() and set(recipe) <= set(FIT)
    assert not {"random_state", "device", "n_components"} & recipe.keys()  # these are the user's


def test_the_recipe_default_changes_nothing_and_stable_changes_something():
    assert RECIPES["default"] == {} and Params(**STABLE) != Params()


def test_a_copy_of_a_recipe_can_be_changed():
    recipe_parameters("stable")["gamma"] = 7
    assert recipe_parameters("stable") == STABLE


@pytest.mark.parametrize("name", ["steady", "", None, 3, ["stable"]])
def test_an_unknown_recipe_is_refused(name):
    with pytest.raises(InputError) as caught:
        recipe_parameters(name)
    assert str(caught.value) == f"recipe={name!r} is unknown; accepted: 'default', 'stable'"


# ---------------------------------------------------------------- the estimators


@pytest.mark.parametrize("estimator", [MMPHATE, M_PHATE])
def test_stable_is_the_estimator_with_the_parameters_of_the_recipe(estimator):
    op = estimator.stable(random_state=3)
    assert type(op) is estimator
    assert op.get_params() == estimator().get_params() | STABLE | {"random_state": 3}
    assert clone(op).get_params() == op.get_params() and repr(clone(op)) == repr(op)


@pytest.mark.parametrize("estimator", [MMPHATE, M_PHATE])
def test_parameters_win_over_the_recipe(estimator):
    op = estimator.stable(gamma=0.5, landmarks="spectral", n_components=3)
    assert (op.gamma, op.landmarks, op.n_components) == (0.5, "spectral", 3)


def test_unknown_parameters_are_refused():
    with pytest.raises(TypeError, match="components"):
        MMPHATE.stable(components=3)
    with pytest.raises(InputTypeError, match="use intraslice_knn"):
        M_PHATE.stable(knn=5)


def test_the_names_of_m_phate_are_accepted():
    op = M_PHATE.stable(mds="classic", n_jobs=1)
    assert (op.mds_solver, op.n_jobs) == ("classic", 1)


def test_the_picture_is_that_of_the_parameters():
    fit = {"n_landmark": 40, "random_state": 0, "device": "cpu"}
    picture = MMPHATE.stable(**fit).fit_transform(walk())
    np.testing.assert_array_equal(picture, MMPHATE(**STABLE | fit).fit_transform(walk()))
    assert not np.array_equal(picture, MMPHATE(**fit).fit_transform(walk()))


# ---------------------------------------------------------------- LiveEmbedding


def live_embedding(**options):
    rnn = torch.nn.GRU(2, 3, device="cpu")
    probe = torch.randn(6, 4, 2, generator=torch.Generator().manual_seed(0), device="cpu")
    options |= {"out": None, "max_overhead": None, "n_landmark": 40}
    with Recorder(rnn, "", probe) as recorder, LiveEmbedding(recorder, **options) as live:
        for epoch in range(4):
            recorder.snapshot(epoch)
            torch.nn.init.constant_(rnn.bias_hh_l0, epoch)
    return recorder.trace(), live.embedding.coordinates


def test_a_live_embedding_follows_a_recipe():
    trace, coordinates = live_embedding(recipe="stable", interslice_knn=5)
    options = STABLE | {"n_landmark": 40, "interslice_knn": 5, "random_state": 0, "device": "cpu"}
    expected = MMPHATE(**options).fit(trace).result_.coordinates
    # The picture is turned onto the one before it, so distances are compared; float32 coordinates have 7 digits.
    sizes = [np.linalg.norm(points - points.mean(0), axis=1) for points in (coordinates, expected)]
    np.testing.assert_allclose(*sizes, rtol=1e-5, atol=1e-5)


def test_a_live_embedding_refuses_an_unknown_recipe():
    with pytest.raises(InputError, match="recipe='steady' is unknown; accepted: 'default', 'stable'"):
        live_embedding(recipe="steady")
