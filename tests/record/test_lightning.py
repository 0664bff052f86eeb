"""`LightningRecorder` with the real trainer: what is recorded and when, and that the training gets the same bits."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import mmphate_gpu
from mmphate_gpu import InputError, LightningRecorder, LiveEmbedding, every, load_trace
from mmphate_gpu.record.callbacks import usable_metrics

pl = pytest.importorskip("lightning.pytorch")
pytestmark = pytest.mark.filterwarnings("ignore:GPU available but not used")
X = torch.randn(24, 7, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(24) % 2
PROBE = X[:10]


class Reader(pl.LightningModule):
    """Reads sequences, with a Dropout and a BatchNorm that a recorder may disturb."""

    def __init__(self, fails_at: int | None = None, logs: bool = True) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 6, batch_first=True)
        self.body = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(6), nn.Linear(6, 2))
        self.fails_at, self.logs = fails_at, logs

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, n, 3) -> (B, 2)
        return self.body(self.rnn(x)[0][:, -1])

    def training_step(self, batch: Any, number: int) -> torch.Tensor:
        if self.current_epoch == self.fails_at:
            raise RuntimeError("the data ended")
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        if self.logs:
            self.log("train/loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, number: int) -> None:
        if self.logs:
            self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 1e-2)


def reader(**options: Any) -> Reader:
    torch.manual_seed(0)
    return Reader(**options)


def trainer(*callbacks: Any, max_epochs: int = 3, **options: Any) -> Any:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return pl.Trainer(accelerator="cpu", max_epochs=max_epochs, callbacks=list(callbacks), **quiet | options)


def loaders(*, seed: int = 0) -> tuple[Any, Any]:
    data = TensorDataset(X, LABELS)
    return DataLoader(data, 8, shuffle=True, generator=torch.Generator().manual_seed(seed)), DataLoader(data, 24)


def fitted(*callbacks: Any, module: Any = None, **options: Any) -> dict[str, torch.Tensor]:
    """The weights and buffers after a fit of 3 epochs with 3 steps each."""
    module = reader() if module is None else module
    torch.manual_seed(1)
    trainer(*callbacks, **options).fit(module, *loaders())
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_a_recorder_is_a_callback():
    callback = LightningRecorder("rnn", PROBE)
    assert isinstance(callback, pl.Callback) and isinstance(callback, LightningRecorder)
    assert type(callback).__name__ == "LightningRecorder"


@pytest.mark.parametrize(
    ("when", "numbers"), [("epoch", [0, 1, 2, 3]), ("validation", [0, 3, 6, 9]), ("step", list(range(10)))]
)
def test_snapshots_are_taken_when_asked_and_change_no_bit(when, numbers):
    callback = LightningRecorder("rnn", PROBE, when=when, labels=LABELS[:10])
    weights, without = fitted(callback), fitted()
    assert all(torch.equal(weights[name], without[name]) for name in without)
    trace = callback.trace()
    assert trace.epoch.tolist() == numbers and trace.shape[1:] == (7, 6, 10)
    assert trace.label.tolist() == LABELS[:10].tolist()


def test_the_first_and_the_last_snapshot_are_those_of_the_module():
    module = reader()
    first = module.rnn(PROBE)[0].detach()  # (10, 7, 6)
    callback = LightningRecorder("rnn", PROBE)
    fitted(callback, module=module)
    data = callback.trace().data
    assert torch.equal(data[0], first.permute(1, 2, 0))
    assert torch.equal(data[-1], module.rnn(PROBE)[0].detach().permute(1, 2, 0))


def test_a_schedule_counts_what_when_counts():
    callback = LightningRecorder("rnn", PROBE, when="step", epochs=every(4))
    fitted(callback)
    assert callback.trace().epoch.tolist() == [0, 4, 8]


def test_metrics_of_the_trainer_are_kept_under_names_of_python():
    callback = LightningRecorder("rnn", PROBE)
    module = reader()
    fit = trainer(callback)
    fit.fit(module, *loaders())
    metrics = callback.trace().metrics
    assert set(metrics) == {"train_loss", "train_loss_step", "train_loss_epoch", "val_loss"}
    assert metrics["val_loss"][-1] == fit.callback_metrics["val_loss"].item()
    assert metrics["val_loss"][0] != metrics["val_loss"][0]  # NaN: nothing is measured before the training


def test_only_single_finite_numbers_are_metrics():
    taken = usable_metrics({"a.b": torch.tensor(2.0), "2": 1, "unit": 3, "x": torch.ones(2), "t": "text", "i": -1e999})
    assert taken.pop("i") != 0 and taken == {"a_b": 2.0, "_2": 1.0, "unit_": 3.0}


def test_a_submodule_runs_in_place_of_the_module():
    callback = LightningRecorder("1", torch.ones(5, 6), submodule="body")
    fitted(callback)
    assert callback.trace().shape == (4, 1, 6, 5)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's compiler looks at it
def test_a_compiled_module_is_recorded_by_its_plain_names():
    callback = LightningRecorder("rnn", PROBE)
    # torch 2.13 cannot compile `log` of Lightning 2.6
    modules = [torch.compile(reader(logs=False), backend="eager") for _ in range(2)]
    recorded, without = fitted(callback, module=modules[0]), fitted(module=modules[1])
    assert all(torch.equal(recorded[name], without[name]) for name in without)
    assert callback.trace().shape == (4, 7, 6, 10)


def test_a_fit_that_fails_keeps_its_snapshots(tmp_path):
    callback = LightningRecorder("rnn", PROBE, path=tmp_path / "run")
    with pytest.raises(RuntimeError, match="the data ended"):
        fitted(callback, module=reader(fails_at=2))
    assert load_trace(tmp_path / "run").epoch.tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="outside the recorder's with-block"):  # it is closed
        callback.recorder.snapshot(9)


def test_a_second_fit_of_the_module_goes_on():
    callback, module = LightningRecorder("rnn", PROBE), reader()
    fit = trainer(callback, max_epochs=2)
    fit.fit(module, *loaders())
    fit.fit_loop.max_epochs = 4
    fit.fit(module, *loaders())
    assert callback.trace().epoch.tolist() == [0, 1, 2, 3, 4]


def test_listeners_hear_of_each_snapshot():
    heard: list[float] = []
    callback = LightningRecorder("rnn", PROBE)
    callback.add_listener(lambda recorder, epoch: heard.append(epoch))
    fitted(callback)
    assert heard == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "probe",
    [(PROBE,), {"x": PROBE}, [PROBE[:4], PROBE[4:]], DataLoader(PROBE, 5), PROBE.numpy()],
    ids=lambda p: type(p).__name__,
)
def test_a_probe_of_any_form_is_recorded_without_the_hooks_of_the_module(probe):
    class Augmented(Reader):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            assert len(batch) == 2  # of inputs and classes
            return batch

    torch.manual_seed(0)
    whole, callback = LightningRecorder("rnn", PROBE), LightningRecorder("rnn", probe)
    fitted(whole, callback, module=Augmented())
    assert torch.allclose(
        callback.trace().data, whole.trace().data, atol=1e-6
    )  # batches of other sizes round otherwise


def test_an_embedding_can_follow_a_callback():
    callback = LightningRecorder("rnn", PROBE)
    with LiveEmbedding(callback, out=None, max_overhead=None) as follower:
        weights = fitted(callback)
        assert follower.embedding.layout.epoch.tolist() == [0, 1, 2, 3]
    assert follower.embedding.layout.shape == (4, 7, 6)
    without = fitted()
    assert all(torch.equal(weights[name], without[name]) for name in without)


def test_processes_of_other_ranks_record_nothing():
    class Other(LightningRecorder):
        def on_fit_start(self, trainer, pl_module):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(type(trainer), "is_global_zero", False)
                super().on_fit_start(trainer, pl_module)

    callback = Other("rnn", PROBE)
    fitted(callback)
    with pytest.raises(InputError, match="nothing is recorded in this process.*rank 0"):
        callback.trace()


def test_a_strategy_that_shards_the_model_is_refused():
    class FSDPStrategy:
        pass

    fit = type("Trainer", (), {"strategy": FSDPStrategy(), "is_global_zero": True})()
    with pytest.raises(InputError, match="FSDPStrategy, which shards the model; accepted: DDP"):
        LightningRecorder("rnn", PROBE).on_fit_start(fit, reader())


def test_a_callback_can_be_pickled_before_a_fit():
    callback = pickle.loads(pickle.dumps(LightningRecorder("rnn", PROBE, when="step")))
    assert isinstance(callback, pl.Callback)
    fitted(callback)
    assert callback.trace().shape == (10, 7, 6, 10)


def test_an_unknown_when_is_refused():
    with pytest.raises(InputError, match="when='batch' is unknown; accepted: 'epoch', 'validation', 'step'"):
        LightningRecorder("rnn", PROBE, when="batch")


def test_without_lightning_the_message_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] in {"lightning", "pytorch_lightning"}]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("lightning", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r'LightningRecorder needs .*pip install "mmphate-gpu\[lightning\]"'):
        LightningRecorder("rnn", PROBE)


DDP = """
import sys
from tests.record.test_lightning import LightningRecorder, PROBE, fitted
import torch
recorded = fitted(LightningRecorder("rnn", PROBE, path=sys.argv[1]), strategy="ddp_fork", devices=2)
"""


@pytest.mark.slow
def test_under_ddp_rank_0_alone_records(tmp_path):
    command = [sys.executable, "-c", DDP, str(tmp_path / "run")]
    done = subprocess.run(
        command, cwd=Path(mmphate_gpu.__file__).parents[1], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert load_trace(tmp_path / "run").epoch.tolist() == [0, 1, 2, 3]
