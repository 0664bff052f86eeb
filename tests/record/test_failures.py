"""Errors of a snapshot do not end a training unless the user asks for it; mistakes of the user show at once."""

from __future__ import annotations

import errno
import warnings

import pytest
import torch
from torch import nn

from mmphate_gpu import InputError, Recorder, load_trace

from .cells import F, H, T, probe


class Net(nn.Module):
    """A recurrent layer whose forward fails, or returns NaN, in the way that ``fault`` says."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.fault = nn.GRU(F, H, batch_first=True), lambda x: x

    def forward(self, x):
        return self.rnn(self.fault(x))[0]


def raising(error):
    def fault(x):
        raise error

    return fault


FAULTS = {
    "NaN": (lambda x: x * float("nan"), "InputError: layer 'rnn' returns nan at time step 0"),
    "another length": (lambda x: x[:, :2], "InputError: the layers return float32 .* before float32"),
    "an error of the model": (raising(RuntimeError("boom")), "RuntimeError: boom"),
    "any error of the model": (raising(ZeroDivisionError("no")), "ZeroDivisionError: no"),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("where", ["memory", "folder"])
def test_an_error_after_the_first_snapshot_warns_once_with_its_epoch(name, where, tmp_path):
    model, (fault, message) = Net(), FAULTS[name]
    path = {} if where == "memory" else {"path": tmp_path / "run"}
    place = "" if where == "memory" else f" in {tmp_path / 'run'}"
    recorder = Recorder(model, "rnn", probe(), **path)
    with pytest.warns(RuntimeWarning, match=r"not recorded.* 2 more time\(s\), the last at epoch 3"), recorder:
        assert recorder.snapshot(0)
        model.fault = fault
        with pytest.warns(RuntimeWarning, match=f"not recorded{place} at epoch 1: {message}") as caught:
            assert not any(recorder.snapshot(epoch) for epoch in (1, 2, 3))
        assert len(caught) == 1 and caught[0].filename == __file__
        model.fault = lambda x: x
        assert recorder.snapshot(4) and recorder.snapshot(1)  # the epoch of a snapshot that failed is free
    assert recorder.epochs == [0, 4, 1] and recorder.trace().n_epochs == 3


@pytest.mark.parametrize("name", FAULTS)
def test_on_error_raise_raises_every_error(name):
    model, (fault, message) = Net(), FAULTS[name]
    with Recorder(model, "rnn", probe(), on_error="raise") as recorder:
        recorder.snapshot(0)
        model.fault = fault
        with pytest.raises(Exception, match=message.split(": ")[1]):
            recorder.snapshot(1)
        model.fault = lambda x: x
        recorder.snapshot(1)
    assert recorder.epochs == [0, 1]


@pytest.mark.parametrize("name", sorted(FAULTS.keys() - {"another length"}))
def test_an_error_of_the_first_snapshot_raises(name):
    model, (fault, message) = Net(), FAULTS[name]
    model.fault = fault
    with Recorder(model, "rnn", probe()) as recorder, pytest.raises(Exception, match=message.split(": ")[1]):
        recorder.snapshot(0)


def test_mistakes_of_the_user_always_raise():
    recorder = Recorder(Net(), "rnn", probe())
    with recorder:
        recorder.snapshot(0)
        for epoch, message in (
            (0, "recorded already"),
            ("1", "no finite number; accepted: a number such"),
            (2**60, "out of range"),
        ):
            with pytest.raises(InputError, match=message):
                recorder.snapshot(epoch)
    with pytest.raises(InputError, match="outside the recorder's with-block; accepted: with recorder:"):
        recorder.snapshot(1)
    with pytest.raises(InputError, match="on_error='ignore' is unknown; accepted: 'raise', 'warn'"):
        Recorder(Net(), "rnn", probe(), on_error="ignore")


@pytest.mark.parametrize("fatal", [KeyboardInterrupt, torch.OutOfMemoryError, MemoryError, SystemExit])
def test_fatal_errors_are_always_raised(fatal):
    model = Net()
    with Recorder(model, "rnn", probe()) as recorder:
        recorder.snapshot(0)
        model.fault = raising(fatal("now"))
        with pytest.raises(fatal):
            recorder.snapshot(1)
        model.fault = lambda x: x
        recorder.snapshot(1)


def test_a_loss_that_has_become_infinite_does_not_end_the_training():
    message = "the metric 'loss' is -inf; accepted: a finite number, or NaN"
    with Recorder(Net(), "rnn", probe()) as recorder:
        with pytest.raises(InputError, match=message):
            recorder.snapshot(0, loss=float("-inf"))
        assert recorder.snapshot(0, loss=1.0)
        with pytest.warns(RuntimeWarning, match=f"not recorded at epoch 1: InputError: {message}"):
            assert not recorder.snapshot(1, loss=float("-inf"))
    with Recorder(Net(), "rnn", probe(), on_error="raise") as recorder:
        recorder.snapshot(0)
        with pytest.raises(InputError, match=message):
            recorder.snapshot(1, loss=float("-inf"))
        with pytest.raises(InputError, match=message):  # a number that float64 does not reach
            recorder.snapshot(1, loss=-(10**400))
        assert recorder.snapshot(2, loss=10**300)
    assert recorder.epochs == [0, 2]


# ---------------------------------------------------------------- the disk


def full(*args, **options):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_warns_once_even_at_the_first_snapshot(tmp_path, monkeypatch):
    recorder = Recorder(Net(), "rnn", probe(), path=tmp_path / "run")
    with recorder:
        with monkeypatch.context() as patch, pytest.warns(RuntimeWarning, match="epoch 0: .*No space left") as caught:
            patch.setattr("mmphate_gpu.record.folder.save_array", full)
            assert not recorder.snapshot(0)
        assert len(caught) == 1
        assert recorder.snapshot(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_trace(tmp_path / "run").epoch.tolist() == [1]


def test_a_full_disk_with_on_error_raise(tmp_path, monkeypatch):
    with Recorder(Net(), "rnn", probe(), path=tmp_path / "run", on_error="raise") as recorder:
        recorder.snapshot(0)
        with monkeypatch.context() as patch, pytest.raises(InputError, match="No space left"):
            patch.setattr("mmphate_gpu.record.folder.save_array", full)
            recorder.snapshot(1)
    assert load_trace(tmp_path / "run").epoch.tolist() == [0]


def test_a_folder_that_is_not_empty_raises_before_the_training(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and is not empty"), Recorder(Net(), "rnn", probe(), path=tmp_path):
        pass


# ---------------------------------------------------------------- resumed folders


def test_a_training_that_restarts_earlier_runs_unchanged(tmp_path):
    with Recorder(Net(), "rnn", probe(), path=tmp_path) as recorder:
        taken = [recorder.snapshot(epoch, loss=float(epoch)) for epoch in range(4)]
    with Recorder(Net(), "rnn", probe(), path=tmp_path, resume=True) as recorder:
        assert recorder.epochs == [0, 1, 2, 3]
        taken += [recorder.snapshot(epoch, loss=float(epoch)) for epoch in range(2, 6)]
        with pytest.raises(InputError, match="epoch=5 is recorded already"):
            recorder.snapshot(5)
    assert taken == [True] * 4 + [False] * 2 + [True] * 2
    assert recorder.trace().metrics["loss"].tolist() == [0, 1, 2, 3, 4, 5]


def test_resume_starts_in_a_new_folder_and_needs_a_path(tmp_path):
    with Recorder(Net(), "rnn", probe(), path=tmp_path / "new", resume=True) as recorder:
        assert recorder.snapshot(0)
    with pytest.raises(InputError, match="resume=True has no path"):
        Recorder(Net(), "rnn", probe(), resume=True)
    with pytest.raises(InputError, match="resume='yes' is no boolean"):
        Recorder(Net(), "rnn", probe(), path=tmp_path, resume="yes")


def test_a_resumed_folder_of_another_shape_raises_at_the_first_snapshot(tmp_path):
    with Recorder(Net(), "rnn", probe(), path=tmp_path) as recorder:
        recorder.snapshot(0)
    with (
        Recorder(Net(), "rnn", probe(), path=tmp_path, resume=True, timesteps=[0]) as recorder,
        pytest.raises(InputError, match=r"shape=\[5, 4, 6\], and this snapshot has \[1, 4, 6\]"),
    ):
        recorder.snapshot(1)
    assert load_trace(tmp_path).shape[:2] == (1, T)


# ---------------------------------------------------------------- listeners


def test_listeners_hear_of_each_snapshot_that_is_recorded():
    model, heard = Net(), []
    with Recorder(model, "rnn", probe(), epochs=[0, 1, 3]) as recorder:
        recorder.add_listener(lambda recorder, epoch: heard.append((epoch, recorder.trace().n_epochs)))
        recorder.snapshot(0)
        model.fault = FAULTS["NaN"][0]
        with pytest.warns(RuntimeWarning, match="epoch 1"):
            recorder.snapshot(1)
        model.fault = lambda x: x
        recorder.snapshot(2)
        recorder.snapshot(3)
    assert heard == [(0, 1), (3, 2)]


def test_a_listener_that_fails_follows_on_error():
    def listener(recorder, epoch):
        raise LookupError("no picture")

    recorder = Recorder(Net(), "rnn", probe())
    recorder.add_listener(listener)
    with pytest.warns(RuntimeWarning, match=r"listener of the recorder failed 1 more time\(s\)"), recorder:
        with pytest.warns(RuntimeWarning, match="listener of the recorder failed at epoch 0: LookupError: no picture"):
            assert recorder.snapshot(0)
        assert recorder.snapshot(1)
    recorder = Recorder(Net(), "rnn", probe(), on_error="raise")
    recorder.add_listener(listener)
    with recorder, pytest.raises(LookupError, match="no picture"):
        recorder.snapshot(0)
    assert recorder.epochs == [0]
