"""Ablations are those of an explicit loop of torch's cells."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmphate_gpu.analysis import ablate_timesteps, ablate_units

from .recurrent_loops import MODULES, Reader, logits, reader, states_of

# Sums in another order: float64 losses of a few units, in a dozen products, differ by less than this.
ROUNDING = 1e-12
T, P, M = 5, 7, 4
X = torch.from_numpy(np.random.default_rng(0).normal(size=(T, P, 2)))
LABELS = torch.arange(P) % 3
STACKS = [{}, {"num_layers": 2}, {"bidirectional": True}, {"num_layers": 2, "bidirectional": True}]


def probe(model):
    return X.transpose(0, 1) if model.rnn.batch_first else X


def loss_of(values):
    return F.cross_entropy(values, LABELS).item()


def by(replacement, states, order):
    """What the states (T, P, M) are replaced by."""
    if replacement == "shuffle":
        return states[:, order]
    return torch.zeros_like(states) if replacement == "zero" else states.mean(1, keepdim=True).expand_as(states)


def order_of(seed):
    return np.random.default_rng(seed).permutation(P)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("stack", STACKS, ids=str)
@pytest.mark.parametrize("cls", MODULES)
def test_a_run_goes_on_from_a_replaced_time_step(cls, stack, batch_first):
    model = reader(cls, batch_first=batch_first, **stack)
    sides, replacement = 1 + model.rnn.bidirectional, ("zero", "mean", "shuffle")[(len(stack) + batch_first) % 3]
    for depth in range(model.rnn.num_layers):
        result = ablate_timesteps(
            model, "rnn", probe(model), LABELS, replacement=replacement, depth=depth, repeats=1, random_state=3
        )
        other = [[by(replacement, s, order_of(3)) for s in states_of(model, X, depth, side)] for side in range(sides)]
        for ablated in range(T):

            def replace(layer, side, step, states, here=(depth, ablated), other=other):
                return [state[step] for state in other[side]] if (layer, step) == here else states

            assert result.loss[0, ablated] == pytest.approx(loss_of(logits(model, X, replace)), abs=ROUNDING)
        assert result.base_loss[0] == pytest.approx(loss_of(logits(model, X)), abs=ROUNDING)
        assert np.abs(result.loss_change).min() > 1e-6  # each time step matters, so the comparison can fail


@pytest.mark.parametrize("stack", STACKS, ids=str)
@pytest.mark.parametrize("cls", MODULES)
def test_a_run_goes_on_with_a_replaced_unit(cls, stack):
    model, replacement = reader(cls, **stack), ("zero", "mean", "shuffle")[STACKS.index(stack) % 3]
    for depth in range(model.rnn.num_layers):
        options = {"replacement": replacement, "depth": depth, "repeats": 1, "random_state": 3}
        result = ablate_units(model, "rnn", X, LABELS, **options)
        for unit in range(result.loss.shape[1]):
            at = divmod(unit, M)
            path = by(replacement, states_of(model, X, depth, at[0])[0], order_of(3))[..., at[1]]  # (T, P)

            def replace(layer, side, step, states, here=(depth, *at), path=path):
                if (layer, side) != here[:2]:
                    return states
                h = states[0].clone()
                h[:, here[2]] = path[step]
                return [h, *states[1:]]

            assert result.loss[0, unit] == pytest.approx(loss_of(logits(model, X, replace)), abs=ROUNDING)
        assert np.abs(result.loss_change).max() > 1e-3


@pytest.mark.parametrize("state", ["h", "c", "both"])
def test_the_hidden_and_the_cell_state_are_replaced_apart(state):
    model = reader(nn.LSTM)
    result = ablate_timesteps(model, "rnn", X, LABELS, state=state)
    for ablated in range(T):

        def replace(layer, side, step, states, here=ablated):
            zeros = [
                torch.zeros_like(s) if state in ("both", name) else s for name, s in zip("hc", states, strict=True)
            ]
            return zeros if step == here else states

        assert result.loss[0, ablated] == pytest.approx(loss_of(logits(model, X, replace)), abs=ROUNDING)
    assert len({*result.loss[0].round(8)}) == T


@pytest.mark.parametrize("cls", MODULES)
def test_a_shuffle_is_the_mean_over_its_orders(cls):
    model, generator = reader(cls), np.random.default_rng(8)
    orders = [generator.permutation(P) for _ in range(3)]
    states = states_of(model, X, 0, 0)

    def loss(order, ablated):
        def replace(layer, side, step, now):
            return [state[step, order] for state in states] if step == ablated else now

        return loss_of(logits(model, X, replace))

    result = ablate_timesteps(model, "rnn", X, LABELS, replacement="shuffle", repeats=3, random_state=8)
    expected = [np.mean([loss(order, step) for order in orders]) for step in range(T)]
    np.testing.assert_allclose(result.loss[0], expected, rtol=0, atol=ROUNDING)


def test_a_unit_of_an_rnn_at_zero_is_a_column_of_its_weights_at_zero():
    model = reader(nn.RNN)
    result = ablate_units(model, "rnn", X, LABELS)
    for unit in range(M):
        without = reader(nn.RNN)
        with torch.no_grad():
            without.rnn.weight_hh_l0[:, unit] = 0
            without.head.weight[:, [unit, M + unit, 2 * M + unit]] = 0
            expected = loss_of(without(X))
        assert result.loss[0, unit] == pytest.approx(expected, abs=ROUNDING)


class Projected(nn.Module):
    """An LSTM whose hidden state is projected to fewer units, from an initial state that the model holds."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(2, 5, proj_size=3, dtype=torch.float64)
        generator = torch.Generator().manual_seed(1)
        self.h, self.c = (torch.randn(1, P, n, generator=generator, dtype=torch.float64) for n in (3, 5))

    def forward(self, x):
        return self.rnn(x, (self.h, self.c))[0][-1]


