"""Heat maps: every cell in the color of its value, with legible labels and a key that names what is special."""

import dataclasses

import numpy as np
import pytest

from mmphate_gpu.analysis import Baselines, TimestepAblation, UnitAblation
from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.plots import entropy_curves, heatmap
from mmphate_gpu.slices import SliceLayout

from .results import (
    HOSTILE,
    HOSTILE_SHOWN,
    ablated,
    assert_legible,
    axes_of,
    entropies,
    information,
    made,
    probes,
    tick_names,
)

COLUMN = (3.35, 2.4)


def image_of(figure):
    return axes_of(figure, "heatmap").images[0]


def title_of(figure):
    return figure.texts[-1].get_text()


def key_texts(figure):
    return [text.get_text() for text in figure.texts[:-1] if text.get_text()]


@pytest.mark.parametrize(
    "result, field, title, rows",
    [
        (probes(), "score", "Linear probe: balanced accuracy", "Time step"),
        (probes(), "cross_entropy", "Linear probe: cross-entropy", "Time step"),
        (probes(measure="R2"), "cross_entropy", "Linear probe: squared error", "Time step"),
        (information(), "mean", "Label information, mean over units", "Time step"),
        (information(), "bound", "Label information, bound of the probe", "Time step"),
        (information(), "dsmi", "Label information, spectral (DSMI)", "Time step"),
        (ablated(TimestepAblation), "loss_change", "Change of loss, time step replaced (shuffle)", "Time step"),
        (ablated(TimestepAblation), "accuracy", "Accuracy, time step replaced (shuffle)", "Time step"),
        (ablated(UnitAblation), "accuracy_change", "Change of accuracy, unit replaced (shuffle)", "Unit"),
        (ablated(UnitAblation), "loss", "Loss, unit replaced (shuffle)", "Unit"),
        (entropies(), "values", "Intra-step entropy", "Time step"),
        (entropies(over="timesteps"), "values", "Inter-step entropy", "Unit"),
    ],
)
def test_every_cell_has_the_color_of_its_value(result, field, title, rows):
    figure = heatmap(result, field=field)
    image, axes = image_of(figure), axes_of(figure, "heatmap")
    np.testing.assert_array_equal(image.get_array(), getattr(result, field).T)
    assert image.origin == "lower" and list(image.get_extent()) == [-0.5, 11.5, -0.5, 3.5]
    assert (title_of(figure), axes.get_xlabel(), axes.get_ylabel()) == (title, "Epoch", rows)


def test_information_of_units_is_the_mean_over_time_steps():
    result = information()
    result.per_unit[2, :2, 1] = np.nan
    result.per_unit[3, :, 1] = np.nan
    values = image_of(heatmap(result, field="per_unit")).get_array().T
    np.testing.assert_allclose(values[0], result.per_unit[0].mean(axis=0))
    np.testing.assert_allclose(values[2, 1], result.per_unit[2, 2:, 1].mean())
    assert values.mask[3, 1] and values.mask.sum() == 1


def test_the_first_field_is_drawn_by_default():
    for result, field in ((probes(), "score"), (information(), "mean"), (ablated(UnitAblation), "loss_change")):
        np.testing.assert_array_equal(image_of(heatmap(result)).get_array(), getattr(result, field).T)


@pytest.mark.parametrize("field, harm", [("loss_change", 1), ("accuracy_change", -1)])
def test_changes_are_centered_on_zero_and_harm_is_red(field, harm):
    image = image_of(heatmap(ablated(TimestepAblation), field=field))
    assert image.norm.vmin == -image.norm.vmax < 0
    red, _, blue, _ = image.cmap(image.norm(harm * image.norm.vmax))
    assert red > 2 * blue
    np.testing.assert_allclose(image.cmap(image.norm(0)), (0.97, 0.97, 0.97, 1), atol=0.01)


