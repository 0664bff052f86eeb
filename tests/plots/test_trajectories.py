"""Paths of units join the places of a unit in their order, and show their direction."""

import numpy as np
import pytest
from mpl_toolkits.mplot3d.proj3d import proj_transform

from mmphate_gpu.embedding import Embedding
from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.plots import trajectories
from mmphate_gpu.plots.colors import PALETTE
from mmphate_gpu.plots.path_lines import HEAD_SIZE
from mmphate_gpu.plots.unit_paths import label_indices
from mmphate_gpu.slices import SliceLayout

from .results import HOSTILE, assert_legible, axes_of, shown_texts, tick_names

COLUMN, FULL = (3.35, 4.6), (7.2, 5.0)


def layout_of(epoch, timestep, unit):
    axes = (axis if isinstance(axis, np.ndarray) else np.arange(axis) for axis in (epoch, timestep, unit))
    return SliceLayout(*axes)


def walk(epoch=6, timestep=5, unit=4, components=2):
    layout = layout_of(epoch, timestep, unit)
    steps = np.random.default_rng(0).normal(size=(*layout.shape, components))
    return Embedding(steps.cumsum(0).cumsum(1).reshape(-1, components), layout)


def planted(places, n_timesteps=1):
    """An embedding whose unit k is at ``places[k][e]`` at epoch e and at every time step."""
    places = np.asarray(places, dtype=float)
    n_units, n_epochs, components = places.shape
    grid = np.repeat(places.swapaxes(0, 1)[:, None], n_timesteps, axis=1)
    return Embedding(grid.reshape(-1, components), SliceLayout.of_shape(n_epochs, n_timesteps, n_units))


def lines(axes, label="path"):
    """The segments of each path, (n, 2, 2) or (n, 2, 3)."""
    drawn = [each for each in axes.collections if each.get_label() == label]
    return [
        np.array(getattr(each, "_segments3d", None) if axes.name == "3d" else each.get_segments()) for each in drawn
    ]


def vertices(segments):
    """The ends of joined segments, one after another."""
    np.testing.assert_array_equal(segments[:-1, 1], segments[1:, 0])
    return np.concatenate([segments[:1, 0], segments[:, 1]])


def heads(axes):
    """The places of the arrow heads, and the directions into which their tips point."""
    marks = [line for line in axes.lines if line.get_markersize() > HEAD_SIZE / 2]
    turns = [mark._marker.get_user_transform().transform([1.0, 0.0]) for mark in marks]
    return [tuple(float(x[0]) for x in mark.get_data()) for mark in marks], turns


def test_a_planted_path_is_joined_in_its_order():
    zigzag, line = [[0, 0], [1, 1], [2, 0], [3, 1]], [[0, 5], [1, 5], [2, 5], [3, 5]]
    axes = axes_of(trajectories(planted([zigzag, line])), "epochs")
    first, second = lines(axes)
    np.testing.assert_allclose(vertices(first), zigzag)
    np.testing.assert_allclose(vertices(second), line)
    np.testing.assert_array_equal(lines(axes, "halo")[0], first)


@pytest.mark.parametrize("turn", [[1, 0], [0, 1], [-1, 0], [0, -1], [3, -4]])
def test_heads_point_forward_halfway_and_at_the_end(turn):
    turn = np.array(turn)
    places = np.arange(5)[:, None] * turn
    at, directions = heads(axes_of(trajectories(planted([places, [[9, 9]] * 5])), "epochs"))
    np.testing.assert_allclose(at, [2 * turn, 4 * turn], atol=1e-9)
    np.testing.assert_allclose(directions, [turn / np.linalg.norm(turn)] * 2, atol=1e-9)


