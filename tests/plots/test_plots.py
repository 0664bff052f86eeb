"""Pictures show every node with its labels, and their files are written whole."""

import subprocess
import sys

import numpy as np
import pytest

from mmphate_gpu.embedding import Embedding
from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.plots import entropy, panels
from mmphate_gpu.plots.colors import PALETTE, categorical, ordered
from mmphate_gpu.slices import SliceLayout

HEAD = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


def fake(epochs=6, timesteps=5, units=4, components=2, *, classes=3, layout=None):
    layout = layout or SliceLayout.of_shape(epochs, timesteps, units)
    epoch, timestep, unit = layout.indices()
    turns = [np.cos(0.31 * epoch + 0.101 * timestep + unit + k) * (1 + 0.5 * unit) for k in range(components)]
    most_active = None if classes is None else np.arange(layout.n_nodes) % classes
    return Embedding(np.column_stack(turns), layout, most_active=most_active, entropy=np.linspace(4, 1, 100) ** 2, t=21)


def panel_axes(figure):
    return {axes.get_label(): axes for axes in figure.axes if axes.get_label() != "key"}


def dots(axes):
    return axes.collections[0]


@pytest.mark.parametrize("components, projection", [(1, "rectilinear"), (2, "rectilinear"), (3, "3d"), (5, "3d")])
def test_four_panels_in_the_plane_or_in_space(components, projection):
    axes = panel_axes(panels(fake(components=components)))
    assert list(axes) == ["epoch", "timestep", "unit", "most_active"]
    assert {each.name for each in axes.values()} == {projection}


@pytest.mark.parametrize("components", [1, 2, 3])
def test_nodes_without_a_place_are_not_drawn(components):
    whole = fake(components=components)
    coordinates = whole.coordinates.copy()
    coordinates[::5] = np.nan
    partly = Embedding(coordinates, whole.layout, most_active=whole.most_active)
    figure = panels(partly)
    for axes in panel_axes(figure).values():
        assert len(dots(axes).get_offsets()) == 96 and np.isfinite(axes.get_xlim()).all()
    assert "24 of 120 nodes have no place" in [text.get_text() for text in figure.texts]
    with pytest.raises(InputError, match="embedding has NaN in every row; accepted: at least one node with a place"):
        panels(Embedding(np.full((120, 2), np.nan), whole.layout))


@pytest.mark.parametrize("components", [2, 3])
def test_three_panels_in_a_row_without_classes(components):
    figure = panels(fake(components=components, classes=None))
    assert list(panel_axes(figure)) == ["epoch", "timestep", "unit"]
    assert len({round(text.get_position()[1], 6) for text in figure.texts}) == 1


def test_panels_can_be_chosen():
    assert list(panel_axes(panels(fake(), color_by=["unit", "epoch"]))) == ["unit", "epoch"]
    for color_by, embedding in (("epoch", fake()), ([], fake()), (["most_active"], fake(classes=None))):
        with pytest.raises(InputError, match="names no panels; accepted: a list of 'epoch', 'timestep', 'unit'"):
            panels(embedding, color_by=color_by)


def test_titles_name_the_panels():
    assert [text.get_text() for text in panels(fake()).texts] == ["Epoch", "Time step", "Unit", "Most active class"]


@pytest.mark.parametrize("components", [2, 3])
def test_every_node_is_drawn_in_the_color_of_its_label(components):
    layout = SliceLayout(np.arange(10, 70, 10), np.arange(5), np.arange(4))
    embedding = fake(components=components, layout=layout)
    for name, axes in panel_axes(panels(embedding)).items():
        drawn = dots(axes)
        labels = embedding.most_active if name == "most_active" else embedding.by(name)
        points = np.column_stack(drawn._offsets3d) if components == 3 else drawn.get_offsets()
        order = np.lexsort(np.asarray(points).T)
        expected = np.lexsort(embedding.coordinates.T)
        np.testing.assert_allclose(np.asarray(points)[order], embedding.coordinates[expected])
        np.testing.assert_array_equal(np.asarray(drawn.get_array())[order], labels[expected])


@pytest.mark.parametrize("units, classes", [(4, 3), (30, 20), (1, 1)])
def test_color_ranges_cover_the_labels(units, classes):
    for axes in panel_axes(panels(fake(units=units, classes=classes))).values():
        drawn = dots(axes)
        values = drawn.get_array()
        assert drawn.norm.vmin <= values.min() and values.max() <= drawn.norm.vmax
        assert len(np.unique(drawn.to_rgba(np.unique(values)), axis=0)) == len(np.unique(values))


