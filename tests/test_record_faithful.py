"""What is recorded is what the layer returned, whatever the model does with it, and the model is as before."""

from __future__ import annotations

import collections
import copy
import dataclasses
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.rnn import pack_padded_sequence

from mmphate_gpu.params import InputError, InputTypeError
from mmphate_gpu.record import Recorder

B, T, F, H = 6, 5, 3, 4
LENGTHS = torch.tensor([2, 5, 3, 5, 1, 4])


def probe(n_samples=B, seed=0):
    return torch.randn(n_samples, T, F, generator=torch.Generator().manual_seed(seed))


class Net(nn.Module):
    """A recurrent layer, and ``after(model, output)`` on what it returns."""

    def __init__(self, after, kind=nn.GRU):
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.after = kind(F, H, batch_first=True), after

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


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("after", AFTER)
def test_what_follows_the_layer_does_not_reach_the_record(after, kind):
    model = Net(AFTER[after], kind)
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
    found = recorded(nn.Sequential(Returns(value)), "0", batch_first=True)
    assert found.dtype == dtype
    # Integers of Python and its floats are exact here, whatever the dtype.
    assert found.permute(2, 0, 1).tolist() == value.tolist()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.ones(B, T, H, dtype=torch.complex64), "complex64; accepted: real numbers"),
        (lambda: WIDE + 2**53, "integers from 9007199254740992 to 9007199254741111; accepted"),
        (lambda: torch.full((B, T, H), 2**64 - 1, dtype=torch.uint64), "to 18446744073709551615; accepted"),
        (lambda: torch.ones(B, T, H).to_sparse(), "another form .*sparse"),
        (lambda: torch.ones(B, T, H, device="meta"), r"another form \(meta"),
        (lambda: (torch.nested.nested_tensor([torch.ones(2, H), torch.ones(3, H)]),), "another form .nested"),
        (
            lambda: torch.masked.masked_tensor(torch.ones(B, T, H), torch.ones(B, T, H) > 0),
            "another form .MaskedTensor",
        ),
        (lambda: {"output": torch.ones(B, T, H)}, "returns dict"),
        (lambda: (), "returns tuple"),
        (lambda: ((torch.ones(B, T, H),),), "returns tuple"),
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


def test_probes_that_do_not_fit():
    model = Net(lambda model, output: None)
    with pytest.raises(InputTypeError, match="probe cannot be copied"):
        Recorder(model, "rnn", probe=(value for value in probe()))
    with Recorder(model.to("meta"), "rnn", probe=probe()) as rec, pytest.raises(InputError, match=r"meta|probe is on"):
        rec.snapshot(0)


# ---------------------------------------------------------------- the model is as it was


@dataclasses.dataclass
class Cell:
    h: torch.Tensor | None = None
    steps: int = 0


class Memory:
    """A state in an object of the user's own class."""

    def __init__(self):
        self.values, self.count = [torch.zeros(2)], 0


def described(value):
    """``value`` as something that ``==`` compares: modules, objects and tensors by all that they hold."""
    if isinstance(value, torch.Tensor):
        grad = described(value.grad) if value.is_leaf else None
        bits = value.detach().contiguous().numpy().tobytes()
        return "tensor", id(value), str(value.dtype), tuple(value.shape), bits, value.requires_grad, grad
    if isinstance(value, np.ndarray):
        return "array", value.tobytes()
    if isinstance(value, torch.Generator):
        return "generator", value.get_state().tolist()
    if isinstance(value, random.Random):
        return "random", value.getstate()
    if isinstance(value, np.random.Generator):
        return "random", str(value.bit_generator.state)
    if isinstance(value, dict):
        return "dict", [(key, described(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple, collections.deque)):
        return "sequence", type(value), [described(item) for item in value]
    if isinstance(value, (nn.Module, Cell, Memory, SimpleNamespace)):
        return "object", described(vars(value))
    return value


def states_of(model):
    return {
        "model": described(model),
        "names": list(model.state_dict()),
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),
        "python": random.getstate(),
        "modes": (torch.is_grad_enabled(), torch.is_autocast_cache_enabled()),
        "cache": dict(parametrize._cache),
    }


def backward_within(model, output):
    with torch.enable_grad():
        model.head(output[0]).sum().backward()


def register(model, output):
    del model.count
    model.register_buffer("new", output[0])
    model.extra = nn.Linear(2, 2)
    model.rnn.register_forward_hook(lambda *args: None)


def reorder(model, output):
    model._buffers["total"] = model._buffers.pop("total")
    model._parameters.update(scale=nn.Parameter(torch.zeros(1)))


