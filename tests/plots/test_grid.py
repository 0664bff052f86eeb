"""A grid has a row for each picture and a column for each coloring, and turns the pictures onto the first."""

import numpy as np
import pytest

from mmphate_gpu.embedding import Embedding
from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.plots import grid
from mmphate_gpu.plots.grid import turned_onto
from mmphate_gpu.slices import SliceLayout

from .results import HOSTILE, assert_legible, axes_of, shown_texts

COLORS = ["epoch", "timestep", "unit", "most_active"]
COLUMN, FULL = (3.35, 3.4), (7.2, 5.0)


def invented(epoch=5, timestep=4, unit=3, components=2, classes=3, seed=0):
    axes = (axis if isinstance(axis, np.ndarray) else np.arange(axis) for axis in (epoch, timestep, unit))
    layout = SliceLayout(*axes)
    points = np.random.default_rng(seed).normal(size=(layout.n_nodes, components)) * (3.0, 1.0, 0.5)[:components]
    classes = np.arange(classes) if isinstance(classes, int) else classes
    return Embedding(points, layout, most_active=None if classes is None else np.resize(classes, layout.n_nodes))


def turned(points, angle=2.0, scale=7.0, offset=30.0):
    """``points`` turned by ``angle`` in the first two components, reflected, scaled and moved."""
    rotation = np.eye(points.shape[1])
    rotation[:2, :2] = [[np.cos(angle), np.sin(angle)], [np.sin(angle), -np.cos(angle)]]
    return scale * points @ rotation + offset


def drawn(axes):
    dots = axes.collections[0]
    return np.column_stack(dots._offsets3d) if axes.name == "3d" else np.asarray(dots.get_offsets())


def panels_of(figure):
    return [axes.get_label() for axes in figure.axes if axes.get_label() != "key"]


def test_methods_are_rows_and_colorings_are_columns():
    picture = invented()
    figure = grid({"ours": picture, "other": picture.coordinates})
    assert panels_of(figure) == [f"{color} of {name}" for name in ("ours", "other") for color in COLORS]
    place = {name: axes_of(figure, name).get_position() for name in panels_of(figure)}
    for color in COLORS:
        assert place[f"{color} of ours"].x0 == place[f"{color} of other"].x0
        assert place[f"{color} of ours"].y0 > place[f"{color} of other"].y1
    assert [place[f"{color} of ours"].x0 for color in COLORS] == sorted(place[f"{c} of ours"].x0 for c in COLORS)
    assert {"ours", "other", "Epoch", "Time step", "Unit", "Class"} <= {text.get_text() for text in figure.texts}


@pytest.mark.parametrize("components", [2, 3])
def test_each_node_has_its_place_and_the_color_of_its_label(components):
    first, other = invented(components=components), invented(components=components, seed=1)
    figure = grid({"a": first, "b": other}, align=False)
    shown = np.random.default_rng(0).permutation(60)
    for name, picture in (("a", first), ("b", other)):
        for color in COLORS:
            axes = axes_of(figure, f"{color} of {name}")
            np.testing.assert_array_equal(drawn(axes), picture.coordinates[shown])
            labels = picture.most_active if color == "most_active" else picture.by(color)
            np.testing.assert_array_equal(axes.collections[0].get_array(), labels[shown])


def test_the_colors_of_the_key_are_those_of_the_panels():
    figure = grid({"a": invented()}, ["unit", "epoch"])
    legend, bar = (axes for axes in figure.axes if axes.get_label() == "key")
    units = axes_of(figure, "unit of a").collections[0]
    for number, handle in enumerate(legend.get_legend().legend_handles):
        np.testing.assert_array_equal(handle.get_color(), units.to_rgba(np.array([number]))[0])
    epochs, scale = axes_of(figure, "epoch of a").collections[0], bar._colorbar.mappable
    np.testing.assert_array_equal(epochs.to_rgba(np.arange(5)), scale.to_rgba(np.arange(5)))
    assert bar.get_xlim() == (0, 4)