@pytest.mark.parametrize("components", [2, 3])
def test_scales_are_equal(components):
    axes = panel_axes(panels(fake(components=components)))["epoch"]
    if components == 2:
        size = np.array(axes.bbox.size)
        span = np.array([np.ptp(axes.get_xlim()), np.ptp(axes.get_ylim())])
    else:
        size = np.array(axes._box_aspect)
        span = np.array([np.ptp(axes.get_xlim()), np.ptp(axes.get_ylim()), np.ptp(axes.get_zlim())])
    np.testing.assert_allclose(size / span, (size / span)[0], rtol=1e-6)


@pytest.mark.parametrize("components", [2, 3])
@pytest.mark.parametrize("figsize", [None, (9, 11), (14, 6)])
def test_keys_do_not_overlap_the_panels(components, figsize):
    figure = panels(fake(components=components, units=20), figsize=figsize)
    figure.canvas.draw()
    keys = [axes for axes in figure.axes if axes.get_label() == "key"]
    for axes, key in zip(panel_axes(figure).values(), keys, strict=True):
        if components == 2:
            assert axes.get_tightbbox().x1 < key.get_tightbbox().x0
        else:
            from mpl_toolkits.mplot3d.proj3d import proj_transform

            x, y, _ = proj_transform(*dots(axes)._offsets3d, axes.get_proj())
            assert axes.transData.transform(np.column_stack([x, y]))[:, 0].max() < key.get_tightbbox().x0
        assert key.get_tightbbox().x1 <= figure.bbox.x1