CHANGES = {
    "a buffer in place": lambda model, output: model.total.add_(1),
    "a buffer anew": lambda model, output: setattr(model, "total", model.total + 1),
    "a buffer that is not saved": lambda model, output: model.unsaved.add_(1),
    "the type of a buffer": lambda model, output: setattr(model, "total", model.total.double()),
    "statistics": lambda model, output: model.norm.train()(output[0].transpose(1, 2)),
    "a tensor": lambda model, output: setattr(model, "h", output[1]),
    "a tensor in a tuple": lambda model, output: model.pair[1].add_(1),
    "an expanded tensor": lambda model, output: model.expanded[:1].add_(1),
    "an element": lambda model, output: model.items.__setitem__(0, output[1]),
    "a list": lambda model, output: model.items.append(1),
    "a dict": lambda model, output: model.table.update(h=output[1]),
    "a tensor in a dict": lambda model, output: model.table["x"].zero_(),
    "a defaultdict": lambda model, output: model.by_name["x"].append(1),
    "a deque": lambda model, output: model.recent.append(output[1]),
    "a set": lambda model, output: model.seen.add(1),
    "a count": lambda model, output: setattr(model, "count", model.count + 1),
    "an array": lambda model, output: model.array.__iadd__(1),
    "a namespace": lambda model, output: setattr(model.space, "h", output[1]),
    "a dataclass": lambda model, output: setattr(model.cell, "h", output[1]),
    "an object": lambda model, output: model.memory.values[0].add_(1),
    "a module in a list": lambda model, output: model.items[1].weight.data.add_(1),
    "generators": lambda model, output: (
        torch.rand(1, generator=model.generator),
        model.numbers.normal(),
        model.dice.random(),
    ),
    "global generators": lambda model, output: (torch.rand(1), np.random.rand(), random.random()),
    "weights": lambda model, output: model.head.weight.add_(1),
    "weights unseen": lambda model, output: model.head.weight.data.clamp_(-0.1, 0.1),
    "weights elsewhere": lambda model, output: setattr(model.head.weight, "data", model.head.weight.data * 2),
    "signs of zero": lambda model, output: model.zeros.neg_(),
    "a frozen weight": lambda model, output: model.head.requires_grad_(False),
    "gradients": backward_within,
    "no gradients": lambda model, output: model.zero_grad(),
    "what is registered": register,
    "the order": reorder,
    "the renormed rows of an embedding": lambda model, output: model.embedding(torch.arange(2)),
    "flags": lambda model, output: model.train(),
}


def everything():
    model = Net(None)
    model.register_buffer("total", torch.zeros(2))
    model.register_buffer("unsaved", torch.full((2, 2), float("nan")), persistent=False)
    model.register_buffer("zeros", torch.zeros(3))
    model.norm, model.head, model.embedding = nn.BatchNorm1d(H), nn.Linear(H, 1), nn.Embedding(2, 3, max_norm=0.1)
    model.scale = nn.Parameter(torch.ones(1))
    model.h, model.pair, model.items = None, (torch.zeros(2), torch.ones(2)), [torch.zeros(2), nn.Linear(2, 2)]
    model.expanded, model.table, model.count = torch.zeros(1, 2).expand(3, 2), {"x": torch.ones(2, 2)}, 1000
    model.by_name, model.recent = collections.defaultdict(list), collections.deque([1, 2], maxlen=2)
    model.seen, model.array, model.space = {0}, np.zeros(3), SimpleNamespace(h=torch.ones(1))
    model.cell, model.memory = Cell(), Memory()
    model.generator, model.dice = torch.Generator().manual_seed(1), random.Random(1)
    model.numbers = np.random.default_rng(1)
    model.head(model.norm(torch.randn(B, H))).sum().backward()
    return model


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("ends", [None, RuntimeError, KeyboardInterrupt])
def test_what_a_forward_changes_is_put_back(change, ends):
    calls = []

    def after(model, output):
        CHANGES[change](model, output)
        calls.append(1)
        if ends is not None:
            raise ends("in the middle")

    model = everything()
    rec = Recorder(model, "rnn", probe=probe())
    model.after = after
    before = states_of(model)
    with rec:
        for epoch in range(2):
            if ends is None:
                rec.snapshot(epoch)
            else:
                with pytest.raises((ends, InputError), match="in the middle"):
                    rec.snapshot(epoch)
            assert states_of(model) == before
    assert len(calls) == 2
    if ends is None:
        assert torch.equal(rec.trace().data[0], rec.trace().data[1])


def test_a_snapshot_between_forward_and_backward():
    def gradients(snapshot):
        model = everything()
        model.after = lambda model, output: model.embedding(torch.arange(2)).sum()
        with Recorder(model, "rnn", probe=probe()) as rec:
            loss = model.head(model(probe(seed=1))).square().sum()
            if snapshot:
                rec.snapshot(0)
            loss.backward()
        return [weight.grad for weight in model.rnn.parameters()]

    assert all(map(torch.equal, gradients(False), gradients(True)))


def test_nothing_is_written_to_what_did_not_change():
    model = everything()
    model.after = lambda model, output: None
    versions = [tensor._version for tensor in model.state_dict().values()]
    recorded(model)
    assert [tensor._version for tensor in model.state_dict().values()] == versions


# ---------------------------------------------------------------- a state that is carried on


