"""Curves of entropy: a line a time step or unit, their mean and interval, phases and metrics on the same epochs."""

import numpy as np
import pytest

from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.plots import entropy_curves

from .results import HOSTILE, HOSTILE_SHOWN, assert_legible, axes_of, entropies, made, phases_of, tick_names

COLUMN = (3.35, 4.6)
METRICS = {"loss": np.linspace(2, 0.1, 12), "accuracy": np.linspace(0.1, 0.9, 12)}


def line(axes, name):
    (result,) = [line for line in axes.lines if line.get_label() == name]
    return result


def notes(figure):
    return [text.get_text() for text in figure.texts if text.get_text() != "■"]


@pytest.mark.parametrize("over, key", [("units", "Time step"), ("timesteps", "Unit")])
def test_lines_mean_and_interval(over, key):
    entropy = entropies(over=over)
    figure = entropy_curves(entropy)
    axes = axes_of(figure, "entropy")
    segments = np.array(axes.collections[1].get_segments())
    np.testing.assert_allclose(segments[:, :, 1], entropy.values.T)
    mean = line(axes, "mean")
    np.testing.assert_array_equal(mean.get_xdata(), np.arange(12))
    np.testing.assert_allclose(mean.get_ydata(), entropy.values.mean(axis=1))
    band = axes.collections[0].get_paths()[0].get_extents()
    # The replicates lie 0.2, 0.1 and 0 away, so their root mean square is sqrt(0.02).
    reach = 1.96 * np.sqrt(0.02)
    np.testing.assert_allclose(band.y1, mean.get_ydata().max() + reach)
    assert axes.get_ylabel() == "bits"
    assert {key, "mean, with its interval"} < set(notes(figure))
    assert notes(figure)[-1] == {"units": "Intra-step entropy", "timesteps": "Inter-step entropy"}[over]


def test_the_mean_can_be_drawn_alone():
    figure = entropy_curves(entropies(replicates=0), by=None)
    axes = axes_of(figure, "entropy")
    assert len(axes.collections) == 0 and len(axes.lines) == 1
    assert [axes.get_label() for axes in figure.axes] == ["entropy"] and "mean" in notes(figure)


def test_nodes_without_entropy_leave_gaps():
    entropy = entropies()
    entropy.values[3, :2] = np.nan
    entropy.values[7] = np.nan
    mean = line(axes_of(entropy_curves(entropy), "entropy"), "mean").get_ydata()
    assert np.flatnonzero(np.isnan(mean)).tolist() == [7]
    np.testing.assert_allclose(mean[3], entropy.values[3, 2:].mean())


def test_phases_are_shaded_named_and_fitted():
    entropy = entropies()
    figure = entropy_curves(entropy, phases=phases_of(entropy), metrics=METRICS)
    strip = axes_of(figure, "phases")
    assert [text.get_text() for text in strip.texts] == ["1 growth", "2 compression", "3 plateau"]
    edges = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in strip.patches]
    np.testing.assert_allclose(edges[1], (4.5, 8.5))  # in the middle between the last epoch and the first of the next
    for name in ("entropy", "loss", "accuracy"):
        shaded = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes_of(figure, name).patches]
        np.testing.assert_allclose(shaded, edges)
    fits = [fit for fit in axes_of(figure, "entropy").lines if fit.get_linestyle() == "--"]
    assert [fit.get_xdata().tolist() for fit in fits] == [[0, 1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11]]
    assert "2 compression -0.5 per epoch [-0.51, -0.49]" in notes(figure)


def test_narrow_phases_have_a_number_or_nothing():
    entropy = entropies(100)
    figure = entropy_curves(entropy, phases=phases_of(entropy, (0, 60, 70, 72)), figsize=COLUMN)
    assert [text.get_text() for text in axes_of(figure, "phases").texts] == ["1 growth", "2", "", "4 growth"]


@pytest.mark.parametrize("epoch, only", [(1, 0), (5, 3)])
def test_a_single_epoch_with_values_has_dots_and_a_bar(epoch, only):
    entropy = entropies(epoch, 4)
    for values in (entropy.values, *entropy.replicates):
        values[np.arange(epoch) != only] = np.nan
    bar, _, dots = axes_of(entropy_curves(entropy), "entropy").collections
    mean, reach = entropy.values[only].mean(), 1.96 * np.sqrt(0.02)
    np.testing.assert_allclose(bar.get_segments()[0], [[only, mean - reach], [only, mean + reach]])
    np.testing.assert_array_equal(dots.get_offsets(), np.column_stack([np.full(4, only), entropy.values[only]]))


def test_metrics_share_the_epochs():
    broken = np.where(np.arange(12) == 5, np.nan, METRICS["loss"])
    figure = entropy_curves(entropies(), metrics=METRICS | {"broken": broken, "empty": np.full(12, np.nan)})
    panels = [axes_of(figure, name) for name in ("entropy", "loss", "accuracy", "broken", "empty")]
    assert len({panel.get_xlim() for panel in panels}) == 1
    assert len({round(panel.get_position().x0, 9) for panel in panels}) == 1
    assert [panel.get_title(loc="left") for panel in panels[1:]] == ["loss", "accuracy", "broken", "empty (no value)"]
    np.testing.assert_array_equal(panels[3].lines[0].get_ydata(), broken)
    assert panels[3].lines[0].get_marker() == "." and panels[1].lines[0].get_marker() == ""
    assert [panel.get_xlabel() for panel in panels] == ["", "", "", "", "Epoch"]


