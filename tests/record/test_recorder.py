"""The recorder: it records what the layer returns, and does not change the training."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.record import Recorder

B, T, F, H = 6, 5, 3, 4


def probe(batch_first=True, seed=0):
    x = torch.randn(B, T, F, generator=torch.Generator().manual_seed(seed))
    return x if batch_first else x.transpose(0, 1).contiguous()


class Net(nn.Module):
    """A recurrent classifier with dropout and batch norm: it has a state that a careless probe would move."""

    def __init__(self, layer=nn.LSTM, **options):
        super().__init__()
        options = {"batch_first": True} | options
        self.rnn = layer(F, H, **options)
        width = (options.get("proj_size") or H) * (2 if options.get("bidirectional") else 1)
        self.norm = nn.BatchNorm1d(width)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(width, 2))

    def forward(self, x):
        hidden = self.rnn(x)[0]
        if not isinstance(hidden, torch.Tensor):
            hidden = pad_packed_sequence(hidden, batch_first=True)[0]
        return self.head(self.norm(hidden[:, -1]))


def seeded(make):
    torch.manual_seed(0)
    return make()


def train(model, record=None, epochs=3):
    """Train with dropout on random batches; ``record(epoch)`` after each epoch. Returns all state."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    torch.manual_seed(1)
    for epoch in range(epochs):
        for _ in range(2):
            optimizer.zero_grad()
            x = torch.randn(B, T, F)
            nn.functional.cross_entropy(model(x), torch.randint(2, (B,))).backward()
            optimizer.step()
        if record:
            record(epoch)
    return {**model.state_dict(), "rng": torch.get_rng_state()}


def no_hooks(model):
    return all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())


# ---------------------------------------------------------------- the values


@pytest.mark.parametrize("layer", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "dropout": 0.5}, {"bidirectional": True, "num_layers": 2}])
def test_values_are_those_of_a_forward_by_hand(layer, batch_first, options):
    model = nn.ModuleDict({"inner": nn.Module()})
    model["inner"].core = layer(F, H, batch_first=batch_first, **options)
    model.forward = lambda x: model["inner"].core(x)[0]
    x = probe(batch_first)
    with Recorder(model, "inner.core", probe=x, labels=torch.arange(B) % 2) as rec:
        rec.snapshot(0)
        with torch.no_grad():  # with gradients LSTM takes another path, to other last bits
            first = model.eval()(x)
            for weight in model.parameters():
                weight.mul_(1.5)
        rec.snapshot(10)
        with torch.no_grad():
            second = model(x)
    trace = rec.trace()
    units = H * (2 if options.get("bidirectional") else 1)
    assert trace.shape == (2, T, units, B) and trace.data.dtype == torch.float32
    assert trace.epoch.tolist() == [0, 10] and trace.mask is None and trace.label.tolist() == [0, 1, 0, 1, 0, 1]
    order = (1, 2, 0) if batch_first else (0, 2, 1)
    assert torch.equal(trace.data, torch.stack([first.permute(order), second.permute(order)]))


def test_a_layer_under_packed_sequences_is_masked():
    lengths = torch.tensor([2, 5, 3, 5, 1, 4])
    packed = pack_padded_sequence(probe(), lengths, batch_first=True, enforce_sorted=False)
    model = seeded(lambda: Net(nn.GRU))
    with Recorder(model, "rnn", probe=packed) as rec:
        rec.snapshot(0)
        rec.snapshot(1)
    trace = rec.trace()
    expected = np.arange(T)[:, None] < lengths.numpy()[None, :]
    assert torch.equal(trace.mask, torch.from_numpy(expected)[None, :, None].expand(2, T, H, B))
    for sample, length in enumerate(lengths):
        alone = model.rnn(probe()[sample, :length])[0].detach()
        torch.testing.assert_close(trace.data[0, :length, :, sample], alone)


