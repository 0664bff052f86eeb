"""The recordings of small networks."""

from __future__ import annotations

import torch

from benchmarks import networks


def test_tasks_follow_one_another():
    """A task of two epochs each: its first two digits are learned, and lost to the next two."""
    trace = networks.digits_in_tasks(10)
    assert trace.shape == (11, 8, 20, 50) and set(trace.metrics) == {"task_accuracy", "test_accuracy"}
    assert (trace.metrics["test_accuracy"] < 0.35).all()  # two digits of ten, and what is left of the others
    again = networks.digits_in_tasks(10)
    assert torch.equal(trace.data, again.data)


def test_a_recording_is_kept(tmp_path, monkeypatch):
    monkeypatch.setitem(networks.NETWORKS, "digits-gru", None)  # it is trained in a process of its own
    first = networks.recording("digits-gru", tmp_path, epochs=1)
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    assert first.shape == (2, 8, 20, 50) and file.name.startswith("digits-gru-1-")
    assert torch.equal(networks.recording("digits-gru", tmp_path, epochs=1).data, first.data)
    assert file.stat().st_mtime_ns == written
