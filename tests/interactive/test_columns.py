"""Columns of a page: numbers, text, dates and missing values, by node or by axis."""

import numpy as np
import pytest

from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.interactive import page
from mmphate_gpu.slices import SliceLayout

from .pages import blocks_of, facts_of, fake

EMBEDDING = fake((6, 5, 4))  # 120 nodes


def column(values, embedding=EMBEDDING, **options):
    """The facts of a column and its codes, by node or by place of its axis."""
    text = page(embedding.coordinates, embedding.layout, columns={"x": values}, **options)
    facts = facts_of(text)["colorings"][-1]
    return facts, np.array(facts["codes"]) if "codes" in facts else blocks_of(text)[facts["block"]].ravel()


def test_text_is_a_category():
    facts, codes = column(np.resize(["b", "a", "c"], 120))
    assert facts["names"] == ["a", "b", "c"] and facts["categories"] and not facts["missing"]
    assert codes[:3].tolist() == [1, 0, 2] and facts["of"] == "node"


def test_few_numbers_are_kept_as_they_are():
    facts, codes = column(np.resize([0.1, 2.5, np.nan], 120))
    assert facts["names"] == ["0.1", "2.5"] and facts["values"] == [0.1, 2.5]
    assert (facts["low"], facts["high"], facts["categories"], facts["missing"]) == (0.1, 2.5, False, True)
    assert codes[:3].tolist() == [0, 1, 65535]


def test_huge_whole_numbers_are_written_out():
    facts, _ = column(np.resize([2**63, 2**64 - 1], 120).astype(np.uint64))
    assert facts["names"] == ["9223372036854775808", "18446744073709551615"]


@pytest.mark.parametrize("scale", [1.0, 1e308])
def test_many_numbers_have_sixteen_bits(scale):
    embedding = fake((50, 20, 6))
    values = np.random.default_rng(0).uniform(-1, 1, embedding.n_nodes)
    values[7] = np.nan
    facts, codes = column(values * scale, embedding)
    assert "names" not in facts and codes[7] == 65535
    shown = (facts["low"] / scale) + codes / 65534 * (facts["high"] / scale - facts["low"] / scale)
    # Half a step of 65,534, and the rounding of these three operations.
    assert np.nanmax(np.abs(np.delete(shown - values, 7))) <= 2 / 131068 * (1 + 1e-9)


def test_dates_are_ordered():
    dates = np.array("2024-01-01", "M8[D]") + np.arange(120) % 3
    dates[0] = np.datetime64("NaT")
    facts, codes = column(dates)
    assert facts["names"] == ["2024-01-01", "2024-01-02", "2024-01-03"]
    assert codes[:2].tolist() == [65535, 1] and not facts["categories"]


@pytest.mark.parametrize("axis, size", [("epoch", 6), ("timestep", 5), ("unit", 4)])
def test_a_column_of_an_axis_has_a_value_per_place(axis, size):
    facts, codes = column((axis, np.arange(size) * 0.5))
    assert facts["of"] == axis and codes.tolist() == list(range(size)) and "block" not in facts


def test_columns_of_axes_lose_what_is_left_out():
    facts, codes = column(("epoch", np.arange(6) * 10), max_nodes=40)
    kept = facts_of(page(EMBEDDING.coordinates, EMBEDDING.layout, max_nodes=40))["epochs"]
    assert [facts["values"][code] for code in codes] == [10 * epoch for epoch in kept] and len(kept) < 6


def test_booleans_and_bytes_are_names():
    assert column(np.arange(120) % 2 == 0)[0]["names"] == ["False", "True"]
    assert column([b"x", b"y"] * 60)[0]["names"] == ["x", "y"]


def test_a_column_without_any_value():
    facts, codes = column(np.full(120, np.nan))
    assert facts["names"] == [] and facts["missing"] and (codes == 65535).all()


def test_labels_of_axes_are_short_rules_where_they_can_be():
    layout = SliceLayout(np.arange(0, 60, 10), np.array(["2024-01-01T12", "2024-01-02"], "M8[h]"), np.array([0.5, 1.0]))
    axes = facts_of(page(np.arange(48.0).reshape(24, 2), layout))["axes"]
    assert axes["epoch"] == {"start": 0, "step": 10, "count": 6}
    assert axes["timestep"] == ["2024-01-01 12:00", "2024-01-02 00:00"] and axes["unit"] == ["0.5", "1"]


@pytest.mark.parametrize(
    "columns, message",
    [
        ([1, 2], "columns is a list; accepted: a mapping from names"),
        ({3: np.zeros(120)}, "columns has the name 3"),
        ({"": np.zeros(120)}, "columns has the name ''"),
        ({"x": np.zeros(7)}, r"columns\['x'\] has shape \(7,\); accepted: \(120,\), a value per node"),
        ({"x": ("unit", np.zeros(7))}, r"columns\['x'\] has shape \(7,\); accepted: \(4,\), a value per unit"),
        ({"x": ("units", np.zeros(4))}, r"the axis of columns\['x'\]='units' is unknown; accepted: 'epoch'"),
        ({"x": ("unit", np.zeros(4), 3)}, r"columns\['x'\] is a tuple of 3"),
        ({"x": np.zeros((120, 1))}, r"has shape \(120, 1\)"),
        ({"x": np.full(120, np.inf)}, r"columns\['x'\] holds infinite numbers"),
        ({"x": np.zeros(120, complex)}, r"columns\['x'\] has dtype complex128"),
        ({"x": [object()] * 120}, r"columns\['x'\] holds Python objects"),
    ],
)
def test_bad_columns_are_refused(columns, message):
    with pytest.raises(InputError, match=message):
        page(EMBEDDING.coordinates, EMBEDDING.layout, columns=columns)


def test_more_names_than_codes_are_refused():
    layout = SliceLayout.of_shape(70, 100, 10)
    names = np.arange(70_000).astype(str)
    with pytest.raises(InputError, match=r"columns\['x'\] has 70,000 different values; accepted: at most 65,534"):
        page(np.zeros((70_000, 2)), layout, columns={"x": names})
    with pytest.raises(InputError, match=r"columns\['Most active class'\] has 70,000 different values"):
        page(np.zeros((70_000, 2)), layout, most_active=np.arange(70_000))
    with pytest.raises(InputTypeError):
        page(np.zeros((70_000, 2)), layout, columns=3)


def test_many_classes_that_are_numbers_stay_categories():
    layout = SliceLayout.of_shape(5, 10, 100)
    text = page(np.zeros((5_000, 2)), layout, most_active=np.arange(5_000))
    assert facts_of(text)["colorings"][3]["categories"] and len(facts_of(text)["colorings"][3]["names"]) == 5_000
    assert blocks_of(text)[2].ravel().tolist() == list(range(5_000))
