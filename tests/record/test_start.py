"""Which state a snapshot starts from, what is left as it is, and the warning where the model keeps a hidden state."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.record import Recorder, parts

B, T, F, H = 6, 5, 3, 4


def probe(n_samples=B, seed=0):
    return torch.randn(n_samples, T, F, generator=torch.Generator().manual_seed(seed))


class Cells(nn.Module):
    """A recurrent layer written out: ``first(model, x)`` gives its state, and ``keep(model, h)`` keeps it."""

    def __init__(self, first, keep, start=lambda model: None):
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.first, self.keep = nn.GRUCell(F, H), first, keep
        start(self)

    def forward(self, x):
        h, states = self.first(self, x), []
        for step in x.unbind(-2):
            h = self.cell(step, h)
            states.append(h)
        self.keep(self, h.detach())
        return torch.stack(states, -2)


def from_state(model, h, x=None):
    """The states that the cell of ``model`` passes through from ``h``, (timestep, unit, sample)."""
    states = []
    with torch.no_grad():
        for step in (probe() if x is None else x).unbind(1):
            h = model.cell(step, h)
            states.append(h)
    return torch.stack(states).permute(0, 2, 1)


def train(model, seed=1):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model(probe(seed=seed)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


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


# ---------------------------------------------------------------- where a state may lie


class Slots:
    __slots__ = ("h",)

    def __init__(self):
        self.h = None


class Late(Slots):
    """A slot that is empty at first, in a class beneath another one with slots."""

    __slots__ = ("later",)


@dataclasses.dataclass(slots=True)
class SlottedData:
    h: torch.Tensor | None = None


class Mapping(dict):
    pass


class OfTheClass(Cells):
    state = None


def in_slot(name):
    return (
        lambda m: getattr(m.box, name, None),
        lambda m, h: setattr(m.box, name, h),
    )


def in_item(m, h):
    m.box["h"] = h


def in_object_array(m, h):
    m.box[0] = h


PLACES = {  # the class of the model, the box, how its state is read, and how it is kept
    "slots": (Cells, Slots, *in_slot("h")),
    "an empty slot": (Cells, Late, *in_slot("later")),
    "slots of a dataclass": (Cells, SlottedData, *in_slot("h")),
    "an attribute of a dict": (Cells, Mapping, *in_slot("h")),
    "UserDict": (Cells, collections.UserDict, lambda m: m.box.get("h"), in_item),
    "ChainMap": (Cells, collections.ChainMap, lambda m: m.box.get("h"), in_item),
    "UserList": (Cells, collections.UserList, lambda m: (m.box or [None])[-1], lambda m, h: m.box.append(h)),
    "an array of objects": (Cells, lambda: np.array([None]), lambda m: m.box[0], in_object_array),
    "the class": (
        OfTheClass,
        lambda: None,
        lambda m: type(m).state,
        lambda m, h: setattr(type(m), "state", h),
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_places_of_a_state(place):
    make, box, read, keep = PLACES[place]

    def first(model, x):
        h = read(model)
        return x.new_zeros(len(x), H) if h is None else h

    model = make(first, keep, lambda m: setattr(m, "box", box()))
    with Recorder(model, "", probe=probe(2), batch_first=True) as rec:
        rec.snapshot(0)
        assert read(model) is None
        for epoch in (1, 2):
            train(model)
            before = read(model)
            rec.snapshot(epoch)
            assert read(model) is before
            torch.testing.assert_close(rec.trace().data[epoch], from_state(model, torch.zeros(2, H), probe(2)))
            model(probe(seed=8))
        rec.snapshot(3)
    assert torch.equal(*rec.trace().data[2:])
    OfTheClass.state = None


def test_a_state_that_cannot_be_seen_gives_a_warning():
    hidden = {}
    numbers = itertools.count()
    cases = {
        "a closure": (lambda m, x: hidden.get("h", torch.zeros(len(x), H)), lambda m, h: hidden.update(h=h)),
        "an iterator": (lambda m, x: torch.full((len(x), H), float(next(numbers))), lambda m, h: None),
    }
    for first, keep in cases.values():
        rec = Recorder(Cells(first, keep), "", probe=probe(), batch_first=True)
        with (
            rec,
            pytest.warns(
                RuntimeWarning, match="layer='' returns other values in a second forward .* closure"
            ) as caught,
        ):
            rec.snapshot(0)
        assert [warning.filename for warning in caught] == [__file__]
        with rec, warnings.catch_warnings():
            warnings.simplefilter("error")
            rec.snapshot(1)  # only the first snapshot compares


VECTORS = {
    "attribute": (lambda m: m.h, lambda m, h: setattr(m, "h", h), torch.zeros(H)),
    "in place": (lambda m: m.h.clone(), lambda m, h: m.h.copy_(h), torch.zeros(H)),
    "tuple": (lambda m: m.h[0], lambda m, h: setattr(m, "h", (h, h)), (torch.zeros(H), torch.zeros(H))),
    "dict": (lambda m: m.h["h"], lambda m, h: m.h.update(h=h), {"h": torch.zeros(H)}),
    "namespace": (lambda m: m.h.h, lambda m, h: setattr(m.h, "h", h), SimpleNamespace(h=torch.zeros(H))),
}


@pytest.mark.parametrize("how", VECTORS)
def test_a_carried_vector_gives_a_warning(how):
    read, keep, start = VECTORS[how]
    model = Cells(lambda m, x: read(m), keep, lambda m: setattr(m, "h", start))
    layer = nn.Sequential(model, nn.Unflatten(0, (1, T)))
    rec = Recorder(layer, "1", probe=probe()[0], batch_first=True)
    with rec, pytest.warns(RuntimeWarning, match=r"depends on vectors that each forward changes \(h\)"):
        rec.snapshot(0)
    assert torch.equal(read(model), torch.zeros(H))


def test_a_vector_that_is_only_written_and_random_numbers_give_no_warning():
    class Draws(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.lengths = nn.GRU(F, H, batch_first=True), torch.zeros(B)

        def forward(self, x):
            output = self.rnn(x + torch.randn_like(x) + np.random.rand())[0]
            self.lengths = output.detach().norm(dim=(1, 2))
            return output

    with Recorder(Draws(), "rnn", probe=probe()) as rec:
        rec.snapshot(0)
    assert rec.trace().n_epochs == 1


# ---------------------------------------------------------------- arrays, probes, folders


def test_arrays_that_cannot_be_written_to_are_not_copied(tmp_path, monkeypatch):
    np.save(tmp_path / "data.npy", np.ones((4, 3)))
    model = nn.Sequential(nn.GRU(F, H, batch_first=True))
    model.mapped, model.fixed = np.load(tmp_path / "data.npy", mmap_mode="r"), np.ones(3)
    model.fixed.flags.writeable = False
    model.weights = np.array([np.nan, -0.0, 1.0])[::2]
    copied = []
    monkeypatch.setattr(parts, "_ArrayPart", lambda array, make=parts._ArrayPart: copied.append(array) or make(array))
    with Recorder(model, "0", probe=probe()) as rec:
        rec.snapshot(0)
    assert copied and all(array is model.weights for array in copied)


ARRAYS = {
    "numbers": np.array([[np.nan, -0.0], [1.0, 2.0]]),
    "a view with steps": np.arange(12.0).reshape(4, 3)[::2, ::-1],
    "complex numbers": np.ones(3, complex),
    "texts": np.array(["a", "bc"]),
    "records": np.zeros(2, [("a", "i4"), ("b", "f8")]),
    "half precision": np.ones((2, 2), np.float16),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_a_forward_writes_to_are_restored(name):
    array = ARRAYS[name].copy()

    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.array = nn.GRU(F, H, batch_first=True), array

        def forward(self, x):
            self.array[...] = self.array[::-1].copy()
            self.array[:1] = self.array[-1:]
            return self.rnn(x)[0]

    with Recorder(Writes(), "rnn", probe=probe()) as rec:
        rec.snapshot(0)
    assert array.tobytes() == ARRAYS[name].copy().tobytes()


@pytest.mark.parametrize(
    ("bad", "name"), [(probe().numpy(), "ndarray"), ([probe()], "list"), (probe().tolist(), "list"), ("text", "str")]
)
def test_probes_that_are_no_tensor(bad, name):
    with (
        Recorder(nn.Sequential(nn.GRU(F, H)), "0", probe=bad) as rec,
        pytest.raises(InputTypeError, match=f"refuses the probe .*; probe is a {name}; accepted: a tensor, or a tuple"),
    ):
        rec.snapshot(0)


def test_a_model_may_take_lists_and_arrays():
    class Takes(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(F, H, batch_first=True)

        def forward(self, rows):
            return self.rnn(torch.as_tensor(np.stack(rows)))[0]

    model = Takes()
    for rows in (probe().numpy(), list(probe().numpy())):
        with Recorder(model, "rnn", probe=rows) as rec:
            rec.snapshot(0)
        assert torch.equal(rec.trace().data[0], model(probe().numpy()).detach().permute(1, 2, 0))


def test_hidden_files_are_no_content(tmp_path):
    (tmp_path / ".ipynb_checkpoints").mkdir()
    with Recorder(nn.Sequential(nn.GRU(F, H)), "0", probe=probe(), path=tmp_path) as rec:
        (tmp_path / ".DS_Store").write_text("")
        rec.snapshot(0)
        (tmp_path / ".nfs1").write_text("")
        rec.snapshot(1)
    assert rec.trace().n_epochs == 2
    with pytest.raises(InputError, match="is not empty"):
        Recorder(nn.Sequential(nn.GRU(F, H)), "0", probe=probe(), path=tmp_path)


# ---------------------------------------------------------------- many parts


def test_small_tensors_are_restored_one_by_one():
    """Tensors that are copied together: of some the bits, the place or a flag change, and of some nothing."""

    class Many(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.log = nn.GRU(F, H, batch_first=True), [torch.full((n,), float(n)) for n in range(6)]
            self.empty, self.deep = {"a": {}}, [(1, "x"), ((2, torch.zeros(2)),)]

        def forward(self, x):
            self.log[1].fill_(float("nan"))
            self.log[2].data = torch.zeros(9)
            self.log[3].requires_grad_()
            self.log[4].neg_()
            self.empty["a"]["b"] = 1
            self.deep[1][0][1].add_(1)
            return self.rnn(x)[0]

    model = Many()
    tensors, versions = list(model.log), [tensor._version for tensor in model.log]
    with Recorder(model, "rnn", probe=probe()) as rec:
        rec.snapshot(0)
    assert all(a is b for a, b in zip(model.log, tensors, strict=True))
    assert [tensor.tolist() for tensor in model.log] == [[float(n)] * n for n in range(6)]
    assert not any(tensor.requires_grad for tensor in model.log) and model.empty == {"a": {}}
    assert model.log[5]._version == versions[5] and model.deep[1][0][1].tolist() == [0, 0]
