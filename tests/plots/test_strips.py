"""Strips of communities: a color for every unit and epoch, with silhouette, null and stability above."""

import matplotlib
import numpy as np
import pytest

from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.plots import community_strips, entropy_curves, heatmap, unit_rankings

from .results import HOSTILE, HOSTILE_SHOWN, assert_legible, axes_of, entropies, importance, probes, strips, tick_names
from .test_plot_texts import HOSTILE as HOSTILE_SETTINGS

COLUMN = (3.35, 3.6)


def keys(figure):
    return [[text.get_text() for text in axes.get_legend().get_texts()] for axes in figure.axes if axes.get_legend()]


def test_every_cell_has_the_color_of_its_community():
    result = strips(noise=True)
    image = axes_of(community_strips(result), "communities").images[0]
    order = np.lexsort(np.where(result.community < 0, 9, result.community))
    expected = np.ma.masked_less(result.community[:, order].T, 0)
    np.testing.assert_array_equal(image.get_array().filled(-1), expected.filled(-1))
    assert len(np.unique(image.cmap(image.norm(np.arange(4))), axis=0)) == 4
    last = image.get_array()[:, -1].filled(9)
    assert (np.diff(last) >= 0).all() and last[-1] == 9  # units without a community come last


def test_the_numbers_of_communities_need_not_be_consecutive():
    result = strips(2, 4, 2)
    result.community[:] = [[7, 7, 3, 3], [7, 3, 3, 7]]
    figure = community_strips(result)
    assert keys(figure)[-1] == ["3", "7"]
    assert axes_of(figure, "communities").images[0].get_array().max() == 1


def test_the_null_is_a_band_behind_the_silhouette():
    result = strips()
    axes = axes_of(community_strips(result), "silhouette")
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), result.silhouette)
    band = axes.collections[0].get_paths()[0].get_extents()
    # 41 values from 0.1 to 0.3: the quantiles are the second and the last but one.
    np.testing.assert_allclose((band.y0, band.y1, band.x0, band.x1), (0.105, 0.295, -0.5, 11.5))


def test_curves_are_named_and_share_the_epochs():
    figure = community_strips(strips(noise=True))
    assert keys(figure) == [["data", "null"], ["seeds", "epochs"], ["0", "1", "2", "3", "none"]]
    panels = [axes_of(figure, name) for name in ("silhouette", "stability", "communities")]
    assert {axes.get_xlim() for axes in panels} == {(-0.5, 11.5)}
    seeds, epochs = panels[1].lines[:2]
    assert list(seeds.get_xdata()) == list(range(12)) and epochs.get_xdata()[0] == 0.5  # between two epochs
    assert panels[2].get_xlabel() == "Epoch" and tick_names(panels[2], "x") == [str(i) for i in range(12)]


def test_a_single_partition_is_one_column():
    result = strips(None)
    result.seed_stability[:] = np.nan
    figure = community_strips(result)
    assert [axes.get_label() for axes in figure.axes if axes.get_label() != "key"] == ["silhouette", "communities"]
    assert axes_of(figure, "communities").images[0].get_array().shape == (20, 1)
    assert axes_of(figure, "communities").get_xlabel() == ""
    assert_legible(figure)


def test_without_nulls_no_band_is_drawn():
    for null in (np.zeros((12, 0)), np.full((12, 3), np.nan)):
        result = strips()
        object.__setattr__(result, "null_silhouette", null)
        figure = community_strips(result)
        assert keys(figure)[0] == ["data"] and len(axes_of(figure, "silhouette").collections) == 0


@pytest.mark.parametrize("figsize", [None, COLUMN])
@pytest.mark.parametrize("epoch, unit, n", [(2, 3, 2), (100, 5000, 12), (HOSTILE, HOSTILE, 3), (12, 60, 30)])
def test_texts_do_not_touch(epoch, unit, n, figsize):
    assert_legible(community_strips(strips(epoch, unit, n, noise=True), figsize=figsize))


def test_the_key_of_many_communities_has_columns():
    figure = community_strips(strips(100, 500, 10, noise=True), figsize=COLUMN)
    names = [axes.get_legend() for axes in figure.axes if axes.get_legend()][-1].get_texts()
    assert [name.get_text() for name in names] == [*map(str, range(10)), "none"]
    assert min(name.get_fontsize() for name in names) >= 6.8
    assert_legible(figure)


def test_hostile_names_are_drawn_as_they_are():
    figure = community_strips(strips(HOSTILE, HOSTILE, 2))
    figure.canvas.draw()
    assert tick_names(axes_of(figure, "communities"), "x") == HOSTILE_SHOWN
    assert set(tick_names(axes_of(figure, "communities"), "y")) == set(HOSTILE_SHOWN)


def test_bad_arguments_are_refused(tmp_path):
    with pytest.raises(InputTypeError, match="communities is a list; accepted: UnitCommunities"):
        community_strips([])
    with pytest.raises(InputError, match="communities has only noise; accepted: at least one community"):
        result = strips()
        result.community[:] = -1
        community_strips(result)
    with pytest.raises(InputError, match="figsize"):
        community_strips(strips(), figsize=(1, 1))
    with pytest.raises(InputError, match="path"):
        community_strips(strips(), path=tmp_path / "picture.gif")


def test_settings_of_the_user_change_no_picture_of_an_analysis(tmp_path):
    drawn = {
        "curves.svg": lambda path: entropy_curves(entropies(np.datetime64("2026-03-01") + np.arange(5)), path=path),
        "map.svg": lambda path: heatmap(probes(), path=path),
        "ranks.svg": lambda path: unit_rankings(importance(5), path=path),
        "strips.svg": lambda path: community_strips(strips(), path=path),
    }

    def draw(folder):
        folder.mkdir()
        for name, function in drawn.items():
            function(folder / name)
        return [(folder / name).read_bytes() for name in drawn]

    expected = draw(tmp_path / "plain")
    with matplotlib.rc_context(HOSTILE_SETTINGS):
        before = {name: matplotlib.rcParams[name] for name in matplotlib.rcParams if name != "backend"}
        assert draw(tmp_path / "hostile") == expected
        assert {name: matplotlib.rcParams[name] for name in before} == before
