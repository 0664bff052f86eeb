"""Films show the nodes at their places at the right time, and their scales, colors and frames do not jump."""

import math

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageSequence

from mmphate_gpu.embedding import Embedding
from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.plots import animate
from mmphate_gpu.plots.canvas import plain_style
from mmphate_gpu.plots.colors import PALETTE
from mmphate_gpu.plots.film_files import Palette, durations
from mmphate_gpu.plots.film_frames import DPI
from mmphate_gpu.plots.film_motion import DISTANCE, ELEVATION, OPACITY, places_at, seen, trails
from mmphate_gpu.plots.films import Options, film_of
from mmphate_gpu.slices import SliceLayout

from .results import HOSTILE, assert_legible

SMALL = {"figsize": (2.8, 2.2), "seconds": 0.5, "fps": 10}
NAN = float("nan")


def walk(epochs=4, timesteps=3, units=4, components=2, *, layout=None, classes=None):
    """Units far from one another, each on a curve."""
    layout = layout or SliceLayout.of_shape(epochs, timesteps, units)
    epoch, timestep, unit = layout.indices()
    columns = [np.cos(k + 0.9 * epoch + 0.4 * timestep) + 4 * np.sin(k + 1.8 * unit) for k in range(components)]
    most_active = None if classes is None else np.arange(layout.n_nodes) % classes
    return Embedding(np.column_stack(columns), layout, most_active=most_active)


def film(embedding, show="epochs", **changes):
    options = {"color_by": None, "fps": 10, "seconds": 0.5, "trail": None, "figsize": None, "max_nodes": 10_000}
    with plain_style():
        return film_of(embedding, Options(show, **options | {"figsize": (2.8, 2.2)} | changes))


def frames(path):
    with Image.open(path) as image:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]


def texts(figure):
    return [text.get_text() for text in figure.texts]


def panel_of(shown):
    """The pixels of the panel: the rows from above, and the columns."""
    box, height = shown.figure.axes[-1].bbox, shown.size[1]
    return slice(math.ceil(height - box.y1) + 2, math.floor(height - box.y0) - 2), slice(
        math.ceil(box.x0) + 2, math.floor(box.x1) - 2
    )


def centroid(frame, shown, color):
    """Where in the panel pixels have ``color``, in pixels from the lower left corner of the figure."""
    rows, columns = panel_of(shown)
    target = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    near = np.abs(frame[rows, columns].astype(int) - target).max(-1) <= 8
    assert near.any(), color
    y, x = np.argwhere(near).mean(axis=0) + [rows.start, columns.start] + 0.5
    return np.array([x, frame.shape[0] - y])


# ---------------------------------------------------------------- files


def test_a_gif_has_its_frames_size_and_durations_and_repeats(tmp_path):
    path = animate(walk(5), "epochs", tmp_path / "f.gif", figsize=(2.81, 2.2), seconds=0.8, fps=10)
    assert path == tmp_path / "f.gif"
    with Image.open(path) as image:
        assert image.n_frames == 9  # two for each of four ways, and the last epoch
        assert image.size == (404, 316) and not any(side % 2 for side in image.size)  # 2.81 x 144 is 404.6
        assert image.info["loop"] == 0
        shown = [frame.info["duration"] for frame in ImageSequence.Iterator(image)]
    assert shown == [100] * 8 + [1100]  # the last frame is shown for a second more


def test_durations_are_multiples_of_ten_that_keep_the_rate():
    assert durations(6, 20) == [50] * 6
    assert set(durations(300, 30)) == {30, 40} and sum(durations(300, 30)) == 10_000
    assert min(durations(100, 50)) == 20


def test_bytes_are_the_same_whatever_the_users_settings(tmp_path):
    first = animate(walk(), "epochs", tmp_path / "a.gif", **SMALL).read_bytes()
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 9, "axes.facecolor": "red", "figure.dpi": 33}):
        assert animate(walk(), "epochs", str(tmp_path / "a.gif"), **SMALL).read_bytes() == first
    assert [file.name for file in tmp_path.iterdir()] == ["a.gif"]


