"""Pictures of null models and of smaller traces: dots, lines and bars where the results say, with legible texts."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from mmphate_gpu.analysis import NullModels, SubsampleStudy
from mmphate_gpu.analysis.picture_metrics import METRICS
from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.plots import null_models, subsampling
from mmphate_gpu.plots.trust import TITLES

from .results import HOSTILE, assert_legible, axes_of, labels, tick_names

TYPES = ["units", "timesteps", "epochs", "phase"]


def nulls(metrics=METRICS, types=TYPES, repeats=9):
    rng = np.random.default_rng(0)
    values = rng.random((len(types), repeats, len(metrics)))
    p = rng.random((len(types), len(metrics)))
    return NullModels(list(types), list(metrics), rng.random(len(metrics)), values, p, {})


def study(metrics=("intra", "inter"), over="timesteps", sizes=(300, 150, 60), repeats=5, epoch=12):
    rng, epoch = np.random.default_rng(0), labels(epoch)
    metrics = [*metrics, "procrustes"]
    return SubsampleStudy(
        over=over,
        rates=np.array(sizes) / 600,
        sizes=np.array(sizes),
        repeats=repeats,
        metrics=metrics,
        values=rng.random((len(sizes), repeats, len(metrics))),
        full=rng.random(len(metrics)),
        curves=rng.random((len(sizes), repeats, len(epoch))),
        full_curve=rng.random(len(epoch)),
        epoch=epoch,
        settings={},
    )


# ---------------------------------------------------------------- null models


def test_nulls_are_dots_and_the_data_a_line():
    result = nulls()
    figure = null_models(result)
    for index, metric in enumerate(METRICS):
        axes = axes_of(figure, metric)
        *dots, line = axes.lines
        for row, values in enumerate(result.null[:, :, index]):
            np.testing.assert_array_equal(dots[row].get_xdata(), values)
            assert (np.abs(dots[row].get_ydata() - row) <= 0.25).all()
        assert set(line.get_xdata()) == {result.data[index]}
        assert axes.get_ylim() == (3.5, -0.5)  # the first null at the top
        assert [text.get_text() for text in axes.texts] == [f"p {p:.2f}" for p in result.p[:, index]]
        assert axes.get_xlim()[0] < min(result.null[:, :, index].min(), result.data[index])


def test_a_small_p_is_not_rounded_to_zero():
    result = nulls(repeats=999)
    result.p[:] = 0.001
    figure = null_models(result, figsize=(3.35, 6.4))
    assert {text.get_text() for text in axes_of(figure, "intra").texts} == {"p 0.001"}
    assert_legible(figure)


def test_nulls_are_named_once_a_row():
    figure = null_models(nulls())
    names = [tick_names(axes_of(figure, metric), "y") for metric in METRICS]
    assert names == 3 * [["units", "time steps", "epochs", "phase"], 4 * [""], 4 * [""]]
    assert [text.get_text() for text in figure.texts] == [TITLES[metric] for metric in METRICS]


def test_what_is_not_defined_is_not_drawn():
    result = nulls(("intra", "inter"), repeats=1)
    for array in (result.data, result.null, result.p):
        array[..., 0] = np.nan
    figure = null_models(result)
    assert len(axes_of(figure, "intra").texts) == 0 and len(axes_of(figure, "intra").lines) == 4  # dots at NaN
    assert len(axes_of(figure, "inter").texts) == 4
    assert_legible(figure)


@pytest.mark.parametrize("figsize", [None, (3.35, 6.4)])
@pytest.mark.parametrize(
    "result",
    [
        nulls(),
        nulls(("inter",), ("phase",), 1),
        nulls(["a function with a name of many words", *HOSTILE[:3]], repeats=99),
        nulls(METRICS[:2], TYPES[:2]),
    ],
)
def test_texts_of_nulls_do_not_touch(result, figsize):
    result.data[0] *= 1e5  # long numbers
    assert_legible(null_models(result, figsize=figsize))


@pytest.mark.parametrize("center", [1.00598, 1e5 + 0.005, -1e-5])
def test_a_narrow_range_of_long_numbers_has_few_ticks(center):
    result = nulls(METRICS[:2])
    for values in (result.data, result.null):
        values[...] = center + (values - 0.5) * 3e-5
    figure = null_models(result, figsize=(3.35, 2))
    assert_legible(figure)
    assert len(tick_names(axes_of(figure, "intra"), "x")) >= 1


# ---------------------------------------------------------------- smaller traces


def test_bars_are_means_and_deviations():
    result = study()
    figure = subsampling(result)
    for index, metric in enumerate(result.metrics):
        axes = axes_of(figure, metric)
        line, (lower, upper), _ = axes.containers[0]
        means, deviations = result.values[:, :, index].mean(1), result.values[:, :, index].std(1, ddof=1)
        np.testing.assert_allclose(line.get_ydata(), means, rtol=1e-12)
        np.testing.assert_allclose(upper.get_ydata() - lower.get_ydata(), 2 * deviations, rtol=1e-12)
        dashed = axes.lines[-1]
        assert set(dashed.get_ydata()) == {result.full[index]} and dashed.is_dashed()
        assert tick_names(axes, "x") == ["300", "150", "60"] and axes.get_xlabel() == "Time steps"


def test_curves_are_means_over_the_repeats():
    result = study()
    axes = axes_of(subsampling(result), "entropy")
    for line, curves in zip(axes.lines, [result.full_curve[None], *result.curves], strict=True):
        np.testing.assert_allclose(line.get_ydata(), curves.mean(0), rtol=1e-12)
        assert line.get_xdata().tolist() == list(range(12))


def test_curves_of_a_single_epoch_are_dots_with_bars():
    result = study(epoch=1)
    axes = axes_of(subsampling(result), "entropy")
    for bar, curves in zip(axes.containers, [result.full_curve[None], *result.curves], strict=True):
        dot, (lower, upper), _ = bar
        deviation = curves.std(ddof=1) if len(curves) > 1 else 0
        np.testing.assert_allclose(dot.get_ydata(), curves.mean(), rtol=1e-12)
        np.testing.assert_allclose(upper.get_ydata() - lower.get_ydata(), 2 * deviation, rtol=1e-12)
    assert len(axes_of(subsampling(study(epoch=2)), "entropy").containers) == 0


SIZES = (100, 90, 80, 70, 60, 50, 40, 30, 20)


def test_colors_of_the_sizes_are_a_ramp():
    def lightness(sizes):  # of the whole trace, and of each size
        lines = axes_of(subsampling(study(sizes=sizes)), "entropy").lines
        return np.array([to_rgb(line.get_color()) for line in lines]) @ [0.2126, 0.7152, 0.0722]

    whole, *sizes = lightness(SIZES)
    assert (np.diff(sizes) > 0.02).all() and max(sizes) < 0.75 and whole != sizes[0]
    order = [3, 0, 8, 1, 2, 7, 4, 5, 6]
    np.testing.assert_allclose(lightness(tuple(np.array(SIZES)[order]))[1:], np.array(sizes)[order])


def test_the_key_of_many_sizes_has_columns():
    figure = subsampling(study(sizes=SIZES), figsize=(3.35, 4.6))
    names = axes_of(figure, "key").get_legend().get_texts()
    assert [name.get_text() for name in names] == ["all", *map(str, SIZES)]
    assert min(name.get_fontsize() for name in names) >= 6.8
    assert_legible(figure)


def test_curves_of_fewer_epochs_have_no_gaps():
    result = study(over="epochs")
    result.curves[0, :, 1::2] = np.nan
    result.curves[1, 0, 4] = np.nan
    full, half, *_ = axes_of(subsampling(result), "entropy").lines
    assert half.get_xdata().tolist() == [0, 2, 4, 6, 8, 10] and len(full.get_xdata()) == 12
    fewer = axes_of(subsampling(result), "entropy").lines[2]
    np.testing.assert_allclose(fewer.get_ydata()[4], result.curves[1, 1:, 4].mean(), rtol=1e-12)


def test_a_metric_that_is_not_defined_is_an_empty_panel():
    result = study(repeats=1)
    result.values[:, :, 0] = result.full[0] = np.nan
    figure = subsampling(result)
    assert not np.isfinite(axes_of(figure, "intra").containers[0][0].get_ydata()).any()
    assert len(axes_of(figure, "intra").lines) == len(axes_of(figure, "inter").lines) - 1  # no dashed line
    assert_legible(figure)


@pytest.mark.parametrize("figsize", [None, (3.35, 4.6)])
@pytest.mark.parametrize(
    "result",
    [
        study(),
        study((), "units", (5,), 1, epoch=1),
        study(("inter",), "samples", (123456, 23456, 3456, 456, 56, 6), epoch=HOSTILE),
        study(("intra", "inter", "stress"), "epochs", (50, 5), epoch=100),
    ],
)
def test_texts_of_smaller_traces_do_not_touch(result, figsize):
    assert_legible(subsampling(result, figsize=figsize))


@pytest.mark.parametrize("figsize", [None, (3.35, 4.6)])
@pytest.mark.parametrize("center, reach", [(1.00598, 3e-5), (12345.678, 0.3), (-1.2e-5, 3e-5)])
def test_long_numbers_have_room_beside_the_panels(center, reach, figsize):
    result = study()
    for values in (result.values, result.full, result.curves, result.full_curve):
        values[...] = center + (values - 0.5) * reach
    assert_legible(subsampling(result, figsize=figsize))


# ---------------------------------------------------------------- both


@pytest.mark.parametrize("draw, result", [(null_models, nulls(METRICS[:2])), (subsampling, study())])
def test_pictures_have_the_same_bytes_each_time(draw, result, tmp_path):
    for name in ("a.svg", "b.svg"):
        draw(result, path=tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize(
    "draw, result, name", [(null_models, nulls(), "NullModels"), (subsampling, study(), "SubsampleStudy")]
)
def test_bad_arguments_are_refused(draw, result, name, tmp_path):
    with pytest.raises(InputTypeError, match=f"result is a list; accepted: {name}"):
        draw([])
    with pytest.raises(InputError, match="no room for the panels; accepted: a height of") as refused:
        draw(result, figsize=(3.35, 2.2))
    enough = float(str(refused.value).split("height of ")[1].split(" or")[0])
    draw(result, figsize=(3.35, enough))
    with pytest.raises(InputError, match="figsize"):
        draw(result, figsize=(1, 9))
    with pytest.raises(InputError, match="path"):
        draw(result, path=tmp_path / "picture.gif")
