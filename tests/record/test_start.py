"""The state that snapshots start from, and attributes that a module only writes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmphate_gpu.record import Recorder

from .cells import B, Cells, F, H, from_state, probe, train


def made_on_demand(model, x):
    if not hasattr(model, "h"):
        model.h = torch.zeros(len(x), H)
    return model.h


RESETS = {  # how a model reads its state, and what it does when it is made
    "no attribute": (lambda m, x: m.h * 1.0, lambda m: None),
    "made on demand": (made_on_demand, lambda m: None),
    "None": (lambda m, x: torch.zeros(len(x), H) if m.h is None else m.h, lambda m: setattr(m, "h", None)),
    "None, of no use": (lambda m, x: m.h * 1.0, lambda m: setattr(m, "h", None)),
    "another value": (lambda m, x: m.h, lambda m: setattr(m, "h", torch.zeros(B, H))),
}


@pytest.mark.parametrize("how", RESETS)
@pytest.mark.parametrize("value", [0.7, -0.2])
def test_a_state_that_the_user_sets_before_the_first_snapshot(how, value):
    first, start = RESETS[how]
    model = Cells(first, lambda m, h: setattr(m, "h", h), start)
    with Recorder(model, "", probe=probe(), batch_first=True) as rec:
        model.h = torch.full((B, H), value)
        rec.snapshot(0)
        assert torch.equal(model.h, torch.full((B, H), value))
        expected = [from_state(model, torch.full((B, H), value))]
        rec.snapshot(1)
        for epoch in (2, 3):
            train(model)
            rec.snapshot(epoch)
            expected.append(from_state(model, torch.full((B, H), value)))
    assert torch.equal(rec.trace().data, torch.stack([expected[0], *expected]))


@pytest.mark.parametrize("how", ["made on demand", "None"])
def test_a_state_that_a_training_left_before_the_first_snapshot(how):
    first, start = RESETS[how]
    model = Cells(first, lambda m, h: setattr(m, "h", h), start)
    with Recorder(model, "", probe=probe(2), batch_first=True) as rec:
        expected = []
        for epoch in range(3):
            train(model)
            rec.snapshot(epoch)
            expected.append(from_state(model, torch.zeros(2, H), probe(2)))
            assert model.h.shape == (B, H)
    assert torch.equal(rec.trace().data, torch.stack(expected))


@pytest.mark.parametrize("how", ["no attribute", "None, of no use"])
def test_a_model_that_cannot_run_without_its_state_starts_from_that_of_the_first_snapshot(how):
    first, start = RESETS[how]
    model = Cells(first, lambda m, h: setattr(m, "h", h), start)
    with Recorder(model, "", probe=probe(), batch_first=True) as rec:
        with pytest.raises((AttributeError, TypeError)):
            rec.snapshot(0)
        model.h = torch.ones(B, H)
        train(model)
        left = model.h.clone()
        rec.snapshot(0)
        train(model)
        rec.snapshot(1)
    assert torch.equal(rec.trace().data[1], from_state(model, left))


# ---------------------------------------------------------------- what is only written


class Watched(nn.Module):
    """An input scaled by a count and a mean of every forward; ``cache`` keeps something of the output."""

    def __init__(self, cache):
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.cache, self.steps, self.kept = nn.GRU(F, H, batch_first=True), cache, 0, None
        self.register_buffer("mean", torch.zeros(F))

    def forward(self, x):
        self.steps += 1
        self.mean += 0.1 * (x.mean((0, 1)) - self.mean)
        output = self.rnn((x - self.mean) * (1 + 0.1 * self.steps))[0]
        self.cache(self, output.detach())
        return output


CACHES = {
    "output": lambda model, output: setattr(model, "kept", output),
    "attention": lambda model, output: setattr(model, "kept", output @ output.transpose(1, 2)),
    "list": lambda model, output: setattr(model, "kept", [*(model.kept or ()), output]),
    "buffer": lambda model, output: model.register_buffer("seen", output),
    "array": lambda model, output: setattr(model, "kept", output.numpy().copy()),
}


def now(model, x=None):
    """What a forward of ``model`` would return, by the values that it has."""
    with torch.no_grad():
        x = probe() if x is None else x
        mean = model.mean + 0.1 * (x.mean((0, 1)) - model.mean)
        return model.rnn((x - mean) * (1 + 0.1 * (model.steps + 1)))[0].permute(1, 2, 0)


@pytest.mark.parametrize("cache", CACHES)
def test_what_a_module_only_keeps_does_not_hold_its_counts_and_statistics(cache):
    model, expected = Watched(CACHES[cache]), []
    with Recorder(model, "rnn", probe=probe()) as rec:
        for epoch in range(3):
            for seed in range(4):
                model(probe(seed=seed) + 2)
            expected.append(now(model))
            rec.snapshot(epoch)
    assert torch.equal(rec.trace().data, torch.stack(expected))


@pytest.mark.parametrize("n_samples", [B, 2])
def test_a_carried_state_beside_a_module_that_only_keeps(n_samples):
    """The state of the one starts anew, the statistics of the other are those of now."""

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.watched = Watched(CACHES["output"])
            self.cells = Cells(lambda m, x: x.new_zeros(len(x), H) if m.h is None else m.h, self.keep)
            self.cells.h, self.cells.cell = None, nn.GRUCell(H, H)

        @staticmethod
        def keep(model, h):
            model.h = h

        def forward(self, x):
            return self.cells(self.watched(x))

    model, x, expected = Both(), probe(n_samples), []
    with Recorder(model, "cells", probe=x, batch_first=True) as rec:
        for epoch in range(3):
            train(model)
            expected.append(from_state(model.cells, torch.zeros(n_samples, H), now(model.watched, x).permute(2, 0, 1)))
            rec.snapshot(epoch)
    # Another order of axes may change the last bits of a product.
    torch.testing.assert_close(rec.trace().data, torch.stack(expected))


def test_a_table_that_the_training_has_changed_beside_a_state_of_another_batch_size():
    first, start = RESETS["None"]
    model = Cells(lambda m, x: first(m, x) + m.table[0], lambda m, h: setattr(m, "h", h), start)
    model.table = torch.zeros(2, H)
    with Recorder(model, "", probe=probe(2), batch_first=True) as rec:
        train(model)
        model.table = torch.ones(2, H)
        rec.snapshot(0)
    torch.testing.assert_close(rec.trace().data[0], from_state(model, torch.ones(2, H), probe(2)))
