"""When a snapshot is taken, and what it keeps: schedules, time steps, dtypes and metrics."""

from __future__ import annotations

import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from mmphate_gpu import InputError, Recorder, every

from .cells import B, F, H, T, probe


def gru():
    torch.manual_seed(0)
    return nn.GRU(F, H, batch_first=True)


def recorded(at=(0,), **options):
    with Recorder(gru(), "", probe(), **options) as recorder:
        taken = [recorder.snapshot(epoch) for epoch in at]
    return recorder.trace(), taken


# ---------------------------------------------------------------- epochs

SCHEDULES = {
    "multiples": (every(5), range(12), [0, 5, 10]),
    "all at first, then some": (every(5, after=3), range(15), [0, 1, 2, 3, 8, 13]),
    "before the training, too": (every(5, after=1), [-1, 0, 1, 2, 6], [-1, 0, 1, 6]),
    "after a fraction": (every(2, after=0.5), [0, 0.5, 1, 2.5, 4.5], [0, 0.5, 2.5, 4.5]),
    "fractions with their roundings": (every(0.1), [0.05, 0.1, 3 * 0.1, 0.35, 0.1 * 7], [0.1, 3 * 0.1, 0.1 * 7]),
    "steps of training": (every(1000), [0, 1, 999, 1000, 10**9, 10**9 + 1], [0, 1000, 10**9]),
    "a range": (range(0, 10, 4), range(10), [0, 4, 8]),
    "a list": ([1, 2.5], [0, 1, 2, 2.5], [1, 2.5]),
    "a set": ({3, 1}, range(5), [1, 3]),
    "an array": (np.linspace(0, 1, 11), [0.1, 3 * 0.1, 0.35], [0.1, 3 * 0.1]),
    "a tensor": (torch.tensor([2, 4]), range(5), [2, 4]),
    "a function": (lambda epoch: epoch % 2, range(5), [1, 3]),
    "None": (None, [4, 2], [4, 2]),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_chooses_the_epochs(name):
    schedule, epochs, chosen = SCHEDULES[name]
    trace, taken = recorded(epochs, epochs=schedule)
    assert trace.epoch.tolist() == pytest.approx(chosen)
    assert [epoch for epoch, was in zip(epochs, taken, strict=True) if was] == chosen


def test_a_snapshot_that_is_left_out_does_not_run_the_model():
    model, calls = gru(), []
    model.register_forward_pre_hook(lambda *args: calls.append(1))
    with Recorder(model, "", probe(), epochs=every(10)) as recorder:
        assert not any(recorder.snapshot(step, loss="of no number") for step in range(1, 10))
        assert not calls and recorder.epochs == []
        assert recorder.snapshot(10) and calls
        assert not recorder.snapshot(11) and recorder.epochs == [10]


@pytest.mark.parametrize(
    "epochs", [5, "5", every, [], [[1, 2]], ["a"], [None], object()], ids=lambda epochs: type(epochs).__name__
)
def test_what_is_no_schedule_is_refused(epochs):
    if epochs is every:
        with pytest.raises(InputError, match="step=0 is out of range"):
            every(0)
        with pytest.raises(InputError, match="after='x' must be a number"):
            every(1, after="x")
        return
    with pytest.raises(InputError, match="^epochs"):
        Recorder(gru(), "", probe(), epochs=epochs)


# ---------------------------------------------------------------- time steps


@pytest.mark.parametrize(
    ("timesteps", "kept"),
    [
        (slice(None, None, 2), [0, 2, 4]),
        (slice(-2, None), [3, 4]),
        ([0, 3], [0, 3]),
        (range(1, 5, 3), [1, 4]),
        ([-1], [4]),
        (torch.tensor([1, 2]), [1, 2]),
        (np.array([True, False, False, True, False]), [0, 3]),
    ],
    ids=str,
)
def test_time_steps_that_are_kept_have_their_numbers(timesteps, kept):
    trace, _ = recorded(timesteps=timesteps)
    whole, _ = recorded()
    assert trace.timestep.tolist() == kept and torch.equal(trace.data, whole.data[:, kept])


@pytest.mark.parametrize(
    ("timesteps", "message"),
    [
        (6, "selects no time steps; accepted: a slice such as"),
        ("all", "selects no time steps"),
        ([0.5], "selects no time steps"),
        ([], "selects no time steps"),
        ([0, 5], "does not fit the 5 time steps of the layers .*out of bounds.*accepted"),
        ([2, 1], r"does not fit .*they select \[2, 1\]"),
        ([1, 1], "they select"),
        (slice(9, None), r"they select \[\]"),
        (np.ones(4, bool), "does not fit the 5 time steps"),
        (slice(None, None, 0), "does not fit the 5 time steps of the layers .*step cannot be zero"),
    ],
    ids=str,
)
def test_time_steps_that_do_not_fit_are_refused(timesteps, message):
    with pytest.raises(InputError, match=message):
        recorded(timesteps=timesteps)


# ---------------------------------------------------------------- dtypes


@pytest.mark.parametrize("dtype", ["float16", torch.float16, np.float16, np.dtype("float16")], ids=str)
def test_half_precision_is_the_rounding_of_the_values(dtype):
    trace, _ = recorded(dtype=dtype)
    whole, _ = recorded()
    assert trace.recorded == torch.float16 and torch.equal(trace.data, whole.data.half().float())


def test_a_wider_dtype_keeps_the_values():
    trace, _ = recorded(dtype="float64")
    whole, _ = recorded()
    assert trace.data.dtype == torch.float64 and torch.equal(trace.data, whole.data.double())


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16, int, "int8", 3], ids=str)
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(InputError, match="dtype=.* is unknown; accepted: 'float16', 'float32', 'float64', or None"):
        recorded(dtype=dtype)


