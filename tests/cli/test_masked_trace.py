"""`embed` of a trace with sequences of different lengths: the files keep rows of NaN, and no picture shows them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from mmphate_gpu import Embedding
from mmphate_gpu.cli import main


def test_embed_of_a_masked_trace(tmp_path: Path, capsys, recwarn):
    trace = np.random.default_rng(0).normal(size=(6, 5, 3, 4)).cumsum(0)
    mask = np.arange(5)[:, None] < [5, 4, 4, 3]
    np.savez(tmp_path / "trace.npz", data=trace, mask=mask)
    assert main(["embed", str(tmp_path / "trace.npz"), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{tmp_path / 'out'}: 90 nodes embedded in ")
    assert "18 of 90 nodes have fewer than 2 present samples; their rows of the result are NaN" in captured.err
    embedding = Embedding.load(tmp_path / "out" / "embedding.npz")
    np.testing.assert_array_equal(np.isnan(embedding.coordinates).all(1), embedding.by("timestep") == 4)
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["trace"]["masked"] and np.isfinite(report["stress"])
    assert {"panels.png", "entropy.png"} <= {item.name for item in (tmp_path / "out").iterdir()}
    assert main(["plot", str(tmp_path / "out")]) == 0
    assert main(["plan", str(tmp_path / "trace.npz"), "--device", "cpu"]) == 0
