"""Snapshots do not change the state that a model carries from forward to forward, and do not depend on it."""

from __future__ import annotations

import collections
import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmphate_gpu.errors import InputError
from mmphate_gpu.record import Recorder

B, T, F, H = 6, 5, 3, 4


def probe(n_samples=B, seed=0):
    return torch.randn(n_samples, T, F, generator=torch.Generator().manual_seed(seed))


def by_hand(model, x=None):
    with torch.no_grad():
        return model.rnn(probe() if x is None else x)[0].permute(1, 2, 0)


class Carries(nn.Module):
    """A model that carries its hidden state from forward to forward, in the place that ``how`` names."""

    def __init__(self, how):
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.head = nn.LSTM(F, H, batch_first=True), nn.Linear(H, 1)
        self.read, self.keep, start = CARRIERS[how]
        start(self)

    def forward(self, x):
        output, state = self.rnn(x, self.read(self))
        self.keep(self, tuple(part.detach() for part in state))
        return self.head(output)


def two_buffers(model):
    for name in ("h", "c"):
        model.register_buffer(name, torch.zeros(1, B, H), persistent=name == "h")


def copy_into(model, state):
    model.h.copy_(state[0])
    model.c.copy_(state[1])


CARRIERS = {
    "attribute": (lambda m: m.state, lambda m, s: setattr(m, "state", s), lambda m: setattr(m, "state", None)),
    "no attribute at first": (lambda m: getattr(m, "s", None), lambda m, s: setattr(m, "s", s), lambda m: None),
    "dict": (lambda m: m.d.get(0), lambda m, s: m.d.update({0: s}), lambda m: setattr(m, "d", {})),
    "deque": (
        lambda m: m.past[-1] if m.past else None,
        lambda m, s: m.past.append(s),
        lambda m: setattr(m, "past", collections.deque(maxlen=2)),
    ),
    "object": (
        lambda m: m.cell.h,
        lambda m, s: setattr(m.cell, "h", s),
        lambda m: setattr(m, "cell", SimpleNamespace(h=None)),
    ),
    "another module": (
        lambda m: m.rnn.state,
        lambda m, s: setattr(m.rnn, "state", s),
        lambda m: setattr(m.rnn, "state", None),
    ),
    "a frozen parameter": (
        lambda m: (m.frozen[0].clone(), m.frozen[1].clone()),
        lambda m, s: m.frozen.data.copy_(torch.stack(s)),
        lambda m: setattr(m, "frozen", nn.Parameter(torch.zeros(2, 1, B, H), requires_grad=False)),
    ),
    "buffers": (lambda m: (m.h.clone(), m.c.clone()), copy_into, two_buffers),
}


def trained(model, rec=None, epochs=3):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for epoch in range(epochs):
        optimizer.zero_grad()
        model(probe(seed=epoch)).square().mean().backward()
        optimizer.step()
        if rec:
            rec.snapshot(epoch)
    return [weight.detach() for weight in model.parameters()]


@pytest.mark.parametrize("how", CARRIERS)
def test_training_with_a_carried_state_goes_to_the_same_bits(how):
    model = Carries(how)
    with Recorder(model, "rnn", probe=probe()) as rec:
        recorded_run = trained(model, rec)
        assert all(map(torch.equal, trained(Carries(how)), recorded_run))
        torch.testing.assert_close(rec.trace().data[-1], by_hand(model))  # from the state of the start: zeros
        model(probe(seed=9))  # a validation changes the state but not the model
        rec.snapshot(3)
        model(probe(seed=8))
        rec.snapshot(4)
    assert torch.equal(rec.trace().data[2], rec.trace().data[3]) and torch.equal(*rec.trace().data[3:])