@pytest.mark.parametrize("suffix", HEAD)
def test_a_file_is_replaced_by_the_same_bits(tmp_path, suffix):
    path = tmp_path / f"panels{suffix}"
    panels(fake(), path=path)
    first = path.read_bytes()
    assert first.startswith(HEAD[suffix])
    panels(fake(), path=str(path))
    assert path.read_bytes() == first
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("draw", [panels, entropy])
@pytest.mark.parametrize(
    "name, message", [("p.gif", "'.gif'"), ("p", "accepted: .png"), ("no/p.png", "does not exist")]
)
def test_bad_paths_are_refused_and_nothing_is_written(tmp_path, draw, name, message):
    with pytest.raises(InputError, match=message):
        draw(fake(), path=tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("components", [2, 3])
def test_fifty_thousand_nodes_are_small_dots_in_a_small_file(tmp_path, components):
    embedding = fake(101, 83, 6, components, classes=10)
    assert embedding.n_nodes > 50_000
    figure = panels(embedding, path=tmp_path / "large.pdf")
    drawn = dots(panel_axes(figure)["unit"])
    assert drawn.get_rasterized()
    assert drawn.get_sizes()[0] < 1.2
    assert (tmp_path / "large.pdf").stat().st_size < 10e6


def test_no_class_hides_all_others():
    values = np.asarray(dots(panel_axes(panels(fake(40, 20, 4)))["unit"]).get_array())
    last = np.bincount(values[-800:].astype(int), minlength=4)
    assert last.min() > 100


def test_very_many_nodes_are_sampled_and_a_note_says_so(monkeypatch):
    monkeypatch.setattr("mmphate_gpu.plots.scatter.MAX_DOTS", 50)
    figure = panels(fake())
    assert len(dots(panel_axes(figure)["epoch"]).get_offsets()) == 50
    assert "50 of 120 nodes" in figure.texts[-1].get_text()


@pytest.mark.parametrize("components", [1, 2, 3])
@pytest.mark.parametrize("shape", [(9, 1, 1), (1, 9, 1), (1, 1, 9), (9, 1, 3), (2, 1, 1)])
def test_axes_with_a_single_value_can_be_drawn(tmp_path, components, shape):
    panels(fake(*shape, components, classes=1), path=tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 10_000


@pytest.mark.parametrize("components", [1, 2, 3])
def test_equal_points_can_be_drawn(components):
    embedding = Embedding(np.zeros((12, components)), SliceLayout.of_shape(3, 2, 2))
    panels(embedding).canvas.draw()


def test_names_and_uneven_steps_are_labels_of_the_keys():
    layout = SliceLayout(np.array([1, 10, 100]), np.array(["start", "end"]), np.array(["a very long name", "b"]))
    for components in (1, 2):
        figure = panels(fake(layout=layout, components=components))
        keys = [axes for axes in figure.axes if axes.get_label() == "key"]
        assert [tick.get_text() for tick in keys[0].get_yticklabels()] == ["1", "10", "100"]
        assert [tick.get_text() for tick in keys[1].get_yticklabels()] == ["start", "end"]
        assert [name.get_text() for name in keys[2].get_legend().get_texts()] == ["a very lo…", "b"]


@pytest.mark.parametrize(
    "labels, expected",
    [
        (np.arange(80), [0, 20, 40, 60, 79]),
        (np.arange(1, 102), [1, 20, 40, 60, 80, 101]),
        (np.arange(2), [0, 1]),
        (np.arange(5)[::-1], [0, 1, 2, 3, 4]),
        (np.array([0.0, 0.5, 1.0]), ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
    ],
)
def test_color_bars_show_both_ends_and_round_numbers(labels, expected):
    key = ordered(np.arange(len(labels)), labels, "viridis", 0, 1)
    assert key.names == [str(label) for label in expected]
    assert (key.norm.vmin, key.norm.vmax) == (labels.min(), labels.max())


def test_up_to_twelve_categories_have_a_legend():
    assert len(set(PALETTE)) == 12
    assert [categorical(np.arange(n), np.arange(n)).swatches for n in (1, 12, 13)] == [True, True, False]
    many = categorical(np.arange(200), np.arange(200))
    assert 3 < len(many.ticks) < 12


def test_bad_arguments_are_refused():
    with pytest.raises(InputTypeError, match="embedding is a ndarray"):
        panels(np.zeros((4, 2)))
    with pytest.raises(InputError, match="point_size='big'"):
        panels(fake(), point_size="big")
    with pytest.raises(InputError, match="point_size=0"):
        panels(fake(), point_size=0)
    with pytest.raises(InputError, match="figsize"):
        panels(fake(), figsize=(0.5, 0.5))
    with pytest.raises(InputError, match="figsize"):
        panels(fake(), figsize=(5,))


def test_the_point_size_can_be_set():
    assert dots(panel_axes(panels(fake(), point_size=3.5))["epoch"]).get_sizes() == [3.5]


def test_entropy_marks_the_chosen_time(tmp_path):
    figure = entropy(fake(), path=tmp_path / "entropy.svg")
    curve, _, mark = figure.axes[0].lines
    np.testing.assert_array_equal(curve.get_xdata(), np.arange(100))
    np.testing.assert_array_equal(curve.get_ydata(), fake().entropy)
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (21, fake().entropy[21])
    assert "= 21" in figure.axes[0].texts[0].get_text()
    assert (tmp_path / "entropy.svg").read_bytes().startswith(b"<?xml")


def test_a_curve_is_drawn_with_a_mark_only_if_t_is_passed():
    assert len(entropy([3.0, 2.0, 1.0]).axes[0].lines) == 1
    assert len(entropy(np.array([3.0, 2.0, 1.0]), 1).axes[0].lines) == 3
    beyond = entropy(np.array([3.0, 2.0, 1.0]), t=9).axes[0]
    assert len(beyond.lines) == 2 and beyond.get_xlim()[1] > 9


@pytest.mark.parametrize("t", [1, 99])
def test_entropy_label_stays_in_the_picture(t):
    figure = entropy(fake(), t)
    figure.canvas.draw()
    label = figure.axes[0].texts[0].get_window_extent()
    assert figure.bbox.x0 < label.x0 and label.x1 < figure.bbox.x1


@pytest.mark.parametrize("wrong", ["curve", [], [[1.0]], [1.0, np.nan], None])
def test_bad_curves_are_refused(wrong):
    with pytest.raises(InputError, match="entropy"):
        entropy(wrong)


def test_an_embedding_without_entropy_is_refused():
    with pytest.raises(InputError, match="no entropy"):
        entropy(Embedding(np.zeros((4, 2)), SliceLayout.of_shape(2, 1, 2)))


def test_import_loads_no_matplotlib_and_drawing_no_pyplot():
    program = (
        "import sys, numpy as np\n"
        "from mmphate_gpu.embedding import Embedding\n"
        "from mmphate_gpu.slices import SliceLayout\n"
        "from mmphate_gpu import plots\n"
        "heavy = {'matplotlib', 'xarray', 'pandas', 'anndata', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "e = Embedding(np.random.rand(8, 3), SliceLayout.of_shape(2, 2, 2), entropy=np.ones(5), t=2)\n"
        "plots.panels(e).canvas.draw(); plots.entropy(e).canvas.draw()\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_drawing_changes_no_settings(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    panels(fake(), path=tmp_path / "p.svg")
    assert dict(matplotlib.rcParams) == before
