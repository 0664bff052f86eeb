"""Pictures show names unchanged, have ticks that distinguish labels, and ignore the settings of the user."""

from xml.dom import minidom

import matplotlib
import numpy as np
import pytest

from mmphate_gpu.embedding import Embedding
from mmphate_gpu.plots import entropy, panels
from mmphate_gpu.plots.canvas import SMALLEST, new_figure
from mmphate_gpu.plots.colors import ordered, round_ticks
from mmphate_gpu.plots.keys import dot, draw_key, draw_names
from mmphate_gpu.plots.layout import text_width, widest
from mmphate_gpu.plots.names import texts
from mmphate_gpu.slices import SliceLayout

HOSTILE = {
    "text.usetex": True, "savefig.dpi": 3000, "figure.dpi": 2000, "savefig.bbox": "tight", "figure.autolayout": True,
    "font.size": 40, "font.family": ["no such font"], "axes.formatter.use_locale": True, "axes.grid": True,
    "axes.formatter.useoffset": False, "xtick.labelsize": 30, "axes.facecolor": "black", "lines.linewidth": 9,
    "axes.prop_cycle": matplotlib.cycler(color=["red"]), "legend.fontsize": 50, "text.color": "red",
}  # fmt: skip


def fake(epoch=4, timestep=3, unit=3, components=2, classes=None):
    axes = (axis if isinstance(axis, np.ndarray) else np.arange(axis) for axis in (epoch, timestep, unit))
    layout = SliceLayout(*axes)
    points = np.random.default_rng(0).normal(size=(layout.n_nodes, components))
    most_active = None if classes is None else np.resize(classes, layout.n_nodes)
    return Embedding(points, layout, most_active=most_active, entropy=np.linspace(4, 1, 50) ** 2, t=21)


def panel(figure, name):
    (axes,) = [axes for axes in figure.axes if axes.get_label() == name]
    return axes


def key_of(figure, name):
    """The axes of the key, which follow those of its panel."""
    return figure.axes[figure.axes.index(panel(figure, name)) + 1]


def legend_names(figure, name):
    return [entry.get_text() for entry in key_of(figure, name).get_legend().get_texts()]


def bar_names(figure, name):
    return [tick.get_text() for tick in key_of(figure, name).get_yticklabels()]


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    "labels, expected",
    [
        (["$x^2$", "_hidden", "\\frac{", "%s {0}", ""], ["$x^2$", "_hidden", "\\frac{", "%s {0}", ""]),
        (["a\nb", "tab\t", "\x00x", "\u2028"], ["a\\nb", "tab\\t", "\\x00x", "\\u2028"]),
        (["h", "h"], ["h", "h"]),
        (["a long, long name", "b"], ["a long, l…", "b"]),
        (["encoder.layer.1", "encoder.layer.2"], ["enco…yer.1", "enco…yer.2"]),
        (np.array([10**12, 10**12 + 1]), ["1000…00000", "1000…00001"]),
        (np.array([0.1, 0.2, 0.1 + 0.2]), ["0.1", "0.2", "0.3"]),
        (np.array([1e6, 1e6 + 0.25]), ["1000000", "1000000.2"]),
        (np.array([1.5, np.nan, np.inf]), ["1.5", "nan", "inf"]),
        (np.array([-1.234567e-7, 1.0]), ["-1.235e-07", "1"]),
        (np.array([0.1, 0.7], dtype=np.float32), ["0.1", "0.7"]),
        (np.array([True, False]), ["True", "False"]),
        (np.array(["2024-05-01", "2025-05-01"], "M8[ns]"), ["2024-05-01", "2025-05-01"]),
        (np.array(["2024-05-01T12", "2024-05-02T08:30"], "M8[s]"), ["05-01 12:00", "05-02 08:30"]),
        (np.array(["2024", "NaT"], "M8[Y]"), ["2024-01-01", "NaT"]),
        (np.array(["2024-05-01T12:00:30", "2024-05-01T12:01"], "M8[s]"), ["12:00:30", "12:01:00"]),
        (np.array(["2024-05-01T12:00", "2025-05-01T12:00"], "M8[s]"), ["2024-05-01", "2025-05-01"]),
        (np.array([90, 5400, "NaT"], "m8[s]"), ["90 s", "5400 s", "NaT"]),
        ([f"encoder.layers.{i}.attention.self" for i in (1, 12)], ["…1.attent…", "…12.atten…"]),
        (["m" * 9999 + "a", "m" * 9999 + "b"], ["mmmm…mmmma", "mmmm…mmmmb"]),
        (["x" * 50 + "1" + "y" * 50, "x" * 50 + "2" + "y" * 50], ["…x1yyyyyy…", "…x2yyyyyy…"]),
        (
            [f"{a}{'m' * 50}{b}{'m' * 50}" for a in "ab" for b in "12"],
            [f"{i} {'aabb'[i - 1]}mmmmmm…" for i in (1, 2, 3, 4)],
        ),
        (1_700_000_000_000_000_000 + 10**12 * np.arange(2), ["170000000…", "170000100…"]),
        (np.array([1, 1 + 1e-12]), ["1", "1.0000000…"]),
        (["\u202edlrow", "\u2066a"], ["\\u202edlr…", "\\u2066a"]),
    ],
)
def test_texts_of_different_labels_differ(labels, expected):
    assert texts(np.asarray(labels)) == expected