def test_all_frames_of_a_gif_share_a_palette(tmp_path):
    embedding = walk(classes=3)
    path = animate(embedding, "epochs", tmp_path / "f.gif", **SMALL)
    with plain_style():
        table = Palette.of(film(embedding)).colors.tobytes()
    assert path.read_bytes().count(table) == 1
    ground = [frame[0, 0].tolist() for frame in frames(path)]
    assert ground == [[255, 255, 255]] * len(ground)


def test_a_palette_keeps_frequent_colors_and_is_near_to_the_others():
    grays = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    rare = np.random.default_rng(0).integers(0, 256, (500, 3)).astype(np.uint8)
    colors, counts = np.unique(np.concatenate([grays, rare]), axis=0, return_counts=True)
    counts[(colors == 251).all(-1)] = 10_000
    order = np.argsort(-counts, kind="stable")
    palette = Palette.reduced(colors[order], counts[order])
    drawn = np.asarray(palette.image(colors[None]).convert("RGB"))[0].astype(int)
    assert (drawn[(colors == 251).all(-1)] == 251).all()
    # 255 colors of 756 that fill the cube are 256 / 255^(1/3) = 40 apart; the largest step seen is 64.
    assert len(palette.colors) <= 255 and np.abs(drawn - colors).max() < 80


def test_a_film_with_few_colors_keeps_them_all():
    colors = np.array([[255, 255, 255], [200, 0, 0], [0, 0, 200]], dtype=np.uint8)
    palette = Palette.reduced(colors, np.array([9, 2, 1]))
    np.testing.assert_array_equal(np.asarray(palette.image(colors[None]).convert("RGB"))[0], colors)


def test_an_error_in_a_frame_leaves_the_old_file(tmp_path, monkeypatch):
    from mmphate_gpu.plots.film_scenes import Travel

    path = tmp_path / "f.gif"
    path.write_bytes(b"old")
    whole = Travel.__call__
    for error in (KeyboardInterrupt, RuntimeError):

        def failing(self, number, error=error):
            if number == 3:
                raise error
            whole(self, number)

        monkeypatch.setattr(Travel, "__call__", failing)
        with pytest.raises(error):
            animate(walk(), "epochs", path, **SMALL)
        assert path.read_bytes() == b"old" and [file.name for file in tmp_path.iterdir()] == ["f.gif"]


def test_a_gif_that_does_not_fit_in_memory_is_refused_before_it_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", "14.5e6")
    animate(walk(), "epochs", tmp_path / "f.gif", **SMALL)  # 404 x 316 x (7 frames + 6 x 16)
    with pytest.raises(InputError, match="the film needs .* accepted: fewer seconds, a smaller figsize, or an .mp4"):
        animate(walk(), "epochs", tmp_path / "g.gif", **SMALL | {"seconds": 3})
    assert [file.name for file in tmp_path.iterdir()] == ["f.gif"]


def test_a_progress_bar_counts_the_frames(tmp_path, capsys):
    animate(walk(), "epochs", tmp_path / "f.gif", **SMALL)
    assert capsys.readouterr().err == ""
    animate(walk(), "epochs", tmp_path / "f.gif", **SMALL, verbose=True)
    assert "film: 100%" in (bar := capsys.readouterr().err) and "17/17" in bar


# ---------------------------------------------------------------- travels


def test_nodes_are_at_their_places_at_each_epoch_and_halfway_between(tmp_path):
    embedding = walk(3, 1, 4)
    options = {"trail": 0, "fps": 10, "seconds": 0.8, "figsize": (2.8, 2.2)}
    path = animate(embedding, "epochs", tmp_path / "f.gif", **options)
    shown, drawn = film(embedding, **options), frames(path)
    places = embedding.coordinates.reshape(3, 4, 2)
    halfway = (places[0] + places[1]) / 2
    for number, expected in ((0, places[0]), (4, places[1]), (8, places[2]), (2, halfway)):
        for unit in range(4):
            pixel = shown.figure.axes[-1].transData.transform(expected[unit])
            # A dot is 7 pixels wide. Agg moves its middle to a whole or half pixel.
            assert np.abs(centroid(drawn[number], shown, PALETTE[unit]) - pixel).max() < 1, (number, unit)


