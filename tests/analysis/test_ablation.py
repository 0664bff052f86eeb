"""Ablations with a known answer, and the model that they leave as it was."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from mmphate_gpu.analysis import ablate_timesteps, ablate_units

from .recurrent_loops import MODULES, reader

T, P, M = 5, 8, 4
RNG = np.random.default_rng(0)
X = torch.from_numpy(RNG.normal(size=(T, P, 2)))
LABELS = torch.arange(P) % 2
BOTH = pytest.mark.parametrize("ablate", [ablate_timesteps, ablate_units])


class Memory(nn.Module):
    """Unit 2 takes up the class when it is shown, and keeps it; the other units show an input that nothing reads."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(2, M, nonlinearity="relu", dtype=torch.float64)
        self.head = nn.Linear(M, 2, dtype=torch.float64)
        with torch.no_grad():
            for weight in self.parameters():
                weight.zero_()
            self.rnn.weight_hh_l0[2, 2] = 1
            self.rnn.weight_ih_l0[2, 0] = 1
            self.rnn.weight_ih_l0[[0, 1], 1] = 1  # unit 3 is dead
            self.head.weight[:, 2] = torch.tensor([-4.0, 4.0])
            self.head.bias[0] = 4

    def forward(self, x):
        return self.head(self.rnn(x)[0][-1])


# The losses of `Memory`: each sample has logits that differ by 4 and are right; and half of the samples are wrong.
BASE = np.log1p(np.exp(-4))
ALWAYS_0 = (np.log1p(np.exp(-4)) + np.log1p(np.exp(4))) / 2


def shown_at(step):
    """Inputs (T, P, 2): the class is shown at one time step, beside noise."""
    x = torch.zeros(T, P, 2, dtype=torch.float64)
    x[step, :, 0] = LABELS.double()
    x[:, :, 1] = torch.from_numpy(RNG.normal(size=(T, P)))
    return x


# ---------------------------------------------------------------- planted answers


@pytest.mark.parametrize("replacement", ["zero", "mean", "shuffle"])
def test_the_unit_that_holds_the_class_is_the_important_one(replacement):
    result = ablate_units(Memory(), "rnn", shown_at(1), LABELS, replacement=replacement, random_state=0)
    # Zero: the logits are (4, 0) for all samples. Mean: they are equal. Shuffle: some samples have the other class.
    expected = {"zero": ALWAYS_0 - BASE, "mean": np.log(2) - BASE}.get(replacement, result.loss_change[0, 2])
    assert result.loss_change[0, 2] == pytest.approx(expected, abs=1e-12) and result.loss_change[0, 2] > 0.5
    assert result.loss_change[0].argmax() == 2 and result.accuracy_change[0, 2] <= -0.25
    assert result.loss_change[0, [0, 1, 3]].tolist() == [0, 0, 0] == result.accuracy_change[0, [0, 1, 3]].tolist()


@pytest.mark.parametrize("step", range(T))
def test_time_steps_matter_from_the_one_that_shows_the_class(step):
    result = ablate_timesteps(Memory(), "rnn", shown_at(step), LABELS)
    assert result.loss_change[0, :step].tolist() == [0] * step and result.base_accuracy[0] == 1
    np.testing.assert_allclose(result.loss_change[0, step:], ALWAYS_0 - BASE, rtol=1e-12)
    assert result.accuracy[0, step:].tolist() == [0.5] * (T - step)


def test_the_cell_state_alone_carries_an_lstm_on():
    """The last hidden state is remade from the cell state, unless that is replaced too, or no time step is left."""
    model = reader(nn.LSTM)
    changes = {state: ablate_timesteps(model, "rnn", X, LABELS, state=state).loss_change for state in ("h", "c")}
    assert np.abs(changes["h"][0, -1]) > 1e-3
    model.head.weight.data[:, -M:] = 0  # the model does not read the final cell state
    assert ablate_timesteps(model, "rnn", X, LABELS, state="c").loss_change[0, -1] == 0


# ---------------------------------------------------------------- nothing changes


@pytest.mark.parametrize("cls", MODULES)
@BOTH
def test_a_state_that_is_replaced_by_itself_changes_nothing(ablate, cls):
    """To the bit, in float32: the mean over equal samples, and a shuffle of a single sample."""
    model = reader(cls, num_layers=2, bidirectional=True).float()
    single = X[:, :1].float()
    for labels, x, replacement in (([1], single, "shuffle"), ([1] * 4, single.expand(-1, 4, -1), "mean")):
        for depth in (0, 1):
            result = ablate(model, "rnn", x, labels, replacement=replacement, depth=depth)
            assert not result.loss_change.any() and not result.accuracy_change.any()
            assert result.loss.tolist() == [[result.base_loss[0]] * result.loss.shape[1]]


