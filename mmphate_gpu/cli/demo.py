"""The demonstration: a small recurrent network learns to read digits, and its hidden states are recorded meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import check_choice, check_number
from ..estimator import MMPHATE
from ..params import Params, recipe_parameters
from ..record import Recorder
from ..runtime.devices import one_thread, resolve_device
from ..stages import progress_bar
from ..trace import Trace
from . import result_folder
from .analyses import Data, Network
from .analyze import Analyzed, analyze, chosen
from .pictures import draw_results

N_HIDDEN = 20
N_CLASSES = 10
CELLS = ("LSTM", "GRU", "RNN")
N_PROBE = 5  # held-out images of each class that are recorded
TEST_SHARE = 0.3
BATCH = 64
# The rate rises linearly from a tenth of this. So the first, fast changes are spread over many epochs.
LEARNING_RATE = 3e-3
# More landmarks do not change the picture, and the work grows with their cube.
N_LANDMARK = 1000


class DigitReader(nn.Module):
    """Reads an image row by row, and names the digit after the last row. ``cell`` is "LSTM", "GRU" or "RNN"."""

    def __init__(self, n_hidden: int = N_HIDDEN, cell: str = "LSTM") -> None:
        super().__init__()
        check_choice("cell", cell, CELLS)
        self.rnn = getattr(nn, cell)(8, n_hidden, batch_first=True)
        self.head = nn.Linear(n_hidden, N_CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:  # (B, 8, 8) -> (B, 10)
        return self.head(self.rnn(images)[0][:, -1])


@dataclass(frozen=True)
class Digits:
    """Images, 8 rows of 8 pixels from 0 to 1, with their classes. The probe is part of the test images."""

    train: tuple[torch.Tensor, torch.Tensor]
    test: tuple[torch.Tensor, torch.Tensor]
    probe: tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Training:
    """The recorded trace, with accuracies and losses as metrics, and the network. The first epoch is before training.

    ``states`` has the state dict of the network at each recorded epoch, so that analyses can run it as it was.
    """

    trace: Trace
    model: DigitReader
    states: dict[int, dict[str, torch.Tensor]]

    @property
    def test_accuracy(self) -> list[float]:
        """The share of the held-out images that the network classifies correctly, at each recorded epoch."""
        return self.trace.metrics["test_accuracy"].tolist()


def digits(seed: int = 0, *, n_probe: int = N_PROBE) -> Digits:
    """The 1,797 handwritten digits of scikit-learn in a random split, with ``n_probe`` probe images of every class."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(seed).permutation(len(data.target))
    images = torch.tensor(data.images[order] / 16, dtype=torch.float32, device="cpu")
    classes = torch.tensor(data.target[order], dtype=torch.int64, device="cpu")
    n_test = int(TEST_SHARE * len(order))
    test = images[:n_test], classes[:n_test]
    chosen = torch.cat([torch.nonzero(test[1] == digit)[:n_probe, 0] for digit in range(N_CLASSES)])
    return Digits((images[n_test:], classes[n_test:]), test, (test[0][chosen], test[1][chosen]))


def train(
    data: Digits,
    *,
    epochs: int,
    seed: int = 0,
    cell: str = "LSTM",
    callback: Callable[[int, float], None] | None = None,
    follow: Callable[[Recorder], Any] = lambda recorder: None,
) -> Training:
    """Train a `DigitReader`, recording its hidden states on the probe before training and after every epoch.

    ``callback(epoch, test accuracy)`` is called at each recorded epoch, and ``follow(recorder)`` before the training.
    The random state of torch does not change. About 0.1 s an epoch, on one thread of the CPU. Equal seeds give equal
    bits.
    """
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.manual_seed(seed)
        model, states = DigitReader(cell=cell), {}
        optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=epochs)
        with Recorder(model, "rnn", data.probe[0], labels=data.probe[1]) as recorder:
            follow(recorder)
            for epoch in range(epochs + 1):
                if epoch > 0:
                    _one_epoch(model, optimizer, *data.train)
                    schedule.step()
                metrics = _scores(model, "train", *data.train) | _scores(model, "test", *data.test)
                recorder.snapshot(epoch, **metrics)
                states[epoch] = {name: value.clone() for name, value in model.state_dict().items()}
                if callback is not None:
                    callback(epoch, metrics["test_accuracy"])
    return Training(recorder.trace(), model, states)


def _one_epoch(model: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, classes: torch.Tensor) -> None:
    model.train()
    for batch in torch.randperm(len(images), device="cpu").split(BATCH):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[batch]), classes[batch]).backward()
        optimizer.step()


def _scores(model: nn.Module, name: str, images: torch.Tensor, classes: torch.Tensor) -> dict[str, float]:
    """Accuracy and cross-entropy (nats) on the images, as metrics of the part ``name`` of the data."""
    model.eval()
    with torch.no_grad():
        logits = model(images)
    accuracy = (logits.argmax(1) == classes).double().mean().item()
    return {f"{name}_accuracy": accuracy, f"{name}_loss": nn.functional.cross_entropy(logits, classes).item()}


def demo(
    out: Path,
    *,
    epochs: int = 50,
    recipe: str = "default",
    seed: int = 0,
    device: Any = "auto",
    force: bool = False,
    verbose: bool = True,
) -> dict[str, Any]:
    """Train, record, embed in two and three dimensions, analyze, draw; write everything to the folder ``out``.

    Returns the content of report.json. Raises `InputError` for a folder that exists and for parameters out of range.
    Pictures come last. If they cannot be drawn, a warning says so.
    About 35 s of CPU time. Equal bits for one seed, device and thread count.
    """
    started = time.perf_counter()
    check_number("epochs", epochs, low=1, integer=True)
    options = recipe_parameters(recipe) | {"n_landmark": N_LANDMARK, "random_state": seed, "device": device}
    Params(**options)
    resolve_device(device)
    op = MMPHATE(**options, verbose=verbose)

    def compute() -> result_folder.Results:
        training = _trained(epochs, seed, verbose)
        op.fit(training.trace)
        flat, report = op.result_, result_folder.report(op, training.trace, seconds=0, recipe=recipe)
        analyzed = _analyzed(op, training, verbose)
        # This fit uses the stages of the first one up to the distances.
        op.set_params(n_components=3).fit(training.trace)
        report |= {name: values.tolist() for name, values in training.trace.metrics.items()}
        report |= {"stress_3d": op.stress_, "seconds": time.perf_counter() - started}
        embeddings = {result_folder.EMBEDDING: flat, result_folder.EMBEDDING_3D: op.result_}
        return result_folder.Results(report, embeddings, training.trace, analyzed.write)

    results = result_folder.saved(out, compute, force=force)
    draw_results(out, results)
    return results.report


def _analyzed(op: MMPHATE, training: Training, verbose: bool) -> Analyzed:
    seed, trace = int(op.random_state or 0), training.trace
    network = Network(training.model, "rnn", digits(seed).probe[0], training.states)
    data = Data(op.result_, op, trace, trace.label, network, seed, verbose)
    return analyze(data, chosen(None, None, ()), source=result_folder.TRACE, asked={})


def _trained(epochs: int, seed: int, verbose: bool) -> Training:
    with progress_bar(epochs + 1, desc="training", unit="epoch", disable=not verbose) as bar:

        def show(epoch: int, accuracy: float) -> None:
            bar.set_postfix_str(f"{accuracy:.1%} right", refresh=False)
            bar.update()

        return train(digits(seed), epochs=epochs, seed=seed, callback=show)
