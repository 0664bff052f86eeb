"""The grid of baselines: every node in its place and color, a legible table, and all best values in bold."""

import numpy as np
import pytest

from mmphate_gpu.analysis import Baselines
from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.plots import baselines, heatmap
from mmphate_gpu.slices import SliceLayout

from .results import HOSTILE, assert_legible, axes_of, labels, tick_names, wave

METHODS = ["mm_phate", "pca", "tsne", "umap", "isomap", "m_phate_per_step"]
METRICS = ["intra", "inter", "trustworthiness", "continuity", "geodesic_spearman"]
COLUMN = (3.35, 5.6)


def invented(n=6, metrics=METRICS, epoch=7, timestep=3, unit=5, table=None):
    layout = SliceLayout(labels(epoch), labels(timestep), labels(unit))
    rng = np.random.default_rng(0)
    return Baselines(
        methods=METHODS[:n],
        coordinates={name: rng.standard_normal((layout.n_nodes, 2)) for name in METHODS[:n]},
        layout=layout,
        metrics=list(metrics),
        table=rng.random((n, len(metrics))) if table is None else np.array(table),
        seconds=np.array([np.nan, 0.04, 1234.5, 61.5, 3.25, 12.0])[:n],
        similarity={f"cka of {axis}s": wave(*2 * [len(getattr(layout, axis))]) for axis in ("epoch", "timestep")},
        settings={},
    )


def table_of(figure):
    """The lines of the table, as lists of texts."""
    lines = {}
    for text in axes_of(figure, "table").texts:
        lines.setdefault(text.get_position()[1], []).append(text)
    return [sorted(line, key=lambda text: text.get_position()[0]) for _, line in sorted(lines.items())]


def test_every_node_is_in_its_place_and_color():
    result = invented()
    figure = baselines(result, color_by="timestep")
    shown = np.random.default_rng(0).permutation(105)
    for name in METHODS:
        dots = axes_of(figure, name).collections[0]
        np.testing.assert_array_equal(dots.get_offsets(), result.coordinates[name][shown])
        np.testing.assert_array_equal(dots.get_array(), result.layout.labels("timestep")[shown])
    key = axes_of(figure, "key")
    assert tick_names(key, "y") == ["0", "1", "2"]
    assert "Time step" in [text.get_text() for text in figure.texts]


def test_many_nodes_are_thinned(monkeypatch):
    import sys

    monkeypatch.setattr(sys.modules["mmphate_gpu.plots.baselines"], "MAX_DOTS", 40)
    dots = axes_of(baselines(invented(2)), "pca").collections[0].get_offsets()
    assert len(np.unique(dots, axis=0)) == 40


def test_nodes_without_a_place_are_left_out(tmp_path):
    result = invented(2)
    result.coordinates["mm_phate"][3] = np.nan
    dots = axes_of(baselines(result, path=tmp_path / "b.png"), "mm_phate").collections[0]
    assert np.ma.masked_invalid(dots.get_offsets()).mask.any(1).sum() == 1


def test_the_table_says_what_the_result_says():
    result = invented(
        3, table=[[0.5, 0.2, 0.9], [0.704, np.nan, 0.8], [0.7, 0.1, 0.7]], metrics=[*METRICS[:2], "spread"]
    )
    lines = [[text.get_text() for text in line] for line in table_of(baselines(result))]
    assert lines == [
        ["", "intra", "inter", "spread", "seconds"],
        ["MM-PHATE", "0.50", "0.20", "0.90", "–"],
        ["PCA", "0.70", "–", "0.80", "0.0"],
        ["t-SNE", "0.70", "0.10", "0.70", "1234.5"],
    ]


def test_all_values_that_are_printed_as_the_best_are_bold():
    table = [[0.5, 0.2, 0.9], [0.704, np.nan, 0.8], [0.7, 0.1, 0.7]]
    result = invented(3, table=table, metrics=["intra", "stress", "spread"])
    bold = [[text.get_weight() == "bold" for text in line] for line in table_of(baselines(result))]
    # A lower stress is better, and no spread is.
    assert bold == [[False] * 5, [False] * 5, [False, True, False, False, False], [False, True, True, False, False]]