def test_the_levels_without_information_are_marked_on_the_bar():
    figure = heatmap(probes(permuted_score=np.full((12, 4), 0.05)))
    permuted, *chance = axes_of(figure, "key").lines
    assert permuted.get_ydata()[0] == pytest.approx(0.05)
    assert {tuple(line.get_ydata()) for line in chance} == {(0.25, 0.25)}
    assert key_texts(figure) == ["▶", "permuted 0.05", "—", "chance 0.25"]
    assert image_of(figure).norm.vmin == pytest.approx(0.05)  # the scale reaches the mark
    figure = heatmap(probes(permuted_score=np.full((12, 4), np.nan)))
    assert key_texts(figure) == ["—", "chance 0.25"]
    assert key_texts(heatmap(information(), field="dsmi"))[:3] == ["bits", "▶", "permuted 5"]


def test_cells_without_a_value_are_hatched_and_named():
    result = ablated(UnitAblation)
    assert "no value" not in key_texts(heatmap(result))
    result.loss_change[2, 1] = np.nan
    figure = heatmap(result)
    assert key_texts(figure) == ["nats", "▨", "no value"]
    assert image_of(figure).get_array().mask.sum() == 1
    assert image_of(figure).cmap.get_bad()[3] == 0 and axes_of(figure, "heatmap").patch.get_hatch() == "////"


def test_cells_smaller_than_a_pixel_have_the_color_of_their_mean():
    """Units whose changes are opposite in turn cancel. Mixed colors would be purple, which the key does not have."""
    change = np.tile([[1.0], [-1.0]], (1000, 3)).T  # (E, M)
    axes = axes_of(heatmap(ablated(UnitAblation, 3, 2000, loss_change=change)), "heatmap")
    axes.figure.canvas.draw()
    box = axes.get_window_extent()
    pixels = np.asarray(axes.figure.canvas.buffer_rgba())[::-1][int(box.y0) + 9 : int(box.y1) - 9, int(box.x0) + 9]
    assert np.abs(np.diff(pixels[:, :3].astype(int), axis=1)).max() < 12  # gray or white


def test_the_title_says_of_what_an_entropy_is():
    entropy = dataclasses.replace(entropies(), settings={"of": "trace"})
    for result, title in ((entropies(), "Intra-step entropy"), (entropy, "Intra-step entropy of the states")):
        for figure in (heatmap(result), entropy_curves(result)):
            assert title in [text.get_text() for text in figure.texts]


def test_equal_values_can_be_drawn():
    result = dataclasses.replace(ablated(UnitAblation, 2, 3), loss_change=np.zeros((2, 3)))
    norm = image_of(heatmap(result)).norm
    assert (norm.vmin, norm.vmax) == (-1, 1)


@pytest.mark.parametrize(("loss", "texts"), [("cross-entropy (nats)", ["nats"]), ("MyLoss", [])])
def test_the_unit_of_the_default_loss_is_named(loss, texts):
    result = dataclasses.replace(ablated(UnitAblation), settings={"loss": loss})
    assert key_texts(heatmap(result)) == texts
    assert key_texts(heatmap(result, field="accuracy")) == []
    norm = image_of(heatmap(probes(1, 1, score=np.ones((1, 1)), permuted_score=np.ones((1, 1)), chance=1.0))).norm
    assert norm.vmin < 1 < norm.vmax


@pytest.mark.parametrize(
    "epoch, unit, columns, rows",
    [
        (51, 20, ["0", "5", "10", "15", "20", "25", "30", "35", "40", "45", "50"], None),
        (500, 5000, ["0", "50", "100"], ["0", "500", "1000"]),
        (np.arange(12) * 3 + 1, 3, [str(3 * i + 1) for i in range(12)], ["0", "1", "2"]),
        (np.arange(100) * 3 + 1, 3, None, ["0", "1", "2"]),
        (HOSTILE, HOSTILE, HOSTILE_SHOWN, HOSTILE_SHOWN),
        (np.array(["2024-01-01", "2024-05-01"], "M8[D]"), 1, ["2024-01-01", "2024-05-01"], ["0"]),
    ],
)
def test_labels_stand_at_their_cells(epoch, unit, columns, rows):
    result = ablated(UnitAblation, epoch, unit)
    axes = axes_of(heatmap(result), "heatmap")
    for axis, labels, expected in (("x", result.epoch, columns), ("y", result.unit, rows)):
        names, places = tick_names(axes, axis), getattr(axes, f"get_{axis}ticks")()
        if labels.dtype.kind == "i":
            assert names == labels[places.astype(int)].astype(str).tolist()
        if expected is not None:
            assert names[: len(expected)] == expected