@pytest.mark.parametrize("cls", MODULES)
def test_a_dead_unit_can_be_zero(cls):
    model = reader(cls).float()
    rows = torch.arange(1, len(model.rnn.weight_ih_l0), M)  # those of unit 1 in every gate
    with torch.no_grad():
        for weight in model.rnn.parameters():
            weight[rows] = 0
    result = ablate_units(model, "rnn", X.float(), LABELS)
    assert result.loss_change[0, 1] == 0 and result.loss_change[0, [0, 2, 3]].all()


# ---------------------------------------------------------------- forms of the arguments


@pytest.mark.parametrize("replacement", ["zero", "mean", "shuffle"])
@BOTH
def test_batches_are_one_probe(ablate, replacement):
    """Means and shuffles are over all samples; sums in another order differ in the last bits of float64."""
    model = reader(nn.GRU, num_layers=2, batch_first=True)
    options = {"replacement": replacement, "random_state": 1, "repeats": 2}
    x = X.transpose(0, 1)
    whole = ablate(model, "rnn", x, LABELS, **options)
    loader = DataLoader(x, batch_size=3)
    for probe in (loader, [x[:5], x[5:]], x.numpy(), (x,), {"x": x}):
        np.testing.assert_allclose(ablate(model, "rnn", probe, LABELS, **options).loss, whole.loss, rtol=1e-12)


@BOTH
def test_each_epoch_has_its_weights(ablate):
    models = [reader(nn.LSTM, seed=seed) for seed in range(3)]
    weights = {epoch: model.state_dict() for epoch, model in zip((0, 10, 2.5), models, strict=True)}
    result = ablate(models[0], "rnn", X, LABELS, states=weights)
    assert result.epoch.tolist() == [0, 10, 2.5]
    for row, model in enumerate(models):
        alone = ablate(model, "rnn", X, LABELS)
        assert alone.epoch.tolist() == [0]
        np.testing.assert_array_equal(result.loss[row], alone.loss[0])
        assert result.base_loss[row] == alone.base_loss[0]
    numbered = ablate(models[0], "rnn", X, LABELS, states=list(weights.values()))
    assert numbered.epoch.tolist() == [0, 1, 2] and np.array_equal(numbered.loss, result.loss)


def test_an_epoch_whose_weights_are_nan_is_not_the_largest_change():
    model = reader(nn.GRU)
    diverged = {name: torch.full_like(weight, torch.nan) for name, weight in model.state_dict().items()}
    result = ablate_units(model, "rnn", X, LABELS, states=[diverged, model.state_dict()])
    assert np.isnan(result.loss[0]).all() and np.isfinite(result.loss[1]).all()
    assert repr(result).endswith(
        f"{result.loss_change[1].max():+.3g} at unit {result.loss_change[1].argmax()} of epoch 1)"
    )


def test_some_time_steps():
    model = reader(nn.GRU)
    whole, some = (ablate_timesteps(model, "rnn", X, LABELS, timesteps=chosen) for chosen in (None, slice(1, None, 2)))
    assert some.timestep.tolist() == [1, 3] and some.loss.tolist() == whole.loss[:, 1::2].tolist()


def test_real_targets_and_functions_of_the_user():
    model, targets = reader(nn.RNN), torch.linspace(-1, 1, P, dtype=torch.float64)
    result = ablate_units(model, "rnn", X, targets, output=lambda logits: logits[:, :1])
    with torch.no_grad():
        predicted = model(X)[:, 0]
    assert result.base_loss[0] == pytest.approx(F.mse_loss(predicted, targets).item(), abs=1e-12)
    assert np.isnan(result.accuracy).all() and np.isnan(result.accuracy_change).all()
    whole = ablate_units(model, "rnn", X, targets.round(), target="real", output=lambda logits: logits[:, 0])
    assert whole.base_loss[0] == pytest.approx(F.mse_loss(predicted, targets.round()).item(), abs=1e-12)
    absolute = ablate_units(model, "rnn", X, targets, output=lambda y: y[:, 0], loss=lambda y, z: (y - z).abs())
    assert absolute.base_loss[0] == pytest.approx((predicted - targets).abs().mean().item(), abs=1e-12)
    classes = ablate_units(model, "rnn", X, LABELS, loss=nn.CrossEntropyLoss(label_smoothing=0.1))
    assert classes.settings["loss"] == "CrossEntropyLoss" and np.isfinite(classes.accuracy).all()


def test_a_single_logit_is_that_of_the_second_class():
    model = reader(nn.GRU)
    single = ablate_units(model, "rnn", X, LABELS, output=lambda y: y[:, :1])
    pair = ablate_units(model, "rnn", X, LABELS, output=lambda y: torch.stack([0 * y[:, 0], y[:, 0]], 1))
    with torch.no_grad():
        logit = model(X)[:, 0]
    expected = F.binary_cross_entropy_with_logits(logit, LABELS.double()).item()
    assert single.base_loss[0] == pytest.approx(expected, abs=1e-12)
    assert np.array_equal(single.loss, pair.loss) and np.array_equal(single.accuracy, pair.accuracy)