def test_a_film_of_time_steps_shows_all_epochs_at_a_time_step():
    embedding = walk(4, 3, 5)
    shown = film(embedding, "timesteps")
    list(shown.frames([0]))
    cube = embedding.coordinates.reshape(4, 3, 5, 2)
    for step, number in ((0, 0), (1, 2), (2, 4)):
        shown.scene(number)
        drawn = np.asarray(shown.scene.dots.get_offsets())
        expected = cube[:, step].reshape(-1, 2)
        np.testing.assert_allclose(drawn[np.lexsort(drawn.T)], expected[np.lexsort(expected.T)])
        assert shown.scene.title.get_text() == f"Time step {step}"


@pytest.mark.parametrize("show", ["epochs", "timesteps"])
def test_only_the_scene_and_its_title_change(show):
    shown = film(walk(), show)
    drawn = np.stack(list(shown.frames(range(shown.n_frames)))).astype(int)
    rows, columns = panel_of(shown)
    changes = np.ptp(drawn, axis=0).max(-1) > 0
    assert changes[rows, columns].any()
    outside = changes.copy()
    outside[: rows.start, :] = False  # title, line of time
    outside[rows, columns] = False
    assert not outside.any()
    assert not changes[:, columns.stop + 8 :].any()  # the key


def test_epochs_at_growing_distances_take_the_same_time_and_have_their_names():
    layout = SliceLayout(np.array([0, 1, 5, 100]), np.arange(2), np.arange(3))
    shown = film(walk(layout=layout), seconds=1.2)
    assert shown.n_frames == 13 and shown.hold == 10
    titles, over = [], []
    for number in range(13):
        shown.scene(number)
        titles.append(shown.scene.title.get_text())
        over.append(np.ptp(shown.scene.over.get_xdata()))
    # Four frames for each way; halfway the title changes to the next epoch.
    assert titles == ["Epoch 0"] * 2 + ["Epoch 1"] * 4 + ["Epoch 5"] * 4 + ["Epoch 100"] * 3
    np.testing.assert_allclose(np.diff(over), over[-1] / 12)
    assert over[0] == 0


def test_every_epoch_has_a_frame_even_in_a_short_film():
    assert film(walk(30, 1, 2), seconds=0.5, fps=10).n_frames == 30
    assert film(walk(3, 1, 2), seconds=None, fps=20).n_frames == 81  # 4 seconds at least
    assert film(walk(61, 1, 2), seconds=None, fps=20).n_frames == 241  # 12 seconds at most


def test_places_lie_on_lines_between_snapshots():
    places = np.array([[[0.0, 0.0]], [[1.0, 2.0]], [[NAN, NAN]]])
    np.testing.assert_array_equal(places_at(places, 0.25), [[0.25, 0.5]])
    np.testing.assert_array_equal(places_at(places, 1.0), [[1, 2]])  # the next snapshot does not matter
    assert np.isnan(places_at(places, 1.1)).all()


def test_trails_reach_back_turn_at_snapshots_and_fade():
    places = np.array([[[0.0, 0.0]], [[2.0, 0.0]], [[2.0, 4.0]]])
    colors = np.array([[[1, 0, 0, 1]], [[0, 1, 0, 1]], [[0, 0, 1, 1]]], dtype=float)
    lines, shades = trails(places, colors, 1.5, 1.0)
    assert lines.tolist() == [[[1, 0], [2, 0]], [[2, 0], [2, 2]]]
    # Their middles are 0.75 and 0.25 old. The first leads to the second snapshot, the other to the third.
    np.testing.assert_allclose(shades, [[0, 1, 0, 0.25 * OPACITY], [0, 0, 1, 0.75 * OPACITY]])
    lines, _ = trails(places, colors, 1.5, 99.0)
    assert lines.tolist() == [[[0, 0], [2, 0]], [[2, 0], [2, 2]]]
    assert len(trails(places, colors, 0.0, 1.0)[0]) == 0
    places[1] = NAN
    assert len(trails(places, colors, 2.0, 2.0)[0]) == 0


def test_a_trail_is_drawn_unless_it_has_length_zero():
    embedding = Embedding(np.array([[0.0, 0], [1, 1], [2, 2.5]]), SliceLayout.of_shape(3, 1, 1))
    drawn = {trail: list(film(embedding, trail=trail, seconds=0.2).frames([2]))[0] for trail in (0, 2)}
    shown = film(embedding)
    x, y = shown.figure.axes[-1].transData.transform([0.5, 0.5]).astype(int)
    pixels = {trail: frame[shown.size[1] - y - 1, x].tolist() for trail, frame in drawn.items()}
    assert pixels[0] == [255, 255, 255] and pixels[2] != [255, 255, 255]