@pytest.mark.parametrize(("value", "dtype"), [(70000.0, "float16"), (1e39, "float32")])
def test_a_value_beyond_the_dtype_is_named(value, dtype):
    model = nn.Sequential(nn.Flatten(0, 1), nn.Threshold(value / 2, value)).double()
    message = f"layer '1' returns {value:g} at time step 0, unit 0, sample 0; accepted: a dtype with a wider range"
    with (
        Recorder(model, "1", probe().double(), dtype=dtype) as recorder,
        pytest.raises(InputError, match=re.escape(message)),
    ):
        recorder.snapshot(0)


# ---------------------------------------------------------------- metrics


def test_metrics_are_numbers_of_any_library_and_nan_where_there_is_none():
    with Recorder(gru(), "", probe()) as recorder:
        recorder.snapshot(0, loss=torch.tensor(0.5, requires_grad=True), accuracy=np.float32(0.25))
        recorder.snapshot(1, loss=2)
        recorder.snapshot(2, loss=float("nan"), accuracy=Fraction(1, 2), rate=np.array(1))
    metrics = recorder.trace().metrics
    assert metrics.keys() == {"loss", "accuracy", "rate"}
    np.testing.assert_array_equal(metrics["loss"], [0.5, 2, np.nan])
    np.testing.assert_array_equal(metrics["accuracy"], [0.25, np.nan, 0.5])
    np.testing.assert_array_equal(metrics["rate"], [np.nan, np.nan, 1])


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"loss": "0.5"}, "the metric 'loss' is a str; accepted: a real number"),
        ({"loss": torch.ones(2)}, r"the metric 'loss' is a Tensor of shape \(2,\)"),
        ({"loss": 1j}, "is a complex"),
        ({"loss": True}, "is a bool"),
        ({"loss": torch.tensor(True)}, "is a bool"),
        ({"loss": None}, "is a NoneType"),
        ({"timestep": 1}, "the metric 'timestep' cannot have this name; accepted: identifiers other than"),
        ({"unit_layer": 1}, "cannot have this name"),
        ({"val/loss": 1}, "the metric 'val/loss' cannot have this name"),
    ],
    ids=str,
)
def test_metrics_that_are_no_numbers_always_raise(metrics, message):
    with Recorder(gru(), "", probe()) as recorder:
        recorder.snapshot(0)
        with pytest.raises(InputError, match=message):
            recorder.snapshot(1, **metrics)
        recorder.snapshot(1)
    assert recorder.epochs == [0, 1]


# ---------------------------------------------------------------- several layers


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.decoder = nn.GRU(F, H, batch_first=True), nn.LSTM(H, 2, batch_first=True)
        self.head = nn.Linear(2, 3)

    def forward(self, x):
        return self.head(self.decoder(self.encoder(x)[0])[0][:, -1])


def test_the_units_of_several_layers_lie_side_by_side():
    model = Pair()
    with Recorder(model, ["decoder", "encoder"], probe()) as recorder:
        recorder.snapshot(0)
    with torch.no_grad():
        hidden = model.encoder(probe())[0]
        expected = torch.cat([model.decoder(hidden)[0], hidden], -1).permute(1, 2, 0)
    trace = recorder.trace()
    assert torch.equal(trace.data[0], expected)
    assert trace.unit_layer.tolist() == ["decoder"] * 2 + ["encoder"] * H and trace.shape == (1, T, H + 2, B)


def test_layers_of_other_time_steps_are_refused():
    with (
        Recorder(Pair(), ["encoder", "head"], probe()) as recorder,
        pytest.raises(InputError, match="layer 'head' returns 1 time steps of 6 samples, 'encoder' returns 5 of 6"),
    ):
        recorder.snapshot(0)


def test_the_former_keyword_says_its_new_name():
    with pytest.raises(InputError, match="layer='rnn' is the number .* accepted: layers='rnn' for a name"):
        Recorder(gru(), layer="rnn", probe=probe())
    with pytest.raises(InputError, match=r"layers is missing; accepted: Recorder\(model, layers, probe\)"):
        Recorder(gru(), probe=probe())
    with pytest.raises(InputError, match="probe is missing"):
        Recorder(gru(), "")
