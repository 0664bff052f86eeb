"""A training with and without snapshots reaches the same weights and random states, bit for bit."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.data import DataLoader

from mmphate_gpu import Recorder, every

from .cells import B, F, H, probe


class Net(nn.Module):
    """A recurrent layer between ``before(model, x)`` and ``after(model, hidden)``."""

    def __init__(self, before=None, after=None, make=None):
        super().__init__()
        self.rnn, self.head = nn.GRU(F, H, batch_first=True), nn.Linear(H, 2)
        self.before, self.after = before or (lambda model, x: x), after or (lambda model, hidden: hidden)
        if make is not None:
            make(self)

    def forward(self, x):
        return self.head(self.after(self, self.rnn(self.before(self, x))[0]))


def with_part(part):
    def make(model):
        model.part = part()

    return lambda: Net(after=lambda model, hidden: model.part(hidden), make=make)


class OverTime(nn.BatchNorm1d):
    def forward(self, x):
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def normed():
    model = Net()
    model.head = parametrizations.spectral_norm(parametrizations.weight_norm(model.head))
    return model


def noise(model, x):
    return x + torch.rand_like(x) + np.random.rand() + random.random()


def other_defaults(model, x):
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    return x


def carried(model, hidden):
    model.total = hidden.detach().mean(0) + (0 if model.total is None else model.total)
    return hidden + model.total


def counted(model, hidden):
    model.count += 1
    return hidden / model.count


MODELS = {
    "plain": Net,
    "dropout": with_part(lambda: nn.Dropout(0.5)),
    "batch norm": with_part(lambda: OverTime(H)),
    "batch norm of the mean of all batches": with_part(lambda: OverTime(H, momentum=None)),
    "random numbers in the forward": lambda: Net(before=noise),
    "a state in an attribute": lambda: Net(after=carried, make=lambda model: setattr(model, "total", None)),
    "a counter in a buffer": lambda: Net(
        after=counted, make=lambda model: model.register_buffer("count", torch.zeros((), dtype=torch.int64))
    ),
    "spectral and weight norm": normed,
    "an embedding that renorms its rows": lambda: Net(
        before=lambda model, x: x + model.table(torch.arange(x.shape[1])),
        make=lambda model: setattr(model, "table", nn.Embedding(9, F, max_norm=0.5)),
    ),
}
RECORDERS = {
    "one layer": lambda model: Recorder(model, "rnn", probe()),
    "layers, batches, half precision": lambda model: Recorder(
        model, ["rnn", "head"], DataLoader(probe(), batch_size=4, shuffle=True), batch_first=True, dtype="float16"
    ),
    "some epochs": lambda model: Recorder(model, "rnn", (probe(),), epochs=every(2), timesteps=[0, 3]),
}


def trained(make, recorder=None, *, autocast=False, steps=5):
    """All state after a training of some steps, each with a snapshot before it and between forward and backward."""
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(0)
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    opened = None if recorder is None else recorder(model).__enter__()
    for step in range(steps):
        optimizer.zero_grad()
        if opened:
            opened.snapshot(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = model(torch.randn(B, 5, F)).square().mean()
            if opened:
                opened.snapshot(step + 0.5)
        loss.backward()
        optimizer.step()
    if opened:
        opened.__exit__()
    states = {"torch": torch.get_rng_state(), "numpy": torch.tensor(np.random.randint(1 << 30, size=4))}
    states["python"] = torch.tensor([random.random()])
    return {**model.state_dict(), **states}


def assert_equal(left, right):
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


@pytest.mark.parametrize("recorder", RECORDERS)
@pytest.mark.parametrize("model", MODELS)
def test_the_same_weights_with_and_without_a_recorder(model, recorder):
    assert_equal(trained(MODELS[model]), trained(MODELS[model], RECORDERS[recorder]))


@pytest.mark.parametrize("model", ["plain", "dropout"])
def test_the_same_weights_under_autocast(model):
    assert_equal(trained(MODELS[model], autocast=True), trained(MODELS[model], RECORDERS["one layer"], autocast=True))


def test_a_forward_that_sets_the_defaults_of_torch():
    model = Net(before=other_defaults)
    with Recorder(model, "rnn", probe()) as recorder:
        recorder.snapshot(0)
    assert torch.get_default_dtype() == torch.float32 and torch.get_default_device() == torch.device("cpu")
    assert torch.zeros(1).dtype == torch.float32 and torch.zeros(1).device.type == "cpu"
    with torch.no_grad():
        assert torch.equal(recorder.trace().data[0], model.rnn(probe())[0].permute(1, 2, 0))


def test_the_defaults_of_the_user_stay():
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        model = Net().to_empty(device="cpu").float()
        for weight in model.parameters():
            nn.init.constant_(weight, 0.1)
        with torch.device("cpu"), Recorder(model, "rnn", torch.ones(B, 5, F, dtype=torch.float32)) as recorder:
            recorder.snapshot(0)
        assert torch.get_default_dtype() == torch.float64 and torch.get_default_device().type == "meta"
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert recorder.trace().data.dtype == torch.float32


@pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")
def test_of_two_processes_that_train_one_model_the_first_records_alone(tmp_path):
    """A forward of the wrapper would wait for the other process without end."""
    script = Path(__file__).with_name("two_ranks.py")
    commands = [[sys.executable, str(script), str(rank), str(tmp_path)] for rank in range(2)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    for rank in range(2):
        results = torch.load(tmp_path / f"{rank}.pt")
        assert_equal(results["plain"], results["record"])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None and shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # inductor uses it
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # dynamo reads it after a graph break
def test_a_compiled_model_reaches_the_same_weights_and_is_compiled_no_more_often():
    def compiled():
        return torch.compile(MODELS["dropout"](), backend="inductor")

    def run(recorder=None):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        return trained(compiled, recorder), dict(torch._dynamo.utils.counters["frames"])

    (plain, frames), (recorded, frames_too) = run(), run(lambda model: Recorder(model, "rnn", probe()))
    assert_equal(plain, recorded)
    assert frames == frames_too and frames["ok"] > 0