@BOTH
def test_many_variants_in_small_chunks(ablate, monkeypatch):
    """One variant at a time, with products of other shapes, so other last bits in float64."""
    model = reader(nn.LSTM, num_layers=2)
    whole = ablate(model, "rnn", X, LABELS, depth=0)
    monkeypatch.setattr("mmphate_gpu.analysis.replaced_runs._CHUNK_VALUES", 1)
    np.testing.assert_allclose(ablate(model, "rnn", X, LABELS, depth=0).loss, whole.loss, rtol=1e-12)


@BOTH
def test_equal_seeds_give_equal_bits(ablate):
    model = reader(nn.GRU)
    first, second, other = (
        ablate(model, "rnn", X, LABELS, replacement="shuffle", random_state=seed).loss for seed in (1, 1, 2)
    )
    assert np.array_equal(first, second) and not np.array_equal(first, other)


def test_a_network_that_forgets_at_random_is_read_without_dropout():
    """Dropout between and after the layers is off, as in evaluation."""
    model = nn.Sequential()
    model.rnn = nn.GRU(2, M, num_layers=2, dropout=0.5, dtype=torch.float64)
    model.train()
    losses = [ablate_units(model, "rnn", X, LABELS, output=lambda y: y[0][-1]).loss for _ in range(2)]
    assert np.array_equal(*losses) and model.training and model.rnn.training


# ---------------------------------------------------------------- results


@BOTH
def test_results_are_tables_and_one_line(ablate):
    calls = []
    result = ablate(reader(nn.RNN), "rnn", X, LABELS, callback=lambda *call: calls.append(call))
    axis, stage = ("timestep", "time steps") if ablate is ablate_timesteps else ("unit", "units")
    count = result.loss.shape[1]
    assert calls == [(f"ablation of {stage}", number, count) for number in range(1, count + 1)]
    frame = result.to_frame()
    assert list(frame.columns) == ["epoch", axis, "loss", "accuracy", "loss_change", "accuracy_change"]
    assert frame[axis].tolist() == list(range(count)) and frame.loss.tolist() == result.loss[0].tolist()
    assert np.array_equal(result.loss, result.base_loss + result.loss_change)
    assert repr(result).startswith(f"{type(result).__name__}(epochs: 1, {axis}s: {count}; replaced by: zero; largest")
    assert result.to_dict()["settings"]["replacement"] == "zero"


# ---------------------------------------------------------------- the model stays as it was


FORWARDS = []  # of `Noisy`; what the model itself counts is restored


class Noisy(nn.Module):
    """Draws random numbers, counts its forwards, and carries its last output on."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(2, M, dtype=torch.float64), nn.Linear(M, 2, dtype=torch.float64)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.last, self.fails = None, False

    def forward(self, x):
        FORWARDS.append(1)
        if self.fails and len(FORWARDS) > 2:
            raise RuntimeError("a failure of the model")
        self.count += 1
        noise = torch.rand(()) + random.random() + np.random.random()
        output = self.head(self.rnn(x)[0][-1]) + noise
        self.last = output if self.last is None else self.last + output
        return self.last


def state_of(model):
    weights = {name: (value.clone(), value._version) for name, value in model.state_dict(keep_vars=True).items()}
    gradients = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    hooks = [len(module._forward_hooks) for module in model.modules()]
    flags = [module.training for module in model.modules()]
    return weights, gradients, hooks, flags, model.last, torch.get_rng_state(), random.getstate(), np.random.get_state()


def assert_equal(now, before):
    assert type(now) is type(before)
    if isinstance(now, dict):
        assert now.keys() == before.keys()
        now, before = list(now.values()), list(before.values())
    if isinstance(now, (list, tuple)):
        assert len(now) == len(before)
        for pair in zip(now, before, strict=True):
            assert_equal(*pair)
    else:
        same = torch.equal if isinstance(now, torch.Tensor) else np.array_equal
        assert same(now, before)


@pytest.mark.parametrize("failure", [None, "model", "loss", "output", "states", "callback"])
@BOTH
def test_the_model_is_as_before(ablate, failure):
    model = Noisy()
    model(X).sum().backward()
    model.last = model.last.detach()
    model.rnn.eval()
    model.rnn.register_forward_hook(lambda *_: None)
    other = copy.deepcopy(model.state_dict())
    other["head.weight"] += 1
    states = {0: other, 1: {**other, "more": X}} if failure == "states" else {0: other, 1: other}

    def fail(*_):
        raise KeyError("a failure")

    options = {name: fail if name == failure else None for name in ("loss", "output", "callback")}
    before = state_of(model)
    FORWARDS.clear()
    if failure is None:
        result = ablate(model, "rnn", X, LABELS, states=states)
        assert np.array_equal(result.loss[0], result.loss[1])
    else:
        model.fails = failure == "model"
        with pytest.raises((KeyError, RuntimeError, ValueError), match="a failure|does not fit"):
            ablate(model, "rnn", X, LABELS, states=states, **options)
        model.fails = False
    assert_equal(state_of(model), before)