@pytest.mark.parametrize(
    "epoch, first_and_last, places",
    [
        (np.array([1, 10, 100]), ["1", "100"], [1, 10, 100]),
        (np.array([0.5, 1.5, 4]), ["0.5", "4"], [0.5, 1.5, 4]),
        (np.array(["a", "b", "c"]), ["a", "c"], [0, 1, 2]),
        (np.array([9, 3, 7]), ["9", "7"], [0, 1, 2]),
        (np.array([5]), ["5", "5"], [0]),
        (np.array(["2024-01-01", "NaT", "2024-01-03"], "M8[D]"), ["2024-01-01", "2024-01-03"], [0, 1, 2]),
        (np.array(["0002-01-01", "9000-01-01"], "M8[D]"), ["0002-01-01", "9000-01-01"], [0, 1]),
        (np.datetime64("2024-01-01T00:00", "ns") + np.arange(2), None, [0, 1]),
    ],
)
def test_epochs_lie_at_their_values_if_they_rise(epoch, first_and_last, places):
    axes = axes_of(entropy_curves(entropies(epoch)), "entropy")
    assert line(axes, "mean").get_xdata().tolist() == places
    assert first_and_last in (None, [tick_names(axes, "x")[index] for index in (0, -1)])


def test_dates_have_ticks_of_the_calendar():
    epoch = np.datetime64("2026-03-01T08", "h") + 7 * np.arange(12)
    axes = axes_of(entropy_curves(entropies(epoch)), "entropy")
    assert axes.get_xlabel() == "Epoch (2026-Mar)" and {"02", "03", "04"} <= set(tick_names(axes, "x"))
    days = line(axes, "mean").get_xdata()
    np.testing.assert_allclose(np.diff(days), 7 / 24)


@pytest.mark.parametrize("figsize", [None, COLUMN])
@pytest.mark.parametrize("epoch", [2, 12, 500, np.datetime64("2026-03-01", "D") + np.arange(12), HOSTILE])
def test_texts_do_not_touch(epoch, figsize):
    entropy = entropies(epoch, HOSTILE)
    n = entropy.values.shape[0]
    phases = phases_of(entropy, (0, n // 2)) if n > 3 else None
    metrics = {name: np.linspace(1e-9, 2e-9, n) for name in HOSTILE_SHOWN[:2]}
    assert_legible(entropy_curves(entropy, phases=phases, metrics=metrics, figsize=figsize))


def test_hostile_names_are_drawn_as_they_are():
    metrics = {name: np.arange(6.0) for name in HOSTILE}
    figure = entropy_curves(entropies(HOSTILE, HOSTILE), metrics=metrics)
    titles = [axes.get_title(loc="left") for axes in figure.axes[1:] if axes.get_label() in HOSTILE]
    assert titles == HOSTILE_SHOWN
    assert tick_names(figure.axes[len(HOSTILE)], "x") == HOSTILE_SHOWN
    figure.canvas.draw()


@pytest.mark.parametrize("scale", [1e300, 1e-200])
def test_extreme_values_can_be_drawn(scale):
    entropy = entropies(4, 3, replicates=0)
    entropy.values[:] *= scale
    assert_legible(entropy_curves(entropy, metrics={"loss": [1e300, -1e300, np.inf, np.nan]}))


def test_many_lines_are_thinned():
    figure = entropy_curves(entropies(4, 5000, over="timesteps"))
    assert len(axes_of(figure, "entropy").collections[1].get_segments()) == 200
    assert_legible(figure)


def test_bad_arguments_are_refused(tmp_path):
    entropy = entropies()
    with pytest.raises(InputTypeError, match="entropy is a ndarray; accepted: an Entropy"):
        entropy_curves(entropy.values)
    with pytest.raises(InputError, match="entropy has timestep, unit; accepted: an entropy with an epoch axis"):
        entropy_curves(made(type(entropy), dims=("timestep", "unit")))
    with pytest.raises(InputError, match="entropy has NaN everywhere"):
        entropy_curves(made(type(entropy), dims=("epoch", "unit"), values=np.full((2, 2), np.nan)))
    with pytest.raises(InputError, match="by='unit' is unknown; accepted: 'auto', 'timestep'"):
        entropy_curves(entropy, by="unit")
    with pytest.raises(InputError, match=r"metrics\['loss'\] has shape \(3,\); accepted: \(12,\)"):
        entropy_curves(entropy, metrics={"loss": [1, 2, 3]})
    with pytest.raises(InputTypeError, match="metrics is a list; accepted: a mapping"):
        entropy_curves(entropy, metrics=[1])
    with pytest.raises(InputTypeError, match="phases is a list; accepted: Phases"):
        entropy_curves(entropy, phases=[])
    with pytest.raises(InputError, match="phases has 20 epochs; accepted: 12"):
        entropy_curves(entropy, phases=phases_of(entropies(20)))
    with pytest.raises(InputError, match="figsize"):
        entropy_curves(entropy, figsize=(1, 1))
    with pytest.raises(InputError, match="path"):
        entropy_curves(entropy, path=tmp_path / "picture.gif")


def test_the_file_is_written_whole_and_the_same_each_time(tmp_path):
    for suffix, head in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        path = tmp_path / f"curves{suffix}"
        entropy_curves(entropies(), metrics=METRICS, path=path)
        first = path.read_bytes()
        entropy_curves(entropies(), metrics=METRICS, path=str(path))
        assert first.startswith(head) and path.read_bytes() == first
    assert len(list(tmp_path.iterdir())) == 3
