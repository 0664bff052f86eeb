"""`LiveEmbedding`: when it refits and places, that a picture continues the last one, and what lies in its folder."""

from __future__ import annotations

import json
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import mmphate_gpu.live as live
from mmphate_gpu import Embedding, InputError, LiveEmbedding, Recorder, as_trace
from mmphate_gpu.slices import SliceLayout

# (epoch, timestep, unit, sample)
WALK = np.random.default_rng(0).normal(size=(16, 3, 4, 12)).cumsum(0).cumsum(1).astype(np.float32)
LABELS = np.arange(12) % 3


DRAWN = live.drawn


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch):
    """A picture takes longer than all else."""
    monkeypatch.setattr(live, "drawn", lambda embedding: b"")


class Run:
    """A recording that grows by an epoch of `WALK` at a time, and tells its listeners."""

    def __init__(self, data: np.ndarray = WALK, **coordinates: Any) -> None:
        self.data, self.coordinates = data, coordinates
        self.epochs: list[float] = []
        self.listeners: list[Any] = []

    def add_listener(self, listener: Any) -> None:
        self.listeners.append(listener)

    def trace(self) -> Any:
        return as_trace(self.data[: len(self.epochs)], epoch=self.epochs, **self.coordinates)

    def record(self, n_epochs: int = 1) -> None:
        for _ in range(n_epochs):
            self.epochs.append(len(self.epochs) * 10)
            for listener in self.listeners:
                listener(self, self.epochs[-1])


def follow(run: Run, out: Any = None, **options: Any) -> LiveEmbedding:
    return LiveEmbedding(run, out=out, **{"refit_every": 4, "max_overhead": None} | options)


def by_epoch(embedding: Embedding) -> dict[float, np.ndarray]:
    """The coordinates of each epoch, (timestep, unit, component)."""
    parts = embedding.coordinates.reshape(*embedding.layout.shape, -1)
    return dict(zip(embedding.layout.epoch.tolist(), parts, strict=True))


# ---------------------------------------------------------------- refits and placements


def test_snapshots_are_refitted_every_so_often_and_placed_between():
    run = Run()
    follower = follow(run)
    refits = []
    run.record()
    assert follower.embedding is None
    for _ in range(9):
        run.record()
        assert follower.embedding.layout.epoch.tolist() == run.epochs
        refits.append(follower._fit.n_snapshots)
    assert refits == [2, 2, 2, 2, 6, 6, 6, 6, 10]


def test_a_placement_is_that_of_transform_and_moves_no_other_node():
    run = Run()
    follower = follow(run)
    run.record(6)
    before = follower.embedding
    run.record()
    after, fit = follower.embedding, follower._fit
    assert np.array_equal(after.coordinates[: before.n_nodes], before.coordinates)
    placed = fit.op.transform(run.trace().subsample(epochs=[6])).numpy()
    assert np.array_equal(after.coordinates[before.n_nodes :], fit.move(placed))


def test_a_refit_continues_the_picture_before_it():
    """Of all motions none brings the new embedding nearer to the old one; here against the 8 turns of a square."""
    run = Run()
    follower = follow(run)
    run.record(9)
    old = follower.embedding
    run.record()
    new, common = follower.embedding, old.n_nodes
    still, moved = (rows.astype(np.float64) for rows in (old.coordinates, new.coordinates[:common]))
    still, moved = still - still.mean(0), moved - moved.mean(0)
    least = np.square(moved - still).sum()
    turns = [
        np.diag(signs) @ order
        for signs in ((1, 1), (1, -1), (-1, 1), (-1, -1))
        for order in (np.eye(2), np.eye(2)[::-1])
    ]
    # The coordinates are float32, which leaves 1e-7 of a square.
    assert all(least <= np.square(moved @ turn - still).sum() * (1 + 1e-6) for turn in turns)
    assert new.coordinates[:common].mean(0) == pytest.approx(old.coordinates.mean(0), abs=1e-5)
    unmoved = follower._fit.op.result_.coordinates
    # A motion keeps all distances.
    assert np.allclose(distances(new.coordinates), distances(unmoved), atol=1e-4 * np.ptp(unmoved))


