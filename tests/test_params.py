"""Parameters are checked, and the message of every error names the parameter, its value and what is accepted."""

from __future__ import annotations

import dataclasses
import inspect
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from mmphate_gpu import reference
from mmphate_gpu.errors import InputError, InputTypeError, check_choice, check_number
from mmphate_gpu.params import STAGE_PARAMETERS, Labels, Params


def test_errors_are_also_builtin_errors():
    assert issubclass(InputError, ValueError)
    assert issubclass(InputTypeError, InputError) and issubclass(InputTypeError, TypeError)


def test_defaults_are_those_of_the_method():
    values = {field.name: field.default for field in dataclasses.fields(Params)}
    wanted = {
        "n_components": 2,
        "intraslice_knn": 2,
        "interslice_knn": 25,
        "decay": 5,
        "t": "auto",
        "t_max": 100,
        "gamma": 0,
        "n_landmark": 4000,
        "normalize": True,
        "mds_solver": "smacof",
        "mds_dist": "euclidean",
        "n_pca": 100,
        "n_svd": 100,
        "thresh": 1e-4,
        "random_state": None,
    }
    assert {name: values[name] for name in wanted} == wanted
    oracle = inspect.signature(reference.mmphate).parameters
    assert {name: oracle[name].default for name in wanted} == wanted


def test_a_stage_reads_every_parameter_except_the_device():
    read = {name for names in STAGE_PARAMETERS.values() for name in names}
    assert read == {field.name for field in dataclasses.fields(Params)} - {"device"}


def test_params_are_frozen_and_comparable():
    assert Params() == Params() and Params(t=3) != Params(t=4) and hash(Params()) == hash(Params())
    with pytest.raises(dataclasses.FrozenInstanceError):
        Params().t = 3
    assert dataclasses.replace(Params(), t=3).t == 3


GOOD = [
    {"n_components": 1},
    {"n_components": np.int64(3)},
    {"decay": None},
    {"decay": 0.1},
    {"decay": np.float32(2)},
    {"t": 1},
    {"t": np.int32(7)},
    {"t_max": 4},
    {"gamma": -1},
    {"gamma": 1},
    {"gamma": Fraction(1, 2)},
    {"n_landmark": None},
    {"n_landmark": 2},
    {"landmarks": "stratified"},
    {"n_pca": None},
    {"n_pca": 1},
    {"thresh": 0},
    {"thresh": 0.5},
    {"random_state": 0},
    {"random_state": 2**63 - 1},
    {"normalize": False},
    {"storage": "lazy"},
    {"knn_backend": "keops"},
    {"mds_solver": "nonmetric"},
    {"mds_dist": "cosine"},
    {"n_init": 4},
    {"islands": "states"},
    {"refine_knn": 0},
    {"refine_knn": np.int64(10)},
]


@pytest.mark.parametrize("options", GOOD, ids=str)
def test_good_values_are_kept(options):
    ((name, value),) = options.items()
    assert getattr(Params(**options), name) == value


WHOLE = ["n_components", "intraslice_knn", "interslice_knn", "n_landmark", "n_init", "refine_knn", "n_pca", "n_svd"]


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers_are_kept_as_int(name):
    """Sizes are multiplied by them, which overflows in a small type."""
    assert type(getattr(Params(**{name: np.int8(5)}), name)) is int


def test_labels_are_equal_by_value():
    """This decides whether a stage is run again. The array of the user may change afterwards."""
    values = np.arange(6) % 3
    params = Params(landmarks=values)
    same, other = Params(landmarks=torch.from_numpy(values.astype(np.int32))), Params(landmarks=values[::-1].tolist())
    assert params == same and hash(params) == hash(same) and params != other and params != Params()
    values[0] = 2
    assert params == same and params != Params(landmarks=values)
    assert params.landmarks == Labels(params.landmarks.values) and "6 nodes, 3 landmarks" in repr(params)


@pytest.mark.filterwarnings("error")
def test_labels_may_have_many_types():
    wanted = Params(landmarks=[0, 1, 2, 3])
    locked = np.arange(4)
    locked.flags.writeable = False
    backwards = np.arange(4)[::-1].copy()[::-1]
    others = [range(4), locked, backwards, np.arange(4, dtype=np.uint64), torch.arange(4, dtype=torch.uint8)]
    others += [np.arange(4, dtype=">i4"), np.arange(4).astype(">u8"), torch.arange(4).to(torch.uint64)]
    others += [pytest.importorskip("xarray").DataArray(np.arange(4))]
    assert all(Params(landmarks=labels) == wanted for labels in others)