@pytest.mark.parametrize("what", ["unit", "timestep"])
def test_a_projected_layer_and_its_initial_state(what):
    torch.manual_seed(0)
    model = Projected()
    w_ih, w_hh, b_ih, b_hh, w_hr = (weight.detach() for weight in model.rnn.all_weights[0])

    def explicit(ablated):
        h, c = model.h[0], model.c[0]
        for step in range(T):
            i, f, g, o = (X[step] @ w_ih.T + b_ih + h @ w_hh.T + b_hh).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = (o.sigmoid() * c.tanh()) @ w_hr.T
            if what == "unit":
                h[:, ablated] = 0
            elif step == ablated:
                h, c = torch.zeros_like(h), torch.zeros_like(c)
        return loss_of(h)

    result = {"unit": ablate_units, "timestep": ablate_timesteps}[what](model, "rnn", X, LABELS)
    count = 3 if what == "unit" else T
    np.testing.assert_allclose(result.loss[0], [explicit(n) for n in range(count)], rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("cls", MODULES)
def test_a_single_sample_without_a_batch(cls, batch_first):
    class Unbatched(Reader):
        def forward(self, x):
            output, finals = self.rnn(x)
            finals = finals if isinstance(finals, tuple) else (finals,)
            return self.read(output[:, None], [final[:, None] for final in finals])

    torch.manual_seed(2)
    model = Unbatched(cls, num_layers=2, batch_first=batch_first)
    result = ablate_timesteps(model, "rnn", X[:, 0], [1], replacement="zero", depth=0)

    def loss(ablated):
        def replace(layer, side, step, states):
            return [torch.zeros_like(s) for s in states] if (layer, step) == (0, ablated) else states

        return F.cross_entropy(logits(model, X[:, :1], replace), torch.tensor([1])).item()

    np.testing.assert_allclose(result.loss[0], [loss(step) for step in range(T)], rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("cls", MODULES)
def test_float32_is_near_float64(cls):
    """Losses near 1 in float32, after 5 time steps: some of its roundings, each 6e-8."""
    model = reader(cls, num_layers=2)
    exact = ablate_units(model, "rnn", X, LABELS, depth=0)
    rounded = ablate_units(model.float(), "rnn", X.float(), LABELS, depth=0)
    np.testing.assert_allclose(rounded.loss, exact.loss, rtol=0, atol=1e-5)
