"""Recordings of small networks that learn to read digits. They are trained at first use, and kept.

    python -m benchmarks.networks digits-gru 50 trace.npz        trains for 50 epochs and saves the trace

Equal arguments give equal bits.
"""

from __future__ import annotations

import functools
import hashlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measure.records import ROOT
from benchmarks.measure.tasks import environment

if TYPE_CHECKING:
    import torch

    from mmphate_gpu import Trace

EPOCHS = 50
TASKS, DIGITS_OF_TASK, BATCH = 5, 2, 16


def digits(cell: str, epochs: int) -> Trace:
    """The demo's network with another cell: all ten digits, (epochs + 1, 8, 20, 50)."""
    from mmphate_gpu.cli import demo

    return demo.train(demo.digits(), epochs=epochs, cell=cell).trace


def digits_in_tasks(epochs: int) -> Trace:
    """Continual learning: the demo's LSTM learns digits 0 and 1, then 2 and 3 alone, and so on, one task after another.

    The trace is (epochs + 1, 8, 20, 50). Its metrics are the accuracy on the held-out digits of the task, and on all.
    """
    import torch

    from mmphate_gpu import Recorder
    from mmphate_gpu.cli import demo
    from mmphate_gpu.runtime.devices import one_thread

    data = demo.digits()
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.manual_seed(0)
        model = demo.DigitReader()
        optimizer = torch.optim.Adam(model.parameters(), lr=demo.LEARNING_RATE)
        with Recorder(model, "rnn", data.probe[0], labels=data.probe[1]) as recorder:
            for epoch in range(epochs + 1):
                task = max(epoch - 1, 0) * TASKS // epochs
                if epoch > 0:
                    _learn(model, optimizer, *_of_task(task, *data.train))
                parts = {"task": _of_task(task, *data.test), "test": data.test}
                metrics = {f"{name}_accuracy": _accuracy(model, *part) for name, part in parts.items()}
                recorder.snapshot(epoch, **metrics)
    return recorder.trace()


def _of_task(task: int, images: torch.Tensor, classes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    chosen = classes // DIGITS_OF_TASK == task
    return images[chosen], classes[chosen]


def _learn(model: Any, optimizer: Any, images: torch.Tensor, classes: torch.Tensor) -> None:
    import torch

    for batch in torch.randperm(len(images), device="cpu").split(BATCH):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images[batch]), classes[batch]).backward()
        optimizer.step()


def _accuracy(model: Any, images: torch.Tensor, classes: torch.Tensor) -> float:
    import torch

    with torch.no_grad():
        return float((model(images).argmax(1) == classes).double().mean())


NETWORKS: dict[str, Callable[[int], Trace]] = {
    **{f"digits-{cell.lower()}": functools.partial(digits, cell) for cell in ("LSTM", "GRU", "RNN")},
    "digits-tasks": digits_in_tasks,
}


def recording(name: str, folder: Path | None = None, epochs: int = EPOCHS) -> Trace:
    """The trace of the network ``name``, from ``folder`` if it is kept there (5 s on one core otherwise).

    The name of its file has a hash of the sources of the training. The training has a process of its own, because its
    warm caches and allocators would change what is measured here.
    """
    from mmphate_gpu import load_trace

    if folder is None:
        return NETWORKS[name](epochs)
    sources = (
        Path(__file__),
        ROOT / "mmphate_gpu" / "cli" / "demo.py",
        *sorted((ROOT / "mmphate_gpu" / "record").glob("*.py")),
    )
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()[:12]
    file = folder / f"{name}-{epochs}-{digest}.npz"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "benchmarks.networks", name, str(epochs), str(file)]
        subprocess.run(command, cwd=ROOT, env=environment(), check=True, stdout=sys.stderr)
    return load_trace(file)


def main(argv: Sequence[str]) -> int:
    from mmphate_gpu import save_trace

    name, epochs, file = argv
    save_trace(file, NETWORKS[name](int(epochs)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