NO_LABELS = [[[0], [1, 2]], ["a", "b"], {"a": 1}, None, object(), [], np.zeros(3)]


@pytest.mark.parametrize("labels", NO_LABELS, ids=lambda labels: type(labels).__name__)
def test_objects_that_are_no_labels_are_refused(labels):
    with pytest.raises(
        InputTypeError, match="landmarks .*; accepted: .*one whole number from 0 per node, or 'spectral'"
    ):
        Params(landmarks=labels)


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        (np.array([0, 2**63 + 5], np.uint64), InputError, "contains 9223372036854775813; .* 0 to 9223372036854775807,"),
        (np.array([1, -2], ">i2"), InputError, "contains -2; accepted: numbers from 0"),
        (np.array(["a", "bc"]), InputTypeError, "has dtype <U2; accepted: integers"),
        (np.array([0, None]), InputTypeError, "has dtype object; accepted: integers"),
        (np.zeros(3, ">f4"), InputTypeError, "has dtype >f4; accepted: integers"),
        (torch.zeros(3, dtype=torch.bfloat16), InputTypeError, "has dtype torch.bfloat16; accepted: integers"),
    ],
    ids=lambda value: str(getattr(value, "dtype", "")),
)
def test_errors_of_labels_name_the_value_or_dtype(labels, error, words):
    with pytest.raises(error, match=f"landmarks {words}"):
        Labels(labels)


@pytest.mark.parametrize("make", [lambda a: a, list, lambda a: tuple(a)], ids=["array", "list", "tuple"])
def test_masked_labels_are_refused(make):
    """The number under the mask is no landmark. NumPy fills in 999999."""
    hidden = np.ma.masked_array([0, 1, 999999, 1], [False, False, True, False])
    with pytest.raises(InputError, match="clusters is masked; accepted: one whole number from 0 per node"):
        Labels(make(hidden), "clusters")
    assert Labels(make(np.ma.masked_array([0, 1, 2, 1]))) == Labels([0, 1, 2, 1])


def test_most_landmarks_is_at_most_the_number_of_nodes():
    assert Params().most_landmarks(5000) == 4000 and Params().most_landmarks(50) == 50
    assert Params(n_landmark=None).most_landmarks(5000) == 5000
    assert Params(landmarks=[4, 4, 9, 0]).most_landmarks(4) == 3


OUT_OF_RANGE = [
    ("n_components", 0, "an integer >= 1"),
    ("intraslice_knn", 0, "an integer >= 1"),
    ("interslice_knn", -3, "an integer >= 1"),
    ("decay", 0, "a number > 0"),
    ("decay", -5, "a number > 0"),
    ("decay", math.nan, "a number > 0"),
    ("t", 0, "an integer >= 1"),
    ("t_max", 3, "an integer >= 4"),
    ("gamma", 1.01, "a number >= -1 and <= 1"),
    ("gamma", -2, "a number >= -1 and <= 1"),
    ("gamma", math.inf, "a number >= -1 and <= 1"),
    ("n_landmark", 1, "an integer >= 2"),
    ("n_pca", 0, "an integer >= 1"),
    ("n_init", 0, "an integer >= 1"),
    ("refine_knn", -1, "an integer >= 0"),
    ("n_svd", 0, "an integer >= 1"),
    ("thresh", -1e-9, "a number >= 0 and <= 0.5"),
    ("thresh", 0.6, "a number >= 0 and <= 0.5"),
    ("random_state", -1, "an integer >= 0"),
    ("random_state", 2**63, "an integer >= 0"),
]


@pytest.mark.parametrize(("name", "value", "accepted"), OUT_OF_RANGE, ids=str)
def test_values_out_of_range_are_refused(name, value, accepted):
    with pytest.raises(InputError) as caught:
        Params(**{name: value})
    assert not isinstance(caught.value, TypeError)
    assert str(caught.value).startswith(f"{name}={value!r} is out of range; it must be {accepted}")


