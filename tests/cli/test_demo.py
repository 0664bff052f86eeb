"""`demo`: what it writes, that it repeats to the bit, and that its network learns."""

import json
from pathlib import Path

import numpy as np
import pytest

import mmphate_gpu as mp
from mmphate_gpu.cli import main, result_folder

# Pictures of analyses that have to be asked for.
LONG = {"null_models.png", "subsampling.png", "baselines.png", "cka_epochs.png", "cka_timesteps.png"}
PAGES = {"report.html", "picture.html"}  # of the commands report and view
METRICS = {"train_accuracy", "test_accuracy", "train_loss", "test_loss"}


def test_demo_small(here, capsys, monkeypatch):
    monkeypatch.setattr("mmphate_gpu.cli.demo.N_LANDMARK", 100)
    assert main(["demo", "--epochs", "3", "--seed", "1", "--out", "demo"]) == 0
    text = capsys.readouterr()
    assert {item.name for item in here.iterdir()} == {"trace.npy", "demo"}
    assert {item.name for item in Path("demo").iterdir()} == result_folder.FILES - LONG - PAGES
    shown = ("after 3 epochs", "unit_importance: UnitImportance(20 units", "demo: ", "panels3d.png")
    assert all(words in text.out for words in shown), text.out
    assert "training" in text.err
    trace = mp.load_trace("demo/trace.npz")
    assert trace.shape == (4, 8, 20, 50) and (np.bincount(trace.label) == 5).all()
    assert trace.epoch.tolist() == [0, 1, 2, 3] and set(trace.metrics) == METRICS
    assert mp.Embedding.load("demo/embedding.npz").coordinates.shape == (640, 2)
    assert mp.Embedding.load("demo/embedding3d.npz").coordinates.shape == (640, 3)
    report = json.loads(Path("demo/report.json").read_text())
    assert all(report[name] == values.tolist() for name, values in trace.metrics.items())
    assert report["seed"] == 1 and report["seconds"] > 0
    content = json.loads(Path("demo/analysis.json").read_text())  # follows needs more epochs
    assert {*content["left_out"]} == {"follows", "null_models", "subsample_study", "baselines"}, content["left_out"]
    assert np.shape(content["analyses"]["ablate_units"]["loss_change"]) == (4, 20)
    pictures = {name: Path("demo", name).read_bytes() for name in ("panels.png", "panels3d.png", "entropy.png")}
    assert main(["plot", "demo"]) == 0
    assert {name: Path("demo", name).read_bytes() for name in pictures} == pictures


def test_demo_repeats_to_the_bit_and_leaves_the_random_state(here):
    import torch

    from mmphate_gpu.cli.demo import digits, train

    state = torch.random.get_rng_state()
    first, second = (train(digits(seed=2), epochs=1, seed=2) for _ in range(2))
    assert torch.equal(first.trace.data, second.trace.data) and first.test_accuracy == second.test_accuracy
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.equal(train(digits(seed=3), epochs=1, seed=3).trace.data, first.trace.data)


@pytest.mark.parametrize("cell", ["GRU", "RNN"])
def test_other_cells_learn_too(cell):
    from mmphate_gpu.cli.demo import digits, train

    training = train(digits(n_probe=2), epochs=6, cell=cell)
    assert training.trace.shape == (7, 8, 20, 20) and list(training.states) == list(range(7))
    loss = training.trace.metrics["train_loss"]
    assert (np.diff(loss) < 0).all() and training.test_accuracy[-1] > training.test_accuracy[0]
    last = training.model.state_dict()
    assert all((training.states[6][name] == value).all() for name, value in last.items())


def test_an_unknown_cell_is_refused():
    from mmphate_gpu.cli.demo import DigitReader

    with pytest.raises(mp.InputError, match="cell='LSTN' is unknown"):
        DigitReader(cell="LSTN")


def test_demo_probe_is_held_out():
    from mmphate_gpu.cli.demo import digits

    data = digits(0)
    flat = {name: {tuple(image.flatten().tolist()) for image in part[0]} for name, part in vars(data).items()}
    assert flat["probe"] <= flat["test"] and not flat["probe"] & flat["train"]
    assert len(data.train[0]) + len(data.test[0]) == 1797


@pytest.mark.slow
def test_demo_learns(here):
    """The whole demonstration: the network learns, and the picture shows it."""
    assert main(["demo"]) == 0
    report = json.loads(Path("mmphate-demo/report.json").read_text())
    assert report["test_accuracy"][0] < 0.25 and report["test_accuracy"][-1] > 0.85
    embedding = mp.Embedding.load("mmphate-demo/embedding.npz")
    last = embedding.by("timestep") == 7
    epoch, points = embedding.by("epoch")[last], embedding.coordinates[last]
    # Before training the units that end an image crowd in one corner; afterwards they have spread.
    center = points[epoch == 0].mean(0)
    away = [np.linalg.norm(points[epoch == e] - center, axis=1).mean() for e in (0, 10, 50)]
    assert away[0] < 0.5 * away[1] < away[2]