WEIRD = ["-->", "\ufffe", "$$", "$\\gate$", "w$_$", "_b", "_nolegend_", "", "a\nb", "é中😀", "שלום", "\ud800"]


def test_names_are_drawn_unchanged_and_can_be_drawn_later(tmp_path):
    embedding = fake(unit=np.array(WEIRD, dtype=object), classes=["$_$", "_c"])
    figure = panels(embedding, path=tmp_path / "p.svg")
    minidom.parse(str(tmp_path / "p.svg"))  # well-formed
    expected = ["-->", "\\ufffe", "$$", "$\\gate$", "w$_$", "_b", "_nolegend_", "", "a\\nb", "é中😀", "שלום", "\\ud800"]
    assert legend_names(figure, "unit") == expected
    assert legend_names(figure, "most_active") == ["$_$", "_c"]
    figure = panels(fake(unit=np.array(["$$", "b$"])))
    figure.canvas.draw()  # with the settings of the user


@pytest.mark.parametrize("components", [1, 2])
def test_dollar_signs_on_bars_and_axes_are_no_mathematics(components):
    names = np.array([f"$_{i}$" for i in range(20)])
    figure = panels(fake(epoch=names, unit=names, components=components))
    figure.canvas.draw()
    assert bar_names(figure, "unit") == bar_names(figure, "epoch")[:-1] == ["$_0$", "$_5$", "$_10$", "$_15$"]
    if components == 1:
        ticks = panel(figure, "unit").get_xticks()
        assert [tick.get_text() for tick in panel(figure, "unit").get_xticklabels()] == names[ticks].tolist()
        assert len(ticks) > 5


@pytest.mark.parametrize("height, shown", [(2.0, 12), (1.0, 8), (0.3, 2)])
def test_a_key_without_room_counts_the_names_that_it_leaves_out(height, shown):
    figure = new_figure((3, 3))
    names = [f"name {i}" for i in range(12)]
    draw_names(figure, (0.1, 0.1, 0.8, height / 3), [dot("red")] * 12, names)
    legend = figure.axes[0].get_legend()
    texts = [text.get_text() for text in legend.get_texts()]
    expected = names if shown == 12 else [*names[: shown - 1], f"{12 - shown + 1} more"]
    assert texts == expected and legend.get_texts()[0].get_fontsize() >= SMALLEST


def test_bars_leave_out_names_that_would_touch():
    """At half an inch of height there is room for two of eight names, which are those of the ends."""
    figure = new_figure((3, 3))
    labels = np.array([f"epoch {i}" for i in range(8)])
    draw_key(figure, (0.1, 0.1, 0.3, 0.4 / 3), ordered(np.arange(8), labels, "viridis", 0, 1))
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["epoch 0", "epoch 7"]


def test_the_widest_text_need_not_have_the_most_characters():
    figure = new_figure((3, 3))
    names = ["iiiiiiiiii", "llllllllll", "jjjjjjjjjj", "WWWWWWWW"]
    assert widest(figure, names, 8) == text_width(figure, names[-1], 8) > 2 * text_width(figure, names[0], 8)


def test_keys_name_dates_with_their_times():
    hours = np.datetime64("2026-03-01T08", "h") + 7 * np.arange(4)
    figure = panels(fake(unit=hours))
    assert legend_names(figure, "unit") == ["03-01 08:00", "03-01 15:00", "03-01 22:00", "03-02 05:00"]


# ---------------------------------------------------------------- ticks