@pytest.mark.parametrize("components", [1, 2, 3])
def test_a_known_rotation_is_undone(components):
    points = invented(components=components).coordinates
    copy = turned(points) if components > 1 else 30 - 7 * points
    np.testing.assert_allclose(turned_onto(copy, points), points, atol=1e-12)


def test_turned_copies_are_drawn_alike_only_with_align():
    picture = invented()
    pictures = {"a": picture, "b": turned(picture.coordinates)}
    for align in (True, False):
        figure = grid(pictures, ["epoch"], align=align)
        first, second = axes_of(figure, "epoch of a"), axes_of(figure, "epoch of b")
        same = np.allclose(drawn(first), drawn(second)) and np.allclose(first.get_xlim(), second.get_xlim())
        assert same == align


def test_nodes_without_a_place_do_not_change_the_rotation():
    points = invented().coordinates
    copy, holes = turned(points), points.copy()
    copy[::7], holes[::5] = np.nan, np.nan
    whole = np.isfinite(copy[:, 0])
    result = turned_onto(copy, holes)
    np.testing.assert_allclose(result[whole], points[whole], atol=1e-12)
    assert np.isnan(result[~whole]).all()


def test_a_plane_is_turned_onto_the_first_two_components_and_a_space_onto_a_plane():
    space = invented(components=3).coordinates
    np.testing.assert_allclose(turned_onto(turned(space[:, :2]), space), space[:, :2], atol=1e-12)
    flat = np.column_stack([space[:, :2], np.zeros(60)])
    np.testing.assert_allclose(turned_onto(turned(flat), space[:, :2]), flat, atol=1e-12)


def test_equal_points_and_points_without_common_nodes_are_drawn():
    picture = invented()
    apart = picture.coordinates.copy()
    apart[:30] = np.nan
    rest = picture.coordinates.copy()
    rest[30:] = np.nan
    equal = np.ones((60, 2))
    np.testing.assert_array_equal(turned_onto(apart, rest), apart)
    figure = grid({"a": Embedding(rest, picture.layout), "apart": apart, "equal": equal}, ["unit"])
    np.testing.assert_allclose(drawn(axes_of(figure, "unit of equal")), np.tile(np.nanmean(rest, axis=0), (60, 1)))
    assert "up to 30 of 60 nodes have no place" in [text.get_text() for text in figure.texts]
    assert len(drawn(axes_of(figure, "unit of apart"))) == 30


def test_pictures_of_one_two_and_three_components_can_be_mixed():
    picture = invented(components=3)
    pictures = {"3": picture, "2": picture.coordinates[:, :2], "1": picture.coordinates[:, :1]}
    figure = grid(pictures, ["epoch"])
    assert [axes_of(figure, f"epoch of {n}").name for n in "321"] == ["3d", "rectilinear", "rectilinear"]
    np.testing.assert_array_equal(drawn(axes_of(figure, "epoch of 1"))[:, 0] % 1, np.zeros(60))  # the epoch
    assert_legible(figure)


def test_classes_are_those_of_each_embedding_and_the_key_names_all():
    first, second = invented(classes=np.array([1, 5])), invented(classes=np.array([3]))
    figure = grid({"array": first.coordinates, "a": first, "b": second}, ["most_active"])
    values = {
        name: axes_of(figure, f"most_active of {name}").collections[0].get_array() for name in ("array", "a", "b")
    }
    np.testing.assert_array_equal(values["array"], values["a"])
    assert set(values["a"]) == {0, 2} and set(values["b"]) == {1}
    (key,) = [axes for axes in figure.axes if axes.get_label() == "key"]
    assert [text.get_text() for text in key.get_legend().get_texts()] == ["1", "3", "5"]


def test_without_classes_there_are_three_columns():
    assert panels_of(grid({"a": invented(classes=None)})) == [f"{color} of a" for color in COLORS[:3]]


def test_all_panels_show_the_same_sample(monkeypatch):
    import sys

    monkeypatch.setattr(sys.modules["mmphate_gpu.plots.grid"], "MAX_DOTS", 20)
    picture = invented()
    figure = grid({"a": picture, "b": picture.coordinates})
    for name in panels_of(figure):
        np.testing.assert_allclose(drawn(axes_of(figure, name)), drawn(axes_of(figure, "epoch of a")), atol=1e-12)
    assert len(drawn(axes_of(figure, "epoch of a"))) == 20
    assert "20 of 60 nodes drawn, chosen at random" in [text.get_text() for text in figure.texts]