@pytest.mark.parametrize("how", sorted(CARRIERS.keys() - {"buffers", "a frozen parameter"}))
def test_a_probe_of_another_batch_size(how):
    model = Carries(how)
    with Recorder(model, "rnn", probe=probe(2)) as rec:
        model(probe())
        rec.snapshot(-1)
        assert all(map(torch.equal, trained(Carries(how), epochs=0), model.parameters()))
        calls = []
        model.register_forward_pre_hook(lambda *args: calls.append(1))
        trained(model, rec)
        assert len(calls) == 2 * 3  # a state that is known to be carried costs no second forward
    torch.testing.assert_close(rec.trace().data[-1], by_hand(model, probe(2)))


def test_a_model_that_checks_the_batch_size_of_its_state():
    model = Carries("attribute")

    def check(module, args):
        assert model.state is None or model.state[0].shape[1] == args[0].shape[0], "reset the state first"

    model.register_forward_pre_hook(check)
    with Recorder(model, "rnn", probe=probe(2)) as rec:
        trained(model, rec)
    torch.testing.assert_close(rec.trace().data[-1], by_hand(model, probe(2)))


def test_a_state_that_the_user_holds_is_not_written_to():
    model = Carries("dict")
    taken = model.d
    with Recorder(model, "rnn", probe=probe()) as rec:
        model.d = {}
        taken["mine"] = torch.ones(1)
        trained(model, rec)
    assert taken == {"mine": 1}


def test_a_probe_that_fits_no_carried_state_is_refused():
    for how in ("attribute", "buffers"):
        model = Carries(how)
        model(probe())
        with Recorder(model, "rnn", probe=probe(2)) as rec:
            trained(model)
            before = copy.deepcopy(model)
            with pytest.raises(InputError, match=r"Expected hidden.*\(1, 6, 4\).*accepted: a probe of that batch size"):
                rec.snapshot(0)
            assert all(map(torch.equal, model.state_dict().values(), before.state_dict().values()))
            assert all(map(torch.equal, model.read(model), before.read(before)))


def test_a_buffer_goes_with_the_model_to_another_type():
    model = Carries("buffers")
    with Recorder(model, "rnn", probe=probe().double()) as rec:
        model.double()
        model(probe().double())
        with torch.no_grad():
            model.head.weight.mul_(2)  # a training, without which the state of the first snapshot is the start
        rec.snapshot(0)
    torch.testing.assert_close(rec.trace().data[0], by_hand(model, probe().double()))


def test_a_state_that_is_none_now_stays_so():
    model = Carries("attribute")
    model(probe(seed=1))
    with Recorder(model, "rnn", probe=probe()) as rec:
        for epoch in range(2):  # the first detects that the state is carried, and the second knows it
            model(probe(seed=2))
            rec.snapshot(epoch)
        model.state = None
        rec.snapshot(2)
    torch.testing.assert_close(rec.trace().data[2], by_hand(model))
    assert torch.equal(*rec.trace().data[:2]) and not torch.equal(*rec.trace().data[1:])


def test_what_the_training_changes_is_recorded_as_it_is_now():
    class Annealed(nn.Module):
        """The training sets its temperature, and every forward updates its statistics and its count."""

        def __init__(self):
            super().__init__()
            self.rnn, self.temperature, self.table, self.count = (
                nn.GRU(F, H, batch_first=True),
                1.0,
                torch.ones(2, F),
                0,
            )
            self.register_buffer("mean", torch.zeros(F))

        def forward(self, x):
            self.mean += 0.5 * (x.mean((0, 1)) - self.mean)
            self.count += 1
            return self.rnn((x - self.mean) * self.temperature * self.table[0] + self.count)[0]

    model = Annealed()
    with Recorder(model, "rnn", probe=probe()) as rec:
        rec.snapshot(0)
        model(probe(seed=1) + 1)
        model.temperature, model.table = 0.1, 2 * model.table
        rec.snapshot(1)
    expected = copy.deepcopy(model)(probe()).detach().permute(1, 2, 0)
    torch.testing.assert_close(rec.trace().data[1], expected)