@pytest.mark.parametrize("show", ["epochs", "timesteps", "rotation"])
def test_nodes_without_a_place_are_not_drawn(show):
    whole = walk(4, 3, 5, 3)
    coordinates = whole.coordinates.copy()
    coordinates[[0, 7]] = NAN  # epoch 0, time steps 0 and 1
    shown = film(Embedding(coordinates, whole.layout), show)
    list(shown.frames([0]))
    n = {"epochs": 13, "timesteps": 19, "rotation": 58}[show]
    assert len(shown.scene.dots.get_offsets()) == len(shown.scene.dots.get_facecolors()) == n
    assert "2 of 60 nodes have no place" in texts(shown.figure)


def test_colors_are_those_of_the_labels_and_the_key_is_named():
    embedding = walk(3, 2, 4, classes=3)
    for color_by, name in ((None, "Most active class"), ("unit", "Unit"), ("timestep", "Time step")):
        shown = film(embedding, color_by=color_by)
        assert name in texts(shown.figure)
    shown = film(embedding)
    list(shown.frames([2]))
    colors = [matplotlib.colors.to_hex(color) for color in shown.scene.dots.get_facecolors()]
    places = np.asarray(shown.scene.dots.get_offsets())
    for node in range(8):  # of the second epoch
        (at,) = np.flatnonzero((places == embedding.coordinates[8 + node]).all(-1))
        assert colors[at] == PALETTE[embedding.most_active[8 + node]]


def test_of_many_nodes_whole_slices_are_shown_and_a_note_says_so():
    shown = film(walk(20, 10, 5), max_nodes=250)
    assert "10 of 20 epochs and 5 of 10 time steps are shown" in texts(shown.figure)
    assert shown.scene.journey.places.shape == (10, 25, 2)
    assert shown.scene.titles[0] == "Epoch 0" and shown.scene.titles[-1] == "Epoch 19"
    by_epoch = film(walk(20, 10, 5), color_by="epoch", max_nodes=250)
    key = next(axes for axes in by_epoch.figure.axes if axes.get_label() == "key")
    assert [tick.get_text() for tick in key.get_yticklabels()] == ["0", "5", "10", "15", "19"]  # as of all epochs


# ---------------------------------------------------------------- turns


def test_a_point_is_seen_where_geometry_says():
    points = np.array([[0.0, 0, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]])
    places, sizes = seen(points, 0.0)
    up, down = math.cos(ELEVATION), math.sin(ELEVATION)
    near = DISTANCE / (DISTANCE - down)  # the top is nearer to an eye that looks down
    far = DISTANCE / (DISTANCE + up)
    np.testing.assert_allclose(places, [[0, 0], [1, 0], [0, up * near], [0, down * far]], atol=1e-15)
    np.testing.assert_allclose(sizes, [1, 1, near, far])
    np.testing.assert_allclose(seen(points[3:], math.pi / 2)[0], [[-1, 0]], atol=1e-15)


def test_a_turn_ends_where_it_begins():
    shown = film(walk(4, 3, 5, 3), "rotation", seconds=1.2)
    assert (shown.n_frames, shown.hold) == (12, 0)
    angles = shown.scene.angles
    np.testing.assert_allclose(np.diff([*angles, angles[0] + 2 * np.pi]), np.pi / 6)
    first, half, last = (seen(shown.scene.points, angle)[0] for angle in (angles[0], angles[6], angles[-1] + np.pi / 6))
    np.testing.assert_allclose(first, last, atol=1e-12)
    assert np.abs(first - half).max() > 0.5


def test_a_turning_cloud_stays_in_its_panel_and_near_dots_are_drawn_last():
    shown = film(walk(6, 4, 5, 3), "rotation", seconds=2.4)
    axes = shown.figure.axes[-1]
    low, high = np.transpose([axes.get_xlim(), axes.get_ylim()])
    for number in range(shown.n_frames):
        shown.scene(number)
        places = np.asarray(shown.scene.dots.get_offsets())
        corners = np.concatenate([path.vertices for path in shown.scene.walls.get_paths()])
        for each in (places, corners):
            assert (low <= each).all() and (each <= high).all()
        assert (np.diff(shown.scene.dots.get_sizes()) >= 0).all()