class Carries(nn.Module):
    """The hidden state goes on from forward to forward, kept as ``how`` says."""

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
    "dataclass": (lambda m: m.cell.h, lambda m, s: setattr(m.cell, "h", s), lambda m: setattr(m, "cell", Cell())),
    "another module": (
        lambda m: m.rnn.state,
        lambda m, s: setattr(m.rnn, "state", s),
        lambda m: setattr(m.rnn, "state", None),
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
        model(probe(seed=9))  # a validation moves the state, and not the model
        rec.snapshot(3)
        model(probe(seed=8))
        rec.snapshot(4)
    assert torch.equal(rec.trace().data[2], rec.trace().data[3]) and torch.equal(*rec.trace().data[3:])


@pytest.mark.parametrize("how", CARRIERS.keys() - {"buffers"})
def test_a_probe_of_another_batch_size(how):
    model = Carries(how)
    with Recorder(model, "rnn", probe=probe(2)) as rec:
        model(probe())
        rec.snapshot(-1)
        assert all(map(torch.equal, trained(Carries(how), epochs=0), model.parameters()))
        trained(model, rec)
    torch.testing.assert_close(rec.trace().data[-1], by_hand(model, probe(2)))


def test_a_probe_that_fits_no_carried_state_is_refused():
    for how in ("attribute", "buffers"):
        model = Carries(how)
        model(probe())
        with Recorder(model, "rnn", probe=probe(2)) as rec:
            trained(model)
            before = described(model)
            with pytest.raises(InputError, match=r"Expected hidden.*\(1, 6, 4\).*accepted: a probe of that batch size"):
                rec.snapshot(0)
            assert described(model) == before


def test_a_buffer_goes_with_the_model_to_another_type():
    model = Carries("buffers")
    with Recorder(model, "rnn", probe=probe().double()) as rec:
        model.double()
        model(probe().double())
        rec.snapshot(0)
    torch.testing.assert_close(rec.trace().data[0], by_hand(model, probe().double()))


def test_a_state_that_is_none_now_stays_so():
    model = Carries("attribute")
    model(probe(seed=1))
    with Recorder(model, "rnn", probe=probe()) as rec:
        for epoch in range(2):  # a first, which sees that the state is carried, and a second, which knows it
            model(probe(seed=2))
            rec.snapshot(epoch)
        model.state = None
        rec.snapshot(2)
    torch.testing.assert_close(rec.trace().data[2], by_hand(model))
    assert torch.equal(*rec.trace().data[:2]) and not torch.equal(*rec.trace().data[1:])


def test_what_the_training_changes_is_recorded_as_it_is_now():
    class Annealed(nn.Module):
        """A temperature set by the training, statistics and a count kept by every forward."""

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


# ---------------------------------------------------------------- wrappers and caches


def test_wrappers():
    plain = Net(lambda model, output: model.total.add_(1))
    plain.total = torch.zeros(2)
    expected = by_hand(plain)
    compiled = torch.compile(plain, backend="eager")
    for model, layer in ((nn.DataParallel(plain), "module.rnn"), (compiled, "_orig_mod.rnn")):
        model(probe())
        before = described(plain)
        with Recorder(model, layer, probe=probe()) as rec:
            for epoch in range(12):  # more often than compiled code may compile anew
                rec.snapshot(epoch)
        assert torch.equal(rec.trace().data, expected.expand(12, -1, -1, -1)) and described(plain) == before
    whole = torch.compile(nn.GRU(F, H, batch_first=True), backend="eager")
    with torch.no_grad():
        assert torch.equal(recorded(whole, ""), whole._orig_mod(probe())[0].permute(1, 2, 0))


def test_one_process_of_several_records_alone():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        inner = Net(lambda model, output: model.norm(output[0][:, -1]))
        inner.norm = nn.BatchNorm1d(H)
        model = nn.parallel.DistributedDataParallel(inner)
        # A forward of the wrapper would wait for the other processes, to send them its buffers.
        model.forward = lambda *args: pytest.fail("the other processes were waited for")
        assert torch.equal(recorded(model, "module.rnn"), by_hand(inner))
    finally:
        torch.distributed.destroy_process_group()


def test_weights_that_are_computed_anew_in_each_forward():
    for norm in (parametrizations.weight_norm, parametrizations.spectral_norm):
        model = Net(None)
        model.head = norm(nn.Linear(H, 2))
        model.after = lambda model, output: model.head(output[0])
        before = described(model.head)
        with parametrize.cached(), Recorder(model, "rnn", probe=probe()) as rec:
            rec.snapshot(0)
            model.head(torch.ones(1, H)).sum().backward()
        assert model.head.parametrizations.weight[0] is not None
        assert all(weight.grad is not None for weight in model.head.parameters())
        model.zero_grad()
        if norm is parametrizations.weight_norm:  # the other one moves its vectors in each training forward
            assert described(model.head) == before


def test_layers_that_cannot_be_recorded():
    lazy = nn.Sequential(nn.LazyLinear(F), nn.GRU(F, H, batch_first=True))
    with Recorder(lazy, "1", probe=probe()) as rec:
        with pytest.raises(InputError, match="lazy modules without parameters yet"):
            rec.snapshot(0)
        lazy(probe())
        rec.snapshot(0)
    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
        scripted = torch.jit.script(nn.Linear(F, H))
    with pytest.raises(InputTypeError, match="layer='' is a scripted module"):
        Recorder(scripted, "", probe=probe(), batch_first=True)