def test_heads_in_space_point_along_the_projection():
    places = np.outer(np.arange(4), [1.0, -2.0, 1.5])
    axes = axes_of(trajectories(planted([places, [[4, 4, 4]] * 4])), "epochs")
    np.testing.assert_allclose(vertices(lines(axes)[0]), places, atol=1e-12)
    x, y, _ = proj_transform(*places.T, axes.get_proj())
    drawn = axes.transData.transform(np.column_stack([x, y]))
    forward = (drawn[-1] - drawn[-2]) / np.linalg.norm(drawn[-1] - drawn[-2])
    np.testing.assert_allclose(
        heads(axes)[1][-1], forward, atol=0.02
    )  # perspective bends the last 7 points of the line


def test_a_path_through_epochs_has_the_mean_over_the_time_steps_or_one_of_them():
    walked = walk()
    grid = walked.coordinates.reshape(6, 5, 4, 2)
    mean, third = trajectories(walked, units=[2]), trajectories(walked, units=2, timestep=3)
    np.testing.assert_allclose(vertices(lines(axes_of(mean, "epochs"))[0]), grid[:, :, 2].mean(axis=1))
    np.testing.assert_allclose(vertices(lines(axes_of(third, "epochs"))[0]), grid[:, 3, 2])
    assert "mean of time steps" in [text.get_text() for text in mean.texts]
    assert "at step 3" in [text.get_text() for text in third.texts]


def test_a_path_through_time_steps_is_drawn_at_each_epoch():
    walked = walk(epoch=7)
    grid = walked.coordinates.reshape(7, 5, 4, 2)
    figure = trajectories(walked, units=[1], through="timesteps")
    for epoch in (0, 3, 6):
        np.testing.assert_allclose(vertices(lines(axes_of(figure, f"timesteps of {epoch}"))[0]), grid[epoch, :, 1])
    some = trajectories(walked, units=[1], through="both", epochs=[5, 2])
    assert [axes.get_label() for axes in some.axes if axes.get_label() != "key"] == [
        "epochs", "timesteps of 5", "timesteps of 2",
    ]  # fmt: skip


def test_a_single_component_is_drawn_against_time():
    walked = walk(epoch=np.array([0, 10, 40]), components=1)
    figure = trajectories(walked, units=[1], through="both")
    grid = walked.coordinates.reshape(3, 5, 4)
    means, steps = axes_of(figure, "epochs"), axes_of(figure, "timesteps of 1")
    np.testing.assert_allclose(vertices(lines(means)[0]), np.column_stack([[0, 10, 40], grid[:, :, 1].mean(axis=1)]))
    np.testing.assert_allclose(vertices(lines(steps)[0]), np.column_stack([np.arange(5), grid[1, :, 1]]))
    assert [means.get_xlabel(), steps.get_xlabel()] == ["Epoch", "Time step"]


def test_a_place_that_is_missing_breaks_the_path():
    places = np.array([[[x, 0.0] for x in range(8)]])
    places[0, [2, 4]] = np.nan  # 0-1, 3 alone, 5-6-7
    axes = axes_of(trajectories(planted(places)), "epochs")
    np.testing.assert_array_equal(lines(axes)[0][:, :, 0], [[0, 1], [5, 6], [6, 7]])
    dots = [line.get_data()[0][0] for line in axes.lines if line.get_markersize() <= HEAD_SIZE / 2]
    assert dots == [3, 0]  # alone, and the ring of the first place


def test_the_mean_is_over_the_time_steps_with_a_place():
    walked = walk(2, 3, 1)
    coordinates = walked.coordinates.copy()
    coordinates[1] = np.nan
    path = lines(axes_of(trajectories(Embedding(coordinates, walked.layout)), "epochs"))[0]
    np.testing.assert_allclose(path[0], [coordinates[[0, 2]].mean(axis=0), coordinates[3:].mean(axis=0)])


def test_a_unit_without_a_place_is_in_the_key_only():
    walked = walk()
    coordinates = walked.coordinates.copy()
    coordinates[1::4] = np.nan
    figure = trajectories(Embedding(coordinates, walked.layout), units=[0, 1])
    assert len(lines(axes_of(figure, "epochs"))) == 1
    assert key_names(figure)[:2] == ["0", "1"]
    assert "30 of 120 nodes have no place" in [text.get_text() for text in figure.texts]