def test_a_wide_table_has_blocks_at_one_column():
    metrics = [*METRICS, "stress", "entropy", "spread", "silhouette"]
    figure = baselines(invented(6, metrics), figsize=COLUMN)
    lines = [[text.get_text() for text in line] for line in table_of(figure)]
    wide = [[text.get_text() for text in line] for line in table_of(baselines(invented(6, metrics)))]
    assert [[*first, *second[1:]] for first, second in zip(lines[:7], lines[7:], strict=True)] == wide
    sizes = {text.get_fontsize() for text in axes_of(figure, "table").texts}
    assert len(sizes) == 1 and sizes.pop() >= 6
    assert_legible(figure)


@pytest.mark.parametrize("figsize", [None, COLUMN])
@pytest.mark.parametrize("n", [1, 5])
def test_texts_do_not_touch(n, figsize):
    assert_legible(baselines(invented(n), figsize=figsize))


@pytest.mark.parametrize("figsize", [None, COLUMN])
@pytest.mark.parametrize(
    "axis, names",
    [("epoch", HOSTILE), ("timestep", np.datetime64("2026-11-28T10:00") + np.arange(4)), ("unit", np.arange(30))],
)
def test_hostile_labels_and_names_of_metrics_do_not_touch(axis, names, figsize):
    metrics = ["$x^2$", "a name of many words", "_hidden", "stress", "entropy", "spread", "silhouette"]
    assert_legible(baselines(invented(6, metrics, **{axis: names}), color_by=axis, figsize=figsize))


def boxes(figure):
    figure.canvas.draw()
    extents = [axes_of(figure, name).get_window_extent() for name in METHODS[:6]]
    return np.array([box.extents for box in extents]) / figure.dpi


def test_pictures_are_square_and_in_two_columns_of_a_column_of_a_paper():
    whole = boxes(baselines(invented()))
    np.testing.assert_allclose(whole[:, 2] - whole[:, 0], whole[:, 3] - whole[:, 1], rtol=1e-6)
    assert len(np.unique(whole[:, 0].round(6))) == 3
    narrow = boxes(baselines(invented(), figsize=COLUMN))
    assert len(np.unique(narrow[:, 0].round(6))) == 2
    shape = (narrow[:, 2] - narrow[:, 0]) / (narrow[:, 3] - narrow[:, 1])
    assert (shape > 0.8).all() and (shape < 1.25).all()


def test_a_picture_has_the_same_bytes_each_time(tmp_path):
    for name in ("a.svg", "b.svg"):
        baselines(invented(2), path=tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_similarities_are_heat_maps_with_the_axis_of_their_name():
    result = invented(1, epoch=np.array([0, 5, 10]), timestep=np.array([2, 4, 8]))  # equally many of both
    for name, axis in (("cka of epochs", "Epoch"), ("cka of timesteps", "Time step")):
        axes = axes_of(heatmap(result, field=name), "heatmap")
        np.testing.assert_array_equal(axes.images[0].get_array(), result.similarity[name].T)
        assert axes.get_xlabel() == axes.get_ylabel() == axis
        assert tick_names(axes, "x") == [str(label) for label in getattr(result.layout, axis.lower().replace(" ", ""))]


def test_bad_arguments_are_refused(tmp_path):
    with pytest.raises(InputTypeError, match="result is a dict; accepted: Baselines"):
        baselines({})
    with pytest.raises(InputError, match="color_by='layer' is unknown; accepted: 'epoch', 'timestep', 'unit'"):
        baselines(invented(1), color_by="layer")
    with pytest.raises(InputError, match="no room for the panels; accepted: a height of 4.. or more at this width"):
        baselines(invented(), figsize=(3.35, 2.6))
    with pytest.raises(InputError, match="figsize"):
        baselines(invented(), figsize=(1, 9))
    with pytest.raises(InputError, match="path"):
        baselines(invented(1), path=tmp_path / "picture.gif")