def distances(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


@pytest.mark.parametrize("sign", [1, -1], ids=["turned", "reflected"])
def test_a_planted_motion_is_recovered(sign):
    rng = np.random.default_rng(1)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation[:, 0] *= sign * np.sign(np.linalg.det(rotation))
    old = Embedding(rng.normal(size=(24, 3)), SliceLayout.of_shape(3, 2, 4))
    # The new embedding lacks the first epoch and has another one, which no motion can know.
    kept = (old.coordinates[8:] - [1, 2, 3]) @ rotation.T
    layout = SliceLayout(np.array([1, 2, 9]), np.arange(2), np.arange(4))
    new = Embedding(np.concatenate([kept, rng.normal(size=(8, 3))]), layout)
    motion = live.Motion.onto(new, old)
    assert np.allclose(motion.rotation, rotation) and np.allclose(motion.offset, [1, 2, 3])
    assert np.allclose(motion(new.coordinates)[:16], old.coordinates[8:])
    assert np.isclose(np.linalg.det(motion.rotation), sign)


def test_an_embedding_without_a_node_in_common_stays_where_it_is():
    rows = np.random.default_rng(0).normal(size=(4, 2))
    new, old = (Embedding(rows, SliceLayout(np.array([epoch]), np.arange(2), np.arange(2))) for epoch in (1, 2))
    for before in (old, None):
        assert np.array_equal(live.Motion.onto(new, before)(rows), rows)


def test_it_waits_for_two_slices_and_for_enough_nodes():
    run = Run(WALK[:, :1, :1])  # a node an epoch
    follower = follow(run)
    n_epochs = []
    for _ in range(4):
        run.record()
        n_epochs.append(None if follower.embedding is None else follower.embedding.layout.n_epochs)
    assert n_epochs == [None, None, 3, 4]  # two components need three nodes


def test_it_waits_for_enough_nodes_with_two_samples():
    run = Run(WALK[:, :2, :1, :2], mask=np.array([[True, True], [True, False]]))  # one node an epoch is in the graph
    with pytest.warns(UserWarning, match="3 of 6 nodes have fewer than 2 present samples"):
        follower = follow(run)
        run.record(2)
        assert follower.embedding is None
        run.record()
    assert np.isfinite(follower.embedding.coordinates).all(1).tolist() == [True, False] * 3


def test_labels_color_every_node():
    run = Run(label=LABELS)
    follower = follow(run)
    run.record(7)
    trace = run.trace()
    assert np.array_equal(follower.embedding.most_active, live.most_active_class(trace))


def test_nodes_with_nothing_present_have_no_place():
    mask = np.ones(WALK.shape, dtype=bool)
    mask[:, 2, :, 1:] = False  # a single sample is left of the last step
    run = Run()
    run.trace = lambda: as_trace(WALK[: len(run.epochs)], epoch=run.epochs, mask=mask[: len(run.epochs)])
    follower = follow(run)
    with pytest.warns(UserWarning, match="fewer than 2 present samples"):
        run.record(7)  # two refits, and placements between
    present = np.isfinite(follower.embedding.coordinates).all(1).reshape(7, 3, 4)
    assert present[:, :2].all() and not present[:, 2].any()


def test_parameters_are_those_of_the_estimator():
    run = Run()
    follower = follow(run, n_components=3, interslice_knn=5, random_state=7)
    run.record(3)
    assert follower.embedding.n_components == 3
    op = follower._fit.op
    assert (op.interslice_knn, op.random_state, op.device, op.n_landmark) == (5, 7, "cpu", 500)


def test_few_slices_have_few_neighbors():
    run = Run(WALK[:, :1])
    follower = follow(run)
    run.record(6)
    assert follower._fit.op.interslice_knn == 5  # 25 would warn: there are 5 other slices


# ---------------------------------------------------------------- bounds on the work


def test_long_recordings_are_thinned_so_that_pictures_have_epochs_in_common():
    data = np.zeros((100, 30, 4, 2), dtype=np.float32) + np.arange(2)
    kept = [live.thinned(as_trace(data[:n]), 800) for n in (20, 50, 100)]
    assert all(part.n_nodes <= 800 for part in kept)
    # 800 nodes are 40 an epoch, that is 10 steps of 4 units
    assert kept[0].timestep.tolist() == list(range(2, 30, 3)) and kept[0].epoch.tolist() == list(range(20))
    assert kept[1].epoch.tolist() == list(range(0, 50, 4)) and kept[2].epoch.tolist() == list(range(0, 100, 8))
    assert live.thinned(as_trace(data), 2).shape == (2, 1, 4, 2)
    assert live.thinned(as_trace(data), 12_000).shape == data.shape


def test_a_refit_takes_at_most_max_nodes_and_the_last_everything():
    run = Run()
    follower = follow(run, max_nodes=60)
    run.record(9)
    assert follower.embedding.layout.timestep.tolist() == [2]
    assert follower.embedding.n_nodes == 9 * 4 <= 60  # 3 epochs are placed
    run.record(7)
    follower.close()
    assert follower.embedding.layout.shape == WALK.shape[:3]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


def test_work_is_allowed_while_it_fits_into_the_share_of_the_time(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(live.time, "perf_counter", clock.perf_counter)
    budget = live.Budget(0.25)
    with budget.timed("show"):
        clock.now += 2
    with pytest.raises(OSError), budget.timed("place"):
        clock.now += 1
        raise OSError
    assert budget.spent == 3
    clock.now = 23.9
    assert budget.allows(0) and not budget.allows(0, "place", "show")
    clock.now = 24
    assert budget.allows(0, "place", "show") and not budget.allows(0.1, "place", "show")
    assert live.Budget(None).allows(1e9)


def test_what_does_not_fit_into_the_time_is_put_off():
    run = Run()
    follower = follow(run, max_overhead=1e-9)
    run.record(6)
    assert follower.embedding.layout.epoch.tolist() == [0, 10]  # the first picture is not put off
    follower._budget._share = None  # time enough
    run.record()
    assert follower.embedding.layout.epoch.tolist() == run.epochs and follower._fit.n_snapshots == 7


def test_a_refit_that_waits_is_not_overtaken_by_placements(monkeypatch):
    run = Run()
    follower = follow(run)
    run.record(4)
    monkeypatch.setattr(live.Fit, "seconds_later", lambda *_: 1e9)
    monkeypatch.setattr(live.Budget, "allows", lambda _, seconds, *__: seconds < 1e9)
    run.record(4)
    assert follower.embedding.layout.epoch.tolist() == [0, 10, 20, 30, 40]  # the sixth made a refit due


def test_the_time_of_a_later_refit_grows_with_its_nodes():
    run = Run()
    follower = follow(run)
    run.record(5)
    fit = live.replace(follower._fit, seconds=2.0)
    # It took 2 epochs of 12 nodes.
    assert fit.seconds_later(6, 10_000) == 6.0 and fit.seconds_later(6, 48) == 4.0


# ---------------------------------------------------------------- the folder


def test_the_folder_has_the_latest_picture_and_a_page_that_reloads(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "drawn", DRAWN)
    run = Run(label=LABELS)
    follower = follow(run, tmp_path / "a" / "live")
    run.record(3)
    out = tmp_path / "a" / "live"
    assert sorted(item.name for item in out.iterdir()) == ["embedding.npz", "index.html", "picture.png", "status.json"]
    assert np.array_equal(Embedding.load(out / "embedding.npz").coordinates, follower.embedding.coordinates)
    assert (out / "picture.png").read_bytes() == follower._repr_png_()
    assert follower._repr_png_().startswith(b"\x89PNG")
    status = json.loads((out / "status.json").read_text())
    assert status["epoch"] == 20 and status["snapshots"] == 3 and status["snapshots_at_refit"] == 2
    assert status["shown"] == {"epochs": 3, "timesteps": 3, "units": 4} and not status["ended"]
    first = (out / "index.html").read_text()
    assert '<meta http-equiv="refresh" content="5">' in first and 'src="picture.png?3"' in first
    run.record()
    assert 'src="picture.png?4"' in (out / "index.html").read_text()


def test_a_picture_that_cannot_be_drawn_costs_no_embedding(tmp_path, monkeypatch):
    """Before the first picture the folder has none, and later it keeps the last one."""
    run = Run()
    follower = follow(run, tmp_path)
    for picture in (None, b"the last one"):
        monkeypatch.setattr(live, "drawn", lambda embedding: 1 / 0)
        with pytest.warns(UserWarning, match=r"drawn \(ZeroDivisionError: division by zero\); the embedding is kept"):
            run.record(2)
        assert follower._repr_png_() == picture and (tmp_path / "picture.png").exists() == bool(picture)
        assert Embedding.load(tmp_path / "embedding.npz").layout.epoch.tolist() == run.epochs
        monkeypatch.setattr(live, "drawn", lambda embedding: b"the last one")
        run.record()


def test_the_end_is_a_refit_of_everything_after_which_nothing_changes(tmp_path):
    run = Run()
    with follow(run, tmp_path) as follower:
        run.record(6)
    whole = live.MMPHATE(**live.DEFAULTS | {"interslice_knn": 17}).fit(run.trace()).result_
    last = follower.embedding
    assert np.allclose(distances(last.coordinates), distances(whole.coordinates), atol=1e-4 * np.ptp(whole.coordinates))
    page = (tmp_path / "index.html").read_text()
    assert "refresh" not in page and "The run has ended." in page
    run.record()
    follower.close()
    assert follower.embedding is last


def test_a_training_that_fails_gets_no_last_refit(tmp_path):
    run = Run()
    with pytest.raises(RuntimeError, match="diverged"), follow(run, tmp_path) as follower:
        run.record(3)
        raise RuntimeError("diverged")
    assert follower._fit.n_snapshots == 2
    run.record()
    assert follower.embedding.layout.epoch.tolist() == [0, 10, 20]


def test_an_end_without_enough_snapshots_writes_nothing(tmp_path):
    run = Run()
    with follow(run, tmp_path):
        run.record()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"refit_every": 0}, "refit_every=0"),
        ({"max_nodes": 1}, "max_nodes=1"),
        ({"max_overhead": 0}, "max_overhead=0"),
        ({"n_components": 0}, "n_components=0"),
    ],
)
def test_parameters_out_of_range_are_refused_before_the_training(options, message):
    with pytest.raises(InputError, match=message):
        follow(Run(), **options)