def key_names(figure):
    legends = [axes.get_legend() for axes in figure.axes if axes.get_label() == "key" and axes.get_legend()]
    return [text.get_text() for legend in legends for text in legend.get_texts()]


def test_the_units_that_move_farthest_are_chosen():
    sizes = [1, 9, 2, 8, 7, 6, 3, 5]  # unit k goes from 0 to sizes[k]
    figure = trajectories(planted([[[0, 0], [0, size]] for size in sizes]))
    assert key_names(figure)[:6] == ["1", "3", "4", "5", "6", "7"]
    ends = [vertices(path)[-1, 1] for path in lines(axes_of(figure, "epochs"))]
    assert ends == [9, 8, 7, 6, 3, 5]


def test_units_are_in_the_order_of_the_caller():
    walked = walk(unit=np.array(["input", "forget", "cell", "output"]))
    figure = trajectories(walked, units=["output", "input", "output"])
    assert key_names(figure)[:2] == ["output", "input"]
    grid = walked.coordinates.reshape(6, 5, 4, 2).mean(axis=1)
    for path, unit in zip(lines(axes_of(figure, "epochs")), (3, 0), strict=True):
        np.testing.assert_allclose(vertices(path), grid[:, unit])


@pytest.mark.parametrize(
    "labels, wanted, expected",
    [
        (np.array([10, 20, 30]), [30, 10], [2, 0]),
        (np.array([10, 20, 30]), 20.0, [1]),
        (np.array([0.5, 1.5]), np.float32(1.5), [1]),
        (np.array(["a", "b"]), "b", [1]),
        (np.array(["2026-01-01", "2026-01-02"], dtype="M8[D]"), np.datetime64("2026-01-02T00:00"), [1]),
        (np.array(["a", "b", "a"]), ["a"], [0, 2]),
    ],
)
def test_labels_are_found_by_their_value(labels, wanted, expected):
    assert label_indices("units", labels, wanted).tolist() == expected


def colors_of(axes, label="path"):
    return [each.get_colors() for each in axes.collections if each.get_label() == label]


def test_the_color_of_a_unit_grows_to_that_of_the_key():
    from matplotlib.colors import to_rgba

    figure = trajectories(walk(), units=[0, 1])
    legend = next(axes.get_legend() for axes in figure.axes if axes.get_label() == "key")
    for number, colors in enumerate(colors_of(axes_of(figure, "epochs"))):
        np.testing.assert_allclose(colors[-1], to_rgba(PALETTE[number]))
        np.testing.assert_allclose(to_rgba(legend.legend_handles[number].get_color()), colors[-1])
        assert (np.diff(colors[:, :3].sum(axis=1)) < 0).all()  # from pale to full


def test_the_color_of_the_time_is_that_of_the_bar():
    figure = trajectories(walk(epoch=9), units=[0, 3], through="both", epochs=[8], color_by="time")
    bars = [axes for axes in figure.axes if axes.get_label() == "key" and not axes.get_legend()]
    for axes, bar, size in zip(
        (axes_of(figure, "epochs"), axes_of(figure, "timesteps of 8")), bars, (9, 5), strict=True
    ):
        scale = bar._colorbar.mappable
        np.testing.assert_allclose(colors_of(axes)[0], scale.to_rgba(np.arange(1, size)))
        assert tick_names(bar, "y")[0] == "0" and tick_names(bar, "y")[-1] == str(size - 1)
    shapes = [line.get_marker() for line in axes_of(figure, "epochs").lines if line.get_marker() in ("o", "s")]
    assert shapes == ["o", "o", "o", "s"]  # a ring and an end for each path


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 5, 3), (5, 1, 3), (5, 4, 1), (1, 1, 1)])
@pytest.mark.parametrize("components, color_by", [(1, "time"), (2, "unit"), (3, "time")])
def test_axes_with_a_single_value_can_be_drawn(shape, components, color_by):
    assert_legible(trajectories(walk(*shape, components), through="both", color_by=color_by))