@pytest.mark.parametrize("figsize", [None, COLUMN])
@pytest.mark.parametrize("epoch, unit", [(2, 1), (500, 5000), (HOSTILE, HOSTILE), (1, 60)])
def test_texts_do_not_touch(epoch, unit, figsize):
    assert_legible(heatmap(ablated(UnitAblation, epoch, unit), figsize=figsize))


@pytest.mark.parametrize("figsize", [None, COLUMN])
def test_texts_of_the_key_do_not_touch(figsize):
    score = probes().score
    score[3, 2] = np.nan
    assert_legible(heatmap(probes(score=score), figsize=figsize))
    assert_legible(heatmap(information(), field="bound", figsize=figsize))


def test_similarities_are_squares_of_epochs_or_time_steps():
    similarity = {"cka of epochs": np.eye(3), "svcca of timesteps": np.eye(4)}
    result = made(Baselines, layout=SliceLayout.of_shape(3, 4, 2), similarity=similarity)
    for field, name in (("cka of epochs", "Epoch"), ("svcca of timesteps", "Time step")):
        title = f"Similarity ({field.split()[0].upper()})"
        figure = heatmap(result, field=field)
        axes = axes_of(figure, "heatmap")
        assert (axes.get_xlabel(), axes.get_ylabel(), title_of(figure)) == (name, name, title)
    with pytest.raises(InputError, match="result has no similarity; accepted: baselines with the method"):
        heatmap(made(Baselines, layout=result.layout, similarity={}))


def test_an_entropy_without_epochs_has_time_steps_across():
    entropy = made(type(entropies()), values=np.eye(2, 3), dims=("timestep", "unit"), base=10, over="epochs",
                   settings={"of": "embedding"},
                       coords={"timestep": np.arange(2), "unit": np.arange(3)})  # fmt: skip
    figure = heatmap(entropy)
    axes = axes_of(figure, "heatmap")
    assert (axes.get_xlabel(), axes.get_ylabel(), title_of(figure)) == ("Time step", "Unit", "Entropy")
    assert "bans" in key_texts(figure)


def test_bad_arguments_are_refused(tmp_path):
    with pytest.raises(InputTypeError, match="result is a ndarray; accepted: LinearProbe or LabelInformation or"):
        heatmap(np.eye(3))
    with pytest.raises(InputError, match="field='loss' is unknown; accepted: 'score', 'cross_entropy'"):
        heatmap(probes(), field="loss")
    with pytest.raises(InputError, match="result has NaN everywhere in 'accuracy_change'; accepted: at least one"):
        result = ablated(UnitAblation)
        result.accuracy_change[:] = np.nan
        heatmap(result, field="accuracy_change")
    with pytest.raises(InputError, match="result is an entropy with 0 axes; accepted: two axes"):
        heatmap(made(type(entropies()), dims=(), values=np.array(1.0)))
    with pytest.raises(InputError, match="figsize"):
        heatmap(probes(), figsize=(1, 1))
    with pytest.raises(InputError, match="path"):
        heatmap(probes(), path=tmp_path / "picture.gif")


def test_a_file_is_written(tmp_path):
    heatmap(probes(), path=tmp_path / "map.png")
    first = (tmp_path / "map.png").read_bytes()
    heatmap(probes(), path=tmp_path / "map.png")
    assert first.startswith(b"\x89PNG") and (tmp_path / "map.png").read_bytes() == first
