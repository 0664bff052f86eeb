"""A snapshot records what the layer returned to its model, on the probe as the user passed it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.record import Recorder

B, T, F, H = 6, 5, 3, 4
LENGTHS = torch.tensor([2, 5, 3, 5, 1, 4])


def probe(n_samples=B, seed=0):
    return torch.randn(n_samples, T, F, generator=torch.Generator().manual_seed(seed))


class Net(nn.Module):
    """A recurrent layer, and ``after(model, output)`` on what it returns."""

    def __init__(self, after, layer_class=nn.GRU):
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.after = layer_class(F, H, batch_first=True), after

    def forward(self, x):
        output = self.rnn(x)
        self.after(self, output)
        return output[0]


class Returns(nn.Module):
    """A layer that returns ``value``."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        return self.value


def recorded(model, layer="rnn", x=None, **options):
    """The values of one snapshot, (timestep, unit, sample)."""
    with Recorder(model, layer, probe=probe() if x is None else x, **options) as rec:
        rec.snapshot(0)
    return rec.trace().data[0]


def by_hand(model, x=None):
    with torch.no_grad():
        return model.rnn(probe() if x is None else x)[0].permute(1, 2, 0)


# ---------------------------------------------------------------- what the layer returned


def through_numpy(model, output):
    output[0].numpy()[...] = 7


AFTER = {
    "in place": lambda model, output: output[0].mul_(2),
    "a view": lambda model, output: output[0].transpose(0, 1)[-1].fill_(9),
    "another type": lambda model, output: output[0].data.zero_(),
    "numpy": through_numpy,
    "functional": lambda model, output: nn.functional.hardtanh_(output[0], -0.01, 0.01),
    "resized": lambda model, output: output[0].resize_(1),
    "inference": lambda model, output: torch.inference_mode()(output[0].add_)(1),
}


