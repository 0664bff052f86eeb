"""The probe in every form that a user has it in, and in batches."""

from __future__ import annotations

import collections
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mmphate_gpu import InputError, Recorder

from .cells import B, F, H, T, probe

X, Y = probe(), torch.arange(B) % 2


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.rnn = nn.GRU(F, H, batch_first=True)

    def forward(self, x, scale=1.0):
        return self.rnn(x * scale)[0]


def recorded(probe, model=None, **options):
    with Recorder(model or Net(), "rnn", probe, **options) as recorder:
        recorder.snapshot(0)
        recorder.snapshot(1)
    trace = recorder.trace()
    assert torch.equal(trace.data[0], trace.data[1])
    return trace.data[0]


def by_hand(x=X):
    with torch.no_grad():
        return Net().rnn(x)[0].permute(1, 2, 0)


class Words(collections.UserDict):
    """Keywords of a model as the tokenizers of other libraries return them."""


FORMS = {
    "a tensor": lambda: X,
    "a tuple of arguments": lambda: (X, 1.0),
    "a dict of keywords": lambda: {"scale": torch.ones(()), "x": X},
    "a mapping": lambda: Words(x=X),
    "an array": lambda: X.numpy(),
    "an array in double precision": lambda: X.double().numpy(),
    "arrays in a tuple": lambda: (X.numpy(), np.ones(())),
    "arrays in a dict": lambda: {"x": X.numpy()},
    "a list of batches": lambda: [X[:4], X[4:]],
    "a generator of batches": lambda: (part for part in X.split(1)),
    "batches of arguments": lambda: [(X[:4],), (X[4:], 1.0)],
    "batches of keywords": lambda: [{"x": X[:4]}, {"x": X[4:]}],
    "batches of arrays": lambda: [X[:4].numpy(), X[4:].numpy()],
    "a loader": lambda: DataLoader(X, batch_size=4),
    "a loader of inputs alone": lambda: DataLoader(TensorDataset(X), batch_size=4),
    "a loader without its targets": lambda: [x for x, _ in DataLoader(TensorDataset(X, Y), batch_size=4)],
    "a loader of dicts": lambda: DataLoader([{"x": x} for x in X], batch_size=4),
    "a loader with workers": lambda: DataLoader(X, batch_size=3, num_workers=1),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_probe_gives_the_same_states(form):
    # A batch of another size may sum the products of a step in another order.
    torch.testing.assert_close(recorded(FORMS[form]()), by_hand(), rtol=0, atol=1e-6)


def test_the_batches_of_a_loader_run_one_by_one():
    sizes, model = [], Net()
    model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    with Recorder(model, "rnn", DataLoader(X, batch_size=4)) as recorder:
        recorder.snapshot(0)
        recorder.snapshot(1)
    assert sizes == [4, 2] * 3  # the first snapshot compares two forwards


def test_a_loader_is_read_once_and_draws_from_no_generator():
    def states():
        mine = loader.generator.get_state()
        return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate(), mine.tolist()

    class Noise(torch.utils.data.Dataset):
        def __len__(self):
            return B

        def __getitem__(self, index):
            reads.append(index)
            return X[index] + torch.rand(1) + float(np.random.rand() + random.random())

    reads = []
    loader = DataLoader(Noise(), batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(3))
    before = states()
    recorder = Recorder(Net(), "rnn", loader)
    assert states() == before and sorted(reads) == list(range(B))
    with recorder:
        recorder.snapshot(0)
        recorder.snapshot(1)
    assert len(reads) == B and torch.equal(*recorder.trace().data)


def test_a_forward_that_writes_into_its_input_gets_a_fresh_probe():
    class Writes(Net):
        def forward(self, x, scale=1.0):
            return super().forward(x.mul_(2))

    kept = X.clone()
    for form in (X, {"x": X}, [X[:4], X[4:]]):
        torch.testing.assert_close(recorded(form, Writes()), by_hand(2 * kept), rtol=0, atol=1e-6)
    assert torch.equal(X, kept)


def test_every_batch_starts_from_the_same_state():
    class Carries(Net):
        h = None

        def forward(self, x, scale=1.0):
            output, h = self.rnn(x, self.h)
            self.h = h.detach()
            return output

    model = Carries()
    with Recorder(model, "rnn", [X[:3], X[3:]]) as recorder:
        model(X)
        recorder.snapshot(0)
        assert model.h.shape == (1, B, H)
    torch.testing.assert_close(recorder.trace().data[0], by_hand(), rtol=0, atol=1e-6)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (
            DataLoader(TensorDataset(X, Y, Y), batch_size=4),
            r"model 3 positional arguments .*probe=\[x for x, _ in loader\]",
        ),
        (
            (X, 1.0, Y),
            "model 3 positional arguments .* the arguments that its forward takes, such as probe=x",
        ),
        (
            {"y": X},
            r"model 0 positional arguments and the keywords \['y'\] .*, or probe=\(batch,\) for .* the dict itself",
        ),
        ([{"y": X}], r"or probe=\[\(batch,\) for batch in loader\] for a forward that takes the dict itself"),
        (["a", "b"], "refuses the probe .* probe holds str; accepted: a tensor"),
        (
            X.double(),
            r"probe is of the dtype torch.float64, the model's parameters are of the dtype torch.float32; accepted",
        ),
        ([], "probe holds no batch"),
        (TensorDataset(X), r"probe is a TensorDataset; .* give DataLoader\(probe, batch_size=...\)"),
        (3, "probe is a int; accepted"),
        ("text", "probe is a str; accepted"),
        (
            [X, X[:, :2]],
            r"return \[2, 5\] time steps of \[4\] units .* accepted: the same in all batches, or shorter ones",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_probe_that_does_not_fit_says_what_to_write(form, message):
    with pytest.raises(InputError, match=message), Recorder(Net(), "rnn", form) as recorder:
        recorder.snapshot(0)


@pytest.mark.parametrize("name", ["labels", "lengths", "mask"])
def test_what_follows_the_samples_needs_a_loader_in_order(name):
    values = {"labels": Y, "lengths": torch.full((B,), T), "mask": torch.ones(B, T)}
    with pytest.raises(InputError, match=f"probe is a loader that shuffles, so {name} cannot .* shuffle=False"):
        Recorder(Net(), "rnn", DataLoader(X, batch_size=4, shuffle=True), **{name: values[name]})
    sampler = torch.utils.data.distributed.DistributedSampler(X, num_replicas=1, rank=0)
    with pytest.raises(InputError, match="a loader that shuffles"):
        Recorder(Net(), "rnn", DataLoader(X, batch_size=4, sampler=sampler), **{name: values[name]})
    recorded(DataLoader(X, batch_size=4), **{name: values[name]})


@pytest.mark.parametrize(
    ("form", "remedy"),
    [([(X, Y)], r"probe=\[batch\[0\] for batch in loader\] if the"), ((X, Y), "probe=x if the others")],
)
def test_targets_that_become_an_optional_argument(form, remedy):
    class Optional(Net):
        def forward(self, x, h0=None):
            return self.rnn(x, h0)[0]

    words = f"hx should .* A batch of the probe has 2 items, and each is an argument .*; accepted: {remedy}"
    with Recorder(Optional(), "rnn", form) as recorder, pytest.raises(InputError, match=words) as caught:
        recorder.snapshot(0)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_an_error_within_the_model_is_its_own():
    model = Net()
    model.rnn.register_forward_pre_hook(lambda *args: (_ for _ in ()).throw(TypeError("mine")))
    with Recorder(model, "rnn", X) as recorder, pytest.raises(TypeError, match="^mine$"):
        recorder.snapshot(0)