@pytest.mark.parametrize(
    "labels, expected",
    [
        (np.arange(0, 1000, 10) + 10**12, [10**12, 10**12 + 500, 10**12 + 990]),
        (np.array([3.0, 1.0, 2.0]), [1, 2, 3]),  # whole numbers in a floating-point dtype
        (np.array([5, 5, 5]), [5]),
        (np.array([0.0, 0.25, 1.0]), [0, 0.5, 1]),
        (np.array([2**62, 2**62 + 3]), [2**62, 2**62 + 3]),
    ],
)
def test_ticks_are_the_ends_and_round_numbers(labels, expected):
    ticks = round_ticks(labels, 3)
    assert ticks.tolist() == expected and ticks.dtype == labels.dtype


def test_the_time_axis_of_one_component_has_whole_ticks():
    figure = panels(fake(epoch=np.array([7, 8, 9, 10]), components=1))
    axes = panel(figure, "unit")
    ticks = [float(tick.get_text()) for tick in axes.get_xticklabels()]
    assert ticks[0] == 7 and ticks[-1] == 10 and all(tick == int(tick) for tick in ticks)
    figure.canvas.draw()
    assert axes.xaxis.get_offset_text().get_text() == ""


@pytest.mark.parametrize(
    "epoch",
    [
        np.array([0.0, np.nan, np.inf, 3.0]),
        np.array(["2024-01-01T06", "2024-01-01T18", "2024-01-02T06", "2024-01-03T06"], "M8[ns]"),
        np.array([9, 3, 7, 1]),
        np.array([1e-12, 2e-12, 9e-12, 1e-11]),
        np.array([2, 2, 2, 2]),
        np.array([1.7e12, 1.7e12 + 1, 1.7e12 + 2, 1.7e12 + 3]),
    ],
)
@pytest.mark.parametrize("components", [1, 2])
def test_every_node_is_drawn_and_labels_stay_in_the_picture(epoch, components):
    figure = panels(fake(epoch=epoch, timestep=2, unit=2, components=components))
    figure.canvas.draw()
    offsets = np.asarray(panel(figure, "epoch").collections[0].get_offsets())
    assert np.isfinite(offsets).all() and len(offsets) == 16
    key = key_of(figure, "epoch").get_tightbbox()
    assert key.x1 <= panel(figure, "timestep").get_window_extent().x0
    for axes in (panel(figure, name) for name in ("epoch", "timestep", "unit")):
        boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
        assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:], strict=False))


def test_tiny_steps_can_be_uneven():
    labels = np.array([0, 1e-10, 5e-10])
    assert not np.array_equal(ordered(np.arange(3), labels, "viridis", 0, 1).values, labels)
    even = np.array([0, 1e-10, 2e-10])
    np.testing.assert_array_equal(ordered(np.arange(3), even, "viridis", 0, 1).values, even)


@pytest.mark.parametrize(
    "curve, t", [([1.0, 2.0], 1), ([3.0], 0), (8 + 1e-9 * np.sin(np.arange(100)), 99), (np.ones(5), 4)]
)
def test_short_and_level_curves_are_readable(curve, t):
    figure = entropy(curve, t)
    figure.canvas.draw()
    axes = figure.axes[0]
    low, high = axes.get_ylim()
    assert low < min(curve) and max(curve) < high
    assert high - low > 0.5 or len(curve) == 2  # rounding is drawn as level
    assert axes.yaxis.get_offset_text().get_text() == ""
    shown = [tick for tick in axes.get_xticks() if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
    assert all(tick == int(tick) for tick in shown)
    label = axes.texts[0].get_window_extent()
    assert figure.bbox.x0 < label.x0 and label.x1 < figure.bbox.x1


# ---------------------------------------------------------------- settings of the user


def test_settings_of_the_user_change_no_picture(tmp_path):
    def draw(folder):
        folder.mkdir()
        panels(fake(components=3), path=folder / "p.png")
        entropy(fake(), path=folder / "e.svg")
        return [(folder / name).read_bytes() for name in ("p.png", "e.svg")]

    expected = draw(tmp_path / "plain")
    with matplotlib.rc_context(HOSTILE):
        before = {name: matplotlib.rcParams[name] for name in matplotlib.rcParams if name != "backend"}
        assert draw(tmp_path / "hostile") == expected
        assert {name: matplotlib.rcParams[name] for name in before} == before


def test_figures_and_backend_of_the_user_stay():
    import matplotlib.pyplot as plt

    plt.close("all")  # of other tests
    plt.switch_backend("svg")
    try:
        figure, axes = plt.subplots()
        interactive = plt.isinteractive()
        panels(fake())
        entropy(fake())
        assert plt.get_fignums() == [figure.number] and plt.gcf() is figure and plt.gca() is axes
        assert matplotlib.get_backend().lower() == "svg" and plt.isinteractive() == interactive
    finally:
        plt.close("all")
        plt.switch_backend("agg")