@pytest.mark.parametrize("layer_class", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("after", AFTER)
def test_what_follows_the_layer_does_not_reach_the_record(after, layer_class):
    model = Net(AFTER[after], layer_class)
    assert torch.equal(recorded(model), by_hand(model))


def test_a_packed_sequence_is_copied_at_once():
    def change(model, output):
        output[0].data.zero_()
        output[0].batch_sizes.fill_(1)

    x = pack_padded_sequence(probe(), LENGTHS, batch_first=True, enforce_sorted=False)
    untouched = recorded(Net(lambda model, output: None), x=x)
    assert untouched.abs().sum() > 0 and torch.equal(recorded(Net(change), x=x), untouched)


def test_a_memory_that_the_layer_uses_again():
    class Reused(nn.Module):
        def __init__(self):
            super().__init__()
            self.memory = torch.zeros(B, T, F)

        def forward(self, x):
            return [self.memory.copy_(x.tanh())]

    layer = Reused()
    model = nn.Sequential(layer, Returns(0))
    model[1].forward = lambda outputs: layer.memory.zero_()
    assert torch.equal(recorded(model, "0", batch_first=True), probe().tanh().permute(1, 2, 0))


def test_a_forward_in_inference_mode_and_a_snapshot_in_it():
    model = Net(lambda model, output: output[0].zero_())
    expected = by_hand(model)
    forward = model.forward
    model.forward = lambda x: torch.inference_mode()(forward)(x)
    assert torch.equal(recorded(model), expected)
    with torch.inference_mode():
        assert torch.equal(recorded(model), expected)


WIDE = torch.arange(B * T * H).reshape(B, T, H)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (WIDE / 3, torch.float32),
        ((WIDE / 3).double(), torch.float64),
        ((WIDE / 3).half(), torch.float32),
        ((WIDE / 3).bfloat16(), torch.float32),
        ((WIDE / 3).to(torch.float8_e5m2), torch.float32),
        (WIDE % 2 == 0, torch.float32),
        (WIDE.to(torch.uint8), torch.float32),
        (WIDE.short() - 32768, torch.float32),
        (WIDE + 2**24, torch.float64),
        (WIDE.int() - 2**31, torch.float64),
        (WIDE - 2**53, torch.float64),
        (WIDE.to(torch.uint64), torch.float64),
        (torch.complex(WIDE.float(), -WIDE.float()).conj().imag, torch.float32),
    ],
)
def test_no_value_is_rounded(value, dtype):
    values = recorded(nn.Sequential(Returns(value)), "0", batch_first=True)
    assert values.dtype == dtype
    # As Python numbers, the values are exact whatever their dtype.
    assert values.permute(2, 0, 1).tolist() == value.tolist()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.ones(B, T, H, dtype=torch.complex64), "complex64; accepted: real numbers"),
        (lambda: WIDE + 2**53, "integers from 9007199254740992 to 9007199254741111; accepted"),
        (lambda: torch.full((B, T, H), 2**64 - 1, dtype=torch.uint64), "to 18446744073709551615; accepted"),
        (lambda: torch.ones(B, T, H).to_sparse(), "another form .*sparse"),
        (lambda: torch.ones(B, T, H, device="meta"), r"another form \(meta"),
        (
            lambda: torch.masked.masked_tensor(torch.ones(B, T, H), torch.ones(B, T, H) > 0),
            "another form .MaskedTensor",
        ),
        (lambda: {"output": torch.ones(B, T, H)}, "returns a dict with the keys 'output'"),
        (lambda: (), "returns a tuple without a tensor"),
        (lambda: ((torch.ones(B, T, H),),), "returns a tuple without a tensor"),
        (lambda: torch.ones(B, 0, H), r"\(0, 4, 6\).* accepted: at least one"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*prototype.*:UserWarning")
def test_states_that_a_trace_cannot_hold_are_refused(make, message):
    model = nn.Sequential(Returns(make()))
    with Recorder(model, "0", probe=probe(), batch_first=True) as rec, pytest.raises(InputError, match=message):
        rec.snapshot(0)


def test_the_axes_are_those_of_the_layer_as_it_is_now():
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(F, H, batch_first=True)

        def forward(self, x):
            return self.rnn(x if self.rnn.batch_first else x.transpose(0, 1))[0]

    model, square = Turned(), probe(n_samples=T)  # as many samples as timesteps: no shape tells the axes apart
    with Recorder(model, "rnn", probe=square) as rec:
        rec.snapshot(0)
        model.rnn.batch_first = False
        rec.snapshot(1)
        model.rnn = nn.GRU(F, H, batch_first=True)
        rec.snapshot(2)
    assert torch.equal(rec.trace().data[0], rec.trace().data[1])
    assert torch.equal(rec.trace().data[2], by_hand(model, square))


# ---------------------------------------------------------------- the probe


def test_the_probe_is_the_recorders_own():
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(F, H, batch_first=True)

        def forward(self, x, options):
            options["seen"].append(x.mul_(2))
            return self.rnn(x * options["scale"])[0]

    x, options = probe(), {"scale": torch.tensor(3.0), "seen": []}
    model = Writes()
    with Recorder(model, "rnn", probe=(x, options)) as rec:
        rec.snapshot(0)
        assert torch.equal(x, probe()) and options["seen"] == [] and options["scale"] == 3
        x.zero_()
        options["scale"].zero_()
        rec.snapshot(1)
    assert torch.equal(rec.trace().data[0], rec.trace().data[1])
    assert torch.equal(rec.trace().data[0], by_hand(model, 6 * probe()))


def test_probes_that_require_gradients_and_probes_in_a_packed_sequence():
    weight = torch.ones((), requires_grad=True)
    model, x = Net(lambda model, output: None), probe() * weight
    assert torch.equal(recorded(model, x=x), by_hand(model))
    x.sum().backward()
    assert weight.grad == probe().sum()  # the graph of the probe is whole
    packed = pack_padded_sequence(probe(), LENGTHS, batch_first=True, enforce_sorted=False)
    with Recorder(model, "rnn", probe=packed) as rec:
        packed.data.zero_()
        rec.snapshot(0)
    torch.testing.assert_close(rec.trace().data[0, :2, :, :1], by_hand(model, probe()[:1, :2]))


def test_a_model_that_takes_gradients_by_its_input():
    class Energy(nn.Module):
        def forward(self, x):
            with torch.enable_grad():
                return torch.autograd.grad(x.pow(3).sum(), x)[0]

    values = recorded(nn.Sequential(Energy()), "0", x=probe().requires_grad_(), batch_first=True)
    torch.testing.assert_close(values, 3 * probe().square().permute(1, 2, 0))


def test_probes_that_do_not_fit():
    model = Net(lambda model, output: None)
    with pytest.raises(InputTypeError, match="probe cannot be copied"):
        Recorder(model, "rnn", probe=((x for x in probe()),))
    with Recorder(model.to("meta"), "rnn", probe=probe()) as rec, pytest.raises(InputError, match="meta"):
        rec.snapshot(0)