WRONG_TYPE = [
    ("n_components", 2.0, "an integer >= 1"),
    ("n_components", "2", "an integer >= 1"),
    ("n_components", True, "an integer >= 1"),
    ("n_components", None, "an integer >= 1"),
    ("interslice_knn", None, "an integer >= 1"),
    ("decay", "5", "a number > 0"),
    ("decay", 1j, "a number > 0"),
    ("decay", [5], "a number > 0"),
    ("t", 2.5, "an integer >= 1"),
    ("t", None, "an integer >= 1"),
    ("t", False, "an integer >= 1"),
    ("gamma", None, "a number >= -1 and <= 1"),
    ("n_landmark", 100.0, "an integer >= 2"),
    ("thresh", np.array([0.1]), "a number >= 0"),
    ("random_state", 1.5, "an integer >= 0"),
    ("random_state", np.random.default_rng(0), "an integer >= 0"),
]


@pytest.mark.parametrize(("name", "value", "accepted"), WRONG_TYPE, ids=str)
def test_values_of_the_wrong_type_are_refused(name, value, accepted):
    with pytest.raises(InputTypeError) as caught:
        Params(**{name: value})
    assert str(caught.value).startswith(f"{name}={value!r} must be {accepted}")


@pytest.mark.parametrize("value", [1, 0, None, "yes", np.True_])
def test_normalize_is_true_or_false(value):
    with pytest.raises(InputTypeError, match="normalize=.* must be True or False"):
        Params(normalize=value)


CHOICES = [
    ("t", "knee", "'auto', 'eigenvalues'"),
    ("storage", "dense", "'auto', 'sparse', 'tiles', 'lazy'"),
    ("landmarks", "random", "'spectral', 'stratified'"),
    ("knn_backend", "faiss", "'auto', 'torch', 'scipy', 'keops', 'pynndescent'"),
    ("mds_solver", "sgd", "'classic', 'smacof', 'nonmetric'"),
    ("mds_dist", "manhattan", "'euclidean', 'cosine'"),
    ("islands", "apart", "'potential', 'states'"),
    ("storage", "", "'auto', 'sparse', 'tiles', 'lazy'"),
    ("storage", None, "'auto', 'sparse', 'tiles', 'lazy'"),
    ("storage", 3, "'auto', 'sparse', 'tiles', 'lazy'"),
]


@pytest.mark.parametrize(("name", "value", "accepted"), CHOICES, ids=str)
def test_unknown_choices_are_refused(name, value, accepted):
    with pytest.raises(InputError) as caught:
        Params(**{name: value})
    assert str(caught.value) == f"{name}={value!r} is unknown; accepted: {accepted}"


@pytest.mark.parametrize("value", [["a"], {"a": 1}, np.array(["a", "b"]), ("a",)], ids=str)
@pytest.mark.parametrize("choices", [("a", "b"), {"a": 1, "b": 2}], ids=["tuple", "dict"])
def test_a_choice_that_is_no_text_is_refused(value, choices):
    """Values without a hash, and values whose comparison gives an array, raise no other error."""
    with pytest.raises(InputError, match="name=.* is unknown; accepted: 'a', 'b'"):
        check_choice("name", value, choices)


def test_check_choice_returns_the_choice():
    assert check_choice("name", "a", ("a", "b")) == "a"


@pytest.mark.parametrize(
    ("value", "options", "wanted"),
    [
        (3, {}, 3.0),
        (3, {"integer": True}, 3),
        (np.int8(3), {"integer": True}, 3),
        (np.float32(0.5), {}, 0.5),
        (0, {"low": 0}, 0.0),
        (1, {"low": 0, "open_low": True, "high": 1}, 1.0),
    ],
)
def test_check_number_returns_a_plain_number(value, options, wanted):
    result = check_number("x", value, **options)
    assert result == wanted and type(result) is type(wanted)


@pytest.mark.parametrize("value", [10**400, -(10**400), float("inf"), np.float32("nan")])
def test_check_number_refuses_what_no_float_holds(value):
    with pytest.raises(InputError, match="out of range"):
        check_number("x", value)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "a number"),
        ({"low": 0}, "a number >= 0"),
        ({"low": 0, "open_low": True}, "a number > 0"),
        ({"high": 2}, "a number <= 2"),
        ({"low": 1, "high": 2, "integer": True}, "an integer >= 1 and <= 2"),
    ],
)
def test_check_number_says_what_is_accepted(options, text):
    with pytest.raises(InputTypeError) as caught:
        check_number("x", "1", **options)
    assert str(caught.value) == f"x='1' must be {text}"