def test_the_floor_and_the_walls_behind_the_cloud_are_drawn():
    shown = film(walk(4, 3, 5, 3), "rotation", seconds=3.6)
    for number in range(36):
        shown.scene(number)
        # The floor and two walls; where the cloud is seen along an axis, the wall behind it and two beside it.
        assert len(shown.scene.walls.get_paths()) in (3, 4)
    drawn = list(shown.frames([5]))[0]
    assert (drawn == [246, 246, 246]).all(-1).mean() > 0.05


# ---------------------------------------------------------------- what is refused, and odd data


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"embedding": np.zeros((4, 2))}, "embedding is a ndarray; accepted: an Embedding"),
        ({"show": "units"}, "show='units' is unknown; accepted: 'epochs', 'rotation', 'timesteps'"),
        ({"path": "f.png"}, "ends in '.png'; accepted: .gif, .mp4"),
        ({"path": "no/f.gif"}, "is in a folder that does not exist"),
        ({"path": None}, "path=None is a NoneType; accepted: a path as text"),
        ({"color_by": "class"}, "color_by='class' is unknown; accepted: 'epoch', 'timestep', 'unit'"),
        ({"fps": 0}, "fps=0 is out of range; it must be a number >= 1 and <= 50"),
        ({"fps": "10"}, "fps='10' must be a number"),
        ({"seconds": 0}, "seconds=0 is out of range"),
        ({"trail": -1}, "trail=-1 is out of range"),
        ({"figsize": (1, 2)}, r"figsize\[0\]=1 is out of range"),
        ({"max_nodes": 0}, "max_nodes=0 is out of range"),
        ({"max_nodes": 3}, "max_nodes=3 is less than a slice has; accepted: at least 4, the number of units"),
        ({"max_nodes": 4}, "show='epochs' and embedding has epochs: 4, of which max_nodes=4 leaves 1; accepted: 2 or"),
        ({"embedding": walk(1)}, "show='epochs' and embedding has epochs: 1; accepted: 2 or more"),
        ({"embedding": walk(4, 1), "show": "timesteps"}, "embedding has timesteps: 1; accepted: 2 or more"),
        ({"embedding": walk(components=1)}, "show='epochs' and embedding has components: 1; accepted: 2 or more"),
        ({"show": "rotation"}, "show='rotation' and embedding has components: 2; accepted: 3 or more"),
        ({"embedding": Embedding(np.full((4, 2), NAN), SliceLayout.of_shape(2, 1, 2))}, "embedding has NaN in every"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_and_nothing_is_written(tmp_path, monkeypatch, changes, message):
    monkeypatch.chdir(tmp_path)
    arguments = {"embedding": walk(), "show": "epochs", "path": "f.gif", **SMALL} | changes
    with pytest.raises(InputError, match=message) as caught:
        animate(**arguments)
    is_type = "embedding is" in message or "path=None" in message or "fps='" in message
    assert isinstance(caught.value, InputTypeError) == is_type
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("show", ["epochs", "timesteps", "rotation"])
@pytest.mark.parametrize("figsize", [(3.35, 2.6), None, (7.2, 5)])
def test_odd_names_and_notes_are_legible(show, figsize):
    coordinates = walk(6, 6, 6, 3).coordinates.copy()
    coordinates[3] = NAN
    layout = SliceLayout(HOSTILE, HOSTILE, HOSTILE)
    embedding = Embedding(coordinates, layout, most_active=np.resize(HOSTILE, 216))
    shown = film(embedding, show, figsize=figsize, max_nodes=180)
    assert shown.figure.dpi == DPI
    with plain_style():
        list(shown.frames([0]))
        assert_legible(shown.figure)


def test_nodes_that_all_have_one_place_are_drawn():
    for show, components in (("epochs", 2), ("timesteps", 2), ("rotation", 3)):
        embedding = Embedding(np.ones((12, components)), SliceLayout.of_shape(2, 2, 3))
        shown = film(embedding, show, seconds=0.2)
        assert all(np.isfinite(frame).all() for frame in shown.frames([0, 1]))
        assert len(shown.scene.dots.get_offsets()) in (6, 12)