def test_equal_places_are_a_dot():
    axes = axes_of(trajectories(planted([[[1, 1]] * 4])), "epochs")
    assert heads(axes)[0] == [] and len(axes.lines) == 1


@pytest.mark.parametrize("figsize", [None, COLUMN, FULL])
@pytest.mark.parametrize("through", ["epochs", "both"])
def test_hostile_names_are_texts_that_do_not_touch(through, figsize):
    dates = np.datetime64("2026-11-28T10:00") + np.arange(6)
    for names, color_by in ((HOSTILE, "unit"), (dates, "time")):
        figure = trajectories(walk(names, names, names), through=through, color_by=color_by, figsize=figsize)
        assert_legible(figure)
    drawn = {text.get_text() for text in shown_texts(trajectories(walk(unit=HOSTILE), units=HOSTILE))}
    assert {"$x^2$", "_hidden", "\\frac{", "a\\nb", "é"} <= drawn


@pytest.mark.parametrize("figsize", [None, COLUMN, FULL])
@pytest.mark.parametrize("n_units", [1, 12, 40, 5_000])
def test_one_and_five_thousand_units_are_legible(n_units, figsize):
    walked = walk(3, 2, n_units)
    assert_legible(trajectories(walked, figsize=figsize))
    some = walked.layout.unit[:40]
    assert_legible(trajectories(walked, units=some, figsize=figsize))


def test_the_note_counts_the_nodes_of_the_cloud(monkeypatch):
    import sys

    monkeypatch.setattr(sys.modules["mmphate_gpu.plots.trajectories"], "MAX_DOTS", 50)
    figure = trajectories(walk(), figsize=(3.35, 2.6))
    assert_legible(figure)
    assert "50 of 120 nodes drawn, chosen at random" in [text.get_text() for text in figure.texts]


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_file_has_the_same_bytes_each_time(tmp_path, suffix):
    for name in ("a", "b"):
        trajectories(walk(components=3), path=tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"units": ["x"]}, "units has 'x', which is no label; accepted: 0, 1, 2, 3, 4, 5, ... .30 labels."),
        ({"units": []}, "units=.. names nothing; accepted: 0, 1"),
        ({"units": [3, 99]}, "units has 99, which is no label"),
        ({"through": "units"}, "through='units' is unknown; accepted: 'epochs', 'timesteps', 'both'"),
        ({"color_by": "class"}, "color_by='class' is unknown; accepted: 'unit', 'time'"),
        ({"timestep": 9}, "timestep has 9, which is no label; accepted: 0, 1, 2, 3, 4"),
        ({"timestep": 1, "through": "timesteps"}, "timestep=1 has no use in paths through timesteps; accepted: None"),
        ({"epochs": [1]}, "epochs=.1. has no use in paths through epochs; accepted: None"),
        ({"units": range(9), "color_by": "time"}, "has shapes for 8 units, not 9; accepted: 'unit'"),
        ({"figsize": (3.35, 1.9), "through": "both"}, "no room for the panels; accepted: a height of 3.* or more"),
        ({"figsize": (1, 9)}, "figsize"),
        ({"path": "film.gif"}, "path='film.gif' ends in '.gif'"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        trajectories(walk(unit=30), **options)


def test_something_else_than_an_embedding_is_refused():
    with pytest.raises(InputTypeError, match="embedding is a ndarray; accepted: an Embedding"):
        trajectories(np.zeros((4, 2)))
    with pytest.raises(InputError, match="embedding has NaN in every row"):
        trajectories(Embedding(np.full((4, 2), np.nan), SliceLayout.of_shape(2, 1, 2)))