@pytest.mark.parametrize("figsize", [None, COLUMN, FULL])
def test_hostile_names_are_texts_that_do_not_touch(figsize):
    dates = np.datetime64("2026-11-28T10:00") + np.arange(6)
    for names in (HOSTILE, dates):
        picture = invented(names, names, names, classes=names)
        figure = grid({"<script>$x^2$": picture, "a name that is much too long for its row": picture}, figsize=figsize)
        assert_legible(figure)
    assert "<script>$x^2$" in {text.get_text() for text in shown_texts(figure)}


@pytest.mark.parametrize("figsize", [None, COLUMN, FULL])
@pytest.mark.parametrize("units, classes", [(1, 2), (12, 12), (5_000, 500)])
def test_keys_of_few_and_many_labels_are_legible(units, classes, figsize):
    assert_legible(grid({"a": invented(3, 2, units, classes=classes)}, figsize=figsize))


def test_narrow_bars_name_both_ends():
    units = np.array([f"class {i}" for i in range(500)])
    figure = grid({"a": invented(3, 2, units)}, ["epoch", "unit", "timestep", "most_active"], figsize=COLUMN)
    shown = [text.get_text() for text in figure.texts]
    assert "class 0" in shown and len([text for text in shown if text.startswith("class")]) == 2


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 4, 1), (4, 1, 1)])
def test_axes_with_a_single_value_can_be_drawn(shape):
    assert_legible(grid({"a": invented(*shape, 1), "b": invented(*shape, 3)}))


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_file_has_the_same_bytes_each_time(tmp_path, suffix):
    for name in ("a", "b"):
        grid({"ours": invented(components=3)}, ["unit", "epoch"], path=tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


PICTURE = invented()


@pytest.mark.parametrize(
    "pictures, message",
    [
        ({}, "embeddings holds no Embedding; accepted: at least one"),
        ({"a": PICTURE.coordinates}, "embeddings holds no Embedding; accepted: at least one"),
        ({"a": PICTURE, "b": PICTURE.coordinates[:7]}, "embeddings.'b'.: coordinates has 7 rows; accepted: 60"),
        (
            {"a": PICTURE, "b": invented(6)},
            "embeddings.'b'. has other labels of epoch than embeddings.'a'.; accepted: ",
        ),
        ({"a": PICTURE, "b": invented(unit=np.array(["x", "y", "z"]))}, "other labels of unit"),
        ({"a": PICTURE, "b": np.full((60, 2), np.nan)}, "embeddings.'b'. has NaN in every row"),
        ({"a": PICTURE, "b": np.full((60, 2), np.inf)}, "embeddings.'b'.: coordinates holds inf"),
    ],
)
def test_other_nodes_are_refused(pictures, message):
    with pytest.raises(InputError, match=message):
        grid(pictures)


@pytest.mark.parametrize(
    "pictures, message",
    [
        (PICTURE, "embeddings is a Embedding; accepted: a dict of names and Embeddings"),
        ([PICTURE], "embeddings is a list"),
        ({1: PICTURE}, "embeddings has the key 1; accepted: names, which are text"),
        ({"a": PICTURE, "b": np.full((60, 2), "x")}, "embeddings.'b'.: coordinates has dtype"),
    ],
)
def test_other_types_are_refused(pictures, message):
    with pytest.raises(InputTypeError, match=message):
        grid(pictures)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"color_by": ["layer"]}, "names no panels; accepted: a list of 'epoch', 'timestep', 'unit', 'most_active'"),
        ({"color_by": "epoch"}, "names no panels"),
        ({"figsize": (3.35, 1.0)}, "no room for the panels; accepted: a height of 1.* or more at this width"),
        ({"figsize": (1, 9)}, "figsize"),
        ({"path": "grid.gif"}, "path='grid.gif' ends in '.gif'"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        grid({"a": PICTURE}, **options)