def test_a_path_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file cannot be written"):
        follow(Run(), tmp_path / "file")


# ---------------------------------------------------------------- with a recorder


def trained(out: Any = None, **options: Any) -> tuple[list[torch.Tensor], LiveEmbedding | None]:
    """The weights of a small network with a Dropout after 6 epochs, followed if there are ``options``."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 2))
    optimizer = torch.optim.Adam(model.parameters())
    x = torch.randn(20, 3)
    with Recorder(model, "2", x) as recorder:
        follower = LiveEmbedding(recorder, out=out, **options) if options else None
        for epoch in range(6):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
            if epoch == 3 and out is not None:
                shutil.rmtree(out)
            recorder.snapshot(epoch)
    return [weight.detach().clone() for weight in model.parameters()], follower


def test_the_training_gets_the_same_bits():
    weights, follower = trained(refit_every=2, max_overhead=None)
    assert all(map(torch.equal, weights, trained()[0]))
    assert follower.embedding.layout.epoch.tolist() == list(range(6))


def test_a_failure_does_not_end_the_training(tmp_path):
    with pytest.warns(RuntimeWarning, match="a listener of the recorder failed"):
        weights, follower = trained(tmp_path / "live", refit_every=2, max_overhead=None)
    assert all(map(torch.equal, weights, trained()[0]))
    assert follower.embedding.layout.epoch.tolist() == [0, 1, 2]
