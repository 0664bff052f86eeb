"""Where a model may keep its state, and states that the recorder cannot restore."""

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

from mmphate_gpu.record import Recorder

from .cells import B, Cells, F, H, T, from_state, probe, train


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
                RuntimeWarning, match="layer '' returns other values in a second forward .* closure"
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