def test_sequences_that_change_their_lengths_are_refused():
    model = nn.GRU(F, H)

    class Packs(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.last_length = model, 5

        def forward(self, x):
            return self.rnn(pack_padded_sequence(x, torch.tensor([5] * 5 + [self.last_length]), batch_first=True))

    packs = Packs()
    with Recorder(packs, "rnn", probe(), on_error="raise") as rec:
        rec.snapshot(0)
        packs.last_length = 4
        with pytest.raises(InputError, match="return another mask than in the snapshots before; accepted: .*lengths"):
            rec.snapshot(1)


@pytest.mark.parametrize("proj_size", [0, 2])
def test_double_precision_several_arguments_projections(proj_size):
    model = nn.LSTM(F, H, proj_size=proj_size).double()
    state = torch.zeros(1, B, proj_size or H).double(), torch.ones(1, B, H).double()
    x = probe(batch_first=False).double()
    with Recorder(model, "", probe=(x, state)) as rec:
        rec.snapshot(0)
    trace = rec.trace()
    assert trace.data.dtype == torch.float64
    assert torch.equal(trace.data[0], model(x, state)[0].detach().permute(0, 2, 1))


def test_half_precision_becomes_float32_and_unbatched_is_one_sample():
    model = nn.GRU(F, H).to(torch.bfloat16)
    with Recorder(model, "", probe=probe()[0].to(torch.bfloat16)) as rec:
        rec.snapshot(0)
    assert rec.trace().shape == (1, T, H, 1) and rec.trace().data.dtype == torch.float32


def test_another_module_with_batch_first():
    model = nn.Sequential(nn.Linear(F, H), nn.Tanh())
    silent = Recorder(model, "1", probe())
    with silent, pytest.raises(InputError, match=r"layer '1' is a Tanh and returns \(6, 5, 4\); accepted: batch_first"):
        silent.snapshot(0)
    with Recorder(model, "1", probe=probe(), batch_first=True) as rec:
        rec.snapshot(0)
    assert torch.equal(rec.trace().data[0], model(probe()).detach().permute(1, 2, 0))
    flat = Recorder(model, "1", probe=probe()[0], batch_first=True)
    with flat, pytest.raises(InputError, match=r"returns \(5, 4\), two axes, but batch_first=True"):
        flat.snapshot(0)


def test_snapshots_do_not_alias_the_model():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.buffer = torch.zeros(B, T, H)

        def forward(self, x):
            return self.buffer

    model = nn.Sequential(Constant())
    with Recorder(model, "0", probe=probe(), batch_first=True) as rec:
        rec.snapshot(0)
        model[0].buffer += 1
        rec.snapshot(1)
    assert rec.trace().data[0].eq(0).all() and rec.trace().data[1].eq(1).all()


# ---------------------------------------------------------------- the training does not notice


@pytest.mark.parametrize("layer", [nn.RNN, nn.LSTM, nn.GRU])
def test_training_goes_to_the_same_bits(layer, tmp_path):
    make = lambda: Net(layer, num_layers=2, dropout=0.5)  # noqa: E731
    plain = train(seeded(make))
    model = seeded(make)
    with Recorder(model, "rnn", probe=probe(), path=tmp_path / "rec") as rec:
        rec.snapshot(-1)
        recorded = train(model, rec.snapshot)
    assert plain.keys() == recorded.keys()
    assert all(torch.equal(plain[name], recorded[name]) for name in plain)
    assert rec.trace().n_epochs == 4


def test_random_state_is_restored_from_a_model_that_draws_in_evaluation_too():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(F, H, batch_first=True)

        def forward(self, x):
            return self.rnn(x + torch.randn_like(x))[0]

    model = Noisy()
    with Recorder(model, "rnn", probe=probe()) as rec:
        before = torch.get_rng_state()
        rec.snapshot(0)
        assert torch.equal(before, torch.get_rng_state())


def test_training_flags_are_restored_one_by_one():
    class Sleeper(nn.BatchNorm1d):
        def train(self, mode=True):
            raise AssertionError("flags are to be set without calling train()")

    model = Net()
    model.norm.eval()
    model.extra = Sleeper(2)
    seen = []
    model.head[0].register_forward_pre_hook(lambda module, args: seen.append((module.training, model.training)))
    before = {name: module.training for name, module in model.named_modules()}
    with Recorder(model, "rnn", probe=probe()) as rec:
        rec.snapshot(0)
    assert seen == 2 * [(False, False)]  # the first snapshot compares two forwards
    assert {name: module.training for name, module in model.named_modules()} == before
    assert not before["norm"] and before["head.0"]


def test_no_gradients_and_no_hooks_are_left():
    model = Net()
    statistics = model.norm.running_mean.clone()
    with Recorder(model, "rnn", probe=probe().requires_grad_()) as rec:
        assert torch.is_grad_enabled()
        rec.snapshot(0)
        assert no_hooks(model) and torch.is_grad_enabled()
    assert all(weight.grad is None for weight in model.parameters())
    assert torch.equal(statistics, model.norm.running_mean)


def test_an_error_in_the_model_leaves_it_as_it_was():
    model = Net()
    model.head.register_forward_pre_hook(lambda module, args: (_ for _ in ()).throw(RuntimeError("boom")))
    state = torch.get_rng_state()
    rec = Recorder(model, "rnn", probe=probe())
    with pytest.raises(RuntimeError, match="boom"), rec:
        rec.snapshot(0)
    assert all(module.training for module in model.modules())
    assert not model.rnn._forward_hooks and torch.equal(state, torch.get_rng_state())
    with pytest.raises(InputError, match="outside"):
        rec.snapshot(1)


def test_training_under_autocast_keeps_its_gradients():
    model = nn.GRU(F, H, batch_first=True)
    head = nn.Linear(H, 2)

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = model, head

        def forward(self, x):
            return self.head(self.rnn(x)[0])

    both, caching = Both(), []
    head.register_forward_pre_hook(lambda module, args: caching.append(torch.is_autocast_cache_enabled()))
    with torch.autocast("cpu", dtype=torch.bfloat16), Recorder(both, "rnn", probe=probe()) as rec:
        rec.snapshot(0)
        both(probe()).sum().backward()
    assert head.weight.grad is not None and caching == [False, False, True]


# ---------------------------------------------------------------- what is refused


def test_unknown_layers():
    model = nn.ModuleDict({"a": Net(), "b": nn.GRU(F, H)})
    with pytest.raises(InputError, match="layer 'rnn' is no module of the model; its recurrent layers: 'a.rnn', 'b'"):
        Recorder(model, "rnn", probe=probe())
    with pytest.raises(InputError, match="no RNN, LSTM or GRU among them.*'0'"):
        Recorder(nn.Sequential(nn.Linear(2, 2)), "rnn", probe=probe())
    with pytest.raises(InputTypeError, match="layers is a GRU|layers holds a GRU"):
        Recorder(model, model["b"], probe=probe())
    with pytest.raises(InputTypeError, match="model is a function"):
        Recorder(probe, "rnn", probe=probe())
    with pytest.raises(InputError, match="batch_first=False contradicts layer 'a.rnn'"):
        Recorder(model, "a.rnn", probe=probe(), batch_first=False)
    with pytest.raises(InputTypeError, match="labels has dtype"):
        Recorder(model, "b", probe=probe(), labels=list("abcdef"))


def test_a_layer_that_does_not_run_once():
    model = Net()
    model.idle = nn.GRU(F, H)
    with Recorder(model, "idle", probe=probe()) as rec, pytest.raises(InputError, match="'idle' did not run"):
        rec.snapshot(0)
    shared = nn.GRU(F, F)
    twice = nn.Module()
    twice.rnn = shared
    twice.forward = lambda x: shared(shared(x)[0])
    with Recorder(twice, "rnn", probe=probe()) as rec, pytest.raises(InputError, match="'rnn' ran 2 times"):
        rec.snapshot(0)
    assert no_hooks(model) and no_hooks(twice)
    with pytest.raises(InputError, match="holds no snapshot"):
        rec.trace()


def test_bad_epochs_and_places():
    rec = Recorder(Net(), "rnn", probe=probe())
    with pytest.raises(InputError, match="outside"):
        rec.snapshot(0)
    with rec:
        rec.snapshot(np.int64(3))
        rec.snapshot(3.5)
        for epoch in (3, 3.0):
            with pytest.raises(InputError, match="recorded already"):
                rec.snapshot(epoch)
        for epoch in ("4", None, True, float("nan"), float("inf")):
            with pytest.raises(InputTypeError, match="is no finite number"):
                rec.snapshot(epoch)
        for epoch in (2**53 + 1, -(10**30), 1e16):
            with pytest.raises(InputError, match="is out of range; accepted"):
                rec.snapshot(epoch)
        with pytest.raises(InputError, match="recorded already"):
            rec.snapshot(Fraction(7, 2))
        with pytest.raises(InputError, match="already open"):
            rec.__enter__()
    assert rec.trace().epoch.tolist() == [3, 3.5]
    with rec:  # entered again, it goes on
        rec.snapshot(4)
    assert rec.trace().n_epochs == 3


def test_shapes_labels_and_values_that_do_not_fit():
    class Growing(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.length = nn.GRU(F, H, batch_first=True), 1

        def forward(self, x):
            return self.rnn(x[:, : self.length])

    growing = Growing()
    with Recorder(growing, "rnn", probe(), on_error="raise") as rec:
        rec.snapshot(0)
        growing.length = 2
        with pytest.raises(InputError, match=r"\(2, 4, 6\), before float32 \(1, 4, 6\)"):
            rec.snapshot(1)
    with (
        Recorder(Net(), "rnn", probe=probe(), labels=[0, 1]) as rec,
        pytest.raises(InputError, match=r"labels has shape \(2,\)"),
    ):
        rec.snapshot(0)
    diverging = Net()
    with Recorder(diverging, "rnn", probe(), on_error="raise") as rec:
        rec.snapshot(0)
        nn.init.constant_(diverging.rnn.weight_ih_l0, float("nan"))
        with pytest.raises(
            InputError, match="layer 'rnn' returns nan at time step 0, unit 0, sample 0; the training has"
        ):
            rec.snapshot(1)
    assert rec.trace().n_epochs == 1


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_training_goes_to_the_same_bits():
    make = lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(F, F), Net(num_layers=2, dropout=0.5)).cuda()  # noqa: E731

    def run(snapshots):
        model = seeded(make)
        torch.cuda.manual_seed(3)
        with Recorder(model, "2.rnn", probe=probe().cuda()) as rec:
            for epoch in range(3):
                model(torch.ones(B, T, F, device="cuda")).sum().backward()
                if snapshots:
                    rec.snapshot(epoch)
        return [weight.grad for weight in model.parameters()], torch.cuda.get_rng_state()

    (plain, state), (recorded, state_too) = run(False), run(True)
    assert torch.equal(state, state_too) and all(map(torch.equal, plain, recorded))
