"""Rankings: every unit is linked from its place in a score to its place in the next, or is a dot for each pair."""

import numpy as np
import pytest

from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.plots import unit_rankings
from mmphate_gpu.plots.canvas import SMALLEST

from .results import HOSTILE, HOSTILE_SHOWN, assert_legible, axes_of, importance, shown_texts

SCORES = ("inter-step entropy", "ablation", "label information")


def annotations(axes):
    return [text.get_text() for text in axes.texts]


def test_units_are_linked_in_the_order_of_their_ranks():
    result = importance(20)
    axes = axes_of(unit_rankings(result), "rankings")
    segments = np.array(axes.collections[0].get_segments())
    np.testing.assert_array_equal(segments[:, :, 1] + 1, np.array(list(result.ranks.values())).T)
    first, last = (np.argsort(result.ranks[name]) for name in ("entropy", "label information"))
    assert annotations(axes)[:40] == [str(unit) for unit in [*first, *last]]
    low, high = axes.get_ylim()
    assert low > high  # the most important unit is at the top


def test_every_pair_of_scores_has_its_correlation():
    figure = unit_rankings(importance(20))
    assert annotations(axes_of(figure, "rankings"))[-2:] == ["ρ = -0.50\np = 0.001", "ρ = 0.90\np = 0.9"]
    assert "entropy – label information: ρ = 0.20, p = 0.45" in [text.get_text() for text in figure.texts]


def test_scores_without_an_order_have_no_correlation():
    result = importance(20, ("a", "b"))
    result.spearman[:] = result.p[:] = np.nan
    assert annotations(axes_of(unit_rankings(result), "rankings"))[-1] == "no correlation"


def test_equal_ranks_lie_beside_one_another():
    result = importance(4, ("a", "b"))
    result.ranks["a"] = np.array([2.5, 1, 2.5, 4])
    axes = axes_of(unit_rankings(result), "rankings")
    assert [path[0, 1] for path in axes.collections[0].get_segments()] == [1, 0, 2, 3]
    assert annotations(axes)[:4] == ["1", "0", "2", "3"]


def test_many_units_are_dots_in_planes():
    result = importance(5000)
    figure = unit_rankings(result)
    assert [axes.get_label() for axes in figure.axes] == ["0", "1", "2"]
    for axes, pair in zip(figure.axes, result.pairs, strict=True):
        dots = np.asarray(axes.collections[0].get_offsets()).T
        np.testing.assert_array_equal(dots, [result.ranks[name] for name in pair])
        assert (axes.get_xlabel(), axes.get_ylabel()) == pair
    assert [axes.get_title(loc="left") for axes in figure.axes][0] == "ρ = -0.50, p = 0.001"


@pytest.mark.parametrize("unit", [8, 100])
def test_units_without_a_rank_are_counted(unit):
    result = importance(unit)
    result.ranks["ablation"][[1, 3]] = np.nan
    figure = unit_rankings(result)
    assert f"2 of {unit} units have no rank by some score" in [text.get_text() for text in figure.texts]
    shown = figure.axes[0].collections[0]
    assert len(shown.get_segments() if unit == 8 else shown.get_offsets()) == unit - 2
    assert_legible(figure)


@pytest.mark.parametrize(
    "unit, scores, figsize",
    [
        (1, SCORES[:2], None),
        (1, SCORES[:2], (3.35, 2.6)),
        (20, SCORES, None),
        (20, SCORES, (3.35, 3.6)),
        (60, SCORES, None),
        (60, SCORES, (3.35, 5)),
        (HOSTILE, ("$a_", "_b", "c\nd", ""), None),
        (np.array([f"encoder.layer.{i}" for i in range(30)]), (*SCORES, "another"), (3.35, 4.5)),
        (5000, SCORES, None),
        (100, SCORES, (3.35, 5)),
        (100, (*SCORES, "another"), None),
        (100, SCORES[:1], (3.35, 4)),
        (20, (*SCORES, "a_long_name_without_a_space"), (3.35, 4)),
    ],
)
def test_texts_do_not_touch(unit, scores, figsize):
    assert_legible(unit_rankings(importance(unit, scores), figsize=figsize))


@pytest.mark.parametrize("scores", [SCORES, (*SCORES, "another")])
def test_names_of_scores_are_broken_between_words(scores):
    axes = axes_of(unit_rankings(importance(20, scores), figsize=(3.35, 3.6)), "rankings")
    names = annotations(axes)[40 : 40 + len(scores)]
    assert names == ["inter-step\nentropy", "ablation", "label\ninformation", "another"][: len(scores)]


def test_hostile_names_are_drawn_as_they_are():
    figure = unit_rankings(importance(HOSTILE, ("$a_", "_b")))
    figure.canvas.draw()
    assert set(annotations(figure.axes[0])[:12]) == set(HOSTILE_SHOWN)
    assert annotations(figure.axes[0])[12:14] == ["$a_", "_b"]


def test_bad_arguments_are_refused(tmp_path):
    with pytest.raises(InputTypeError, match="importance is a dict; accepted: UnitImportance"):
        unit_rankings({})
    with pytest.raises(InputError, match="importance has no unit that all scores rank"):
        result = importance(3)
        result.ranks["ablation"][:] = np.nan
        unit_rankings(result)
    for unit in (3, 100):
        with pytest.raises(InputError, match="figsize"):
            unit_rankings(importance(unit), figsize=(1, 1))
        with pytest.raises(InputTypeError, match="figsize"):
            unit_rankings(importance(unit), figsize="large")
    with pytest.raises(InputError, match="path"):
        unit_rankings(importance(3), path=tmp_path / "picture.gif")


@pytest.mark.parametrize("unit", [5, 100])
def test_a_file_is_written(tmp_path, unit):
    unit_rankings(importance(unit), path=tmp_path / "ranks.png")
    assert (tmp_path / "ranks.png").read_bytes().startswith(b"\x89PNG")


EIGHT = ("entropy", "ablation", "label information", "displacement", "communities", "activity", "$w_1$", "a long name")


@pytest.mark.parametrize("figsize", [None, (3.35, 6.0), (7.2, 5.0)])
def test_eight_scores_are_legible_with_all_their_correlations(figsize):
    result = importance(12, EIGHT)
    figure = unit_rankings(result, figsize=figsize)
    assert_legible(figure)
    texts = shown_texts(figure)
    assert min(text.get_fontsize() for text in texts) >= SMALLEST
    assert sum("ρ = " in text.get_text() for text in texts) == len(result.pairs) == 28


def test_a_figure_without_room_for_the_correlations_is_refused():
    with pytest.raises(InputError, match="no room for the panels; accepted: a height of 5.6 or more at this width"):
        unit_rankings(importance(12, EIGHT), figsize=(3.35, 5.2))
