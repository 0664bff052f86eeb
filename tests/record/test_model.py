"""After a snapshot the model and the random states are as they were before."""

from __future__ import annotations

import collections
import dataclasses
import queue
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.record import Recorder

B, T, F, H = 6, 5, 3, 4


def probe(n_samples=B, seed=0):
    return torch.randn(n_samples, T, F, generator=torch.Generator().manual_seed(seed))


class Net(nn.Module):
    """A recurrent layer, and ``after(model, output)`` on what it returns."""

    def __init__(self, after):
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.after = nn.GRU(F, H, batch_first=True), after

    def forward(self, x):
        output = self.rnn(x)
        self.after(self, output)
        return output[0]


def recorded(model, layer="rnn"):
    """The values of one snapshot, (timestep, unit, sample)."""
    with Recorder(model, layer, probe=probe()) as rec:
        rec.snapshot(0)
    return rec.trace().data[0]


def by_hand(model, x=None):
    with torch.no_grad():
        return model.rnn(probe() if x is None else x)[0].permute(1, 2, 0)


# ---------------------------------------------------------------- the model is as it was


@dataclasses.dataclass
class Cell:
    h: torch.Tensor | None = None
    steps: int = 0


class Memory:
    """Holds a state; its class is defined in another file of the user."""

    __module__ = "states_of_mine"

    def __init__(self):
        self.values, self.count = [torch.zeros(2)], 0


def described(value):
    """``value`` in a form that ``==`` compares; modules, objects and tensors by their contents."""
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
    "a tensor of inference mode": lambda model, output: torch.inference_mode()(model.inferred.add_)(1),
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
    model.inferred = torch.inference_mode()(torch.zeros)(2)
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
    if ends is None:
        assert len(calls) in (3, 4)  # the first snapshot compares two forwards, and a third one if it changes a vector
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


def test_objects_of_other_packages_are_left_alone():
    model = Net(lambda model, output: model.queue.put(1))
    model.queue = queue.Queue()  # another thread may be at work in it
    recorded(model)
    assert model.queue.qsize() == 2  # the first snapshot compares two forwards


# ---------------------------------------------------------------- wrappers and caches


def test_parallel_and_compiled_models(monkeypatch):
    """The recorder records what the wrapped model returns, and compiled code stays compiled."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    plain = nn.Sequential(nn.Linear(F, H), nn.Tanh())
    with torch.no_grad():
        expected = plain(probe()).permute(1, 2, 0).expand(12, -1, -1, -1)
    compiled = torch.compile(plain, backend=backend)
    with monkeypatch.context() as without_gpu:  # with one, DataParallel refuses a model on the CPU
        without_gpu.setattr(torch.cuda, "is_available", lambda: False)
        parallel = nn.DataParallel(plain)
    for model, layer in ((parallel, "module.1"), (compiled, "_orig_mod.1"), (compiled, ""), (plain, "1")):
        if model is plain:
            plain.compile(backend=backend)
        model(probe()).sum().backward()
        compiled_before, before = len(graphs), described(plain)
        with Recorder(model, layer, probe=probe(), batch_first=True) as rec:
            for epoch in range(12):  # more often than torch would recompile the model
                rec.snapshot(epoch)
        assert torch.equal(rec.trace().data, expected) and described(plain) == before
        model(probe()).sum().backward()
        assert len(graphs) == compiled_before


@pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")
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
        if norm is parametrizations.weight_norm:  # spectral_norm updates its vectors in each training forward
            assert described(model.head) == before


def test_weights_of_a_recurrent_layer_that_are_computed_anew():
    with pytest.warns(FutureWarning, match="weight_norm"):
        rnn = nn.utils.weight_norm(nn.GRU(F, H, batch_first=True), "weight_hh_l0")
    model, expected = nn.Sequential(rnn), []
    with Recorder(model, "0", probe=probe()) as rec:
        for epoch in range(3):
            with torch.no_grad():
                rnn.weight_hh_l0_g.mul_(1.5)
            rnn.weight_ih_l0 = nn.Parameter(rnn.weight_ih_l0.detach() * 2)
            rec.snapshot(epoch)
            with torch.no_grad():
                expected.append(rnn(probe())[0].permute(1, 2, 0))
    assert torch.equal(rec.trace().data, torch.stack(expected))


def test_a_scripted_part_returns_to_training_mode():
    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
        model = nn.Sequential(nn.GRU(F, H, batch_first=True), torch.jit.script(nn.Dropout()))
    model.forward = lambda x: model[1](model[0](x)[0])
    recorded(model, "0")
    assert model[1].training


def test_layers_that_cannot_be_recorded():
    lazy = nn.Sequential(nn.LazyLinear(F), nn.GRU(F, H, batch_first=True))
    with Recorder(lazy, "1", probe=probe()) as rec:
        with pytest.raises(InputError, match="lazy modules without parameters yet"):
            rec.snapshot(0)
        lazy(probe())
        rec.snapshot(0)
    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
        scripted = torch.jit.script(nn.Linear(F, H))
    with pytest.raises(InputTypeError, match="layer '' is a scripted module"):
        Recorder(scripted, "", probe=probe(), batch_first=True)
