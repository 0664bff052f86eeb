"""The headers of embedding.npz are judged before its values are read."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from mmphate_gpu import InputError
from mmphate_gpu.embedding import Embedding
from mmphate_gpu.slices import SliceLayout

from .headers import LITTLE, of, refused_in_little_memory, zipped


@pytest.fixture
def saved(tmp_path):
    """A function that writes an embedding's file with other entries."""
    layout = SliceLayout.of_shape(3, 2, 4)
    Embedding(np.arange(48.0).reshape(24, 2), layout, entropy=np.ones(9), t=3, stress=0.5).save(tmp_path / "whole.npz")

    def write(**entries: np.ndarray) -> Path:
        with np.load(tmp_path / "whole.npz") as whole:
            members = {name: of(array) for name, array in whole.items()}
        return zipped(tmp_path / "a.npz", **(members | {name: of(array) for name, array in entries.items()}))

    return write


@pytest.mark.parametrize(
    ("field", "array", "match"),
    [
        ("embedding", np.zeros((10**5, 5)), r"embedding has shape \(100000, 5\); accepted: \(24, components\)"),
        ("embedding", np.zeros(500_000), "embedding has shape"),
        ("shape", np.zeros(500_000), r"shape has shape \(500000,\); accepted: \(3,\)"),
        ("epoch_values", np.zeros((3, 10**5)), r"epoch_values has shape \(3, 100000\)"),
        ("epoch_values", np.zeros(500_000), "embedding has shape"),
        ("unit_values", np.zeros(4, "U200000"), "unit_values has entries of 800000 bytes"),
        ("most_active", np.zeros(500_000), r"most_active has shape \(500000,\); accepted: \(24,\)"),
        ("entropy", np.zeros((10, 10**5)), r"entropy has shape \(10, 100000\); accepted: 1 axis, one value"),
        ("t", np.zeros(500_000), "t has shape"),
        ("t_range", np.zeros(500_000), r"t_range has shape \(500000,\); accepted: \(2,\)"),
    ],
)
def test_an_embedding_is_judged_by_its_headers(saved, field, array, match):
    path = saved(**{field: array})
    refused_in_little_memory(lambda: Embedding.load(path), rf"a\.npz: {match}")


def test_an_entry_that_no_embedding_has_is_not_read(saved):
    path = saved(other=np.zeros(500_000), epoch=np.zeros(500_000))
    tracemalloc.start()
    assert Embedding.load(path).n_nodes == 24
    assert tracemalloc.get_traced_memory()[1] < LITTLE
    tracemalloc.stop()


def test_an_embedding_that_does_not_fit(saved, monkeypatch):
    path = saved()
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", "500")
    with pytest.raises(InputError, match=r"a\.npz: the embedding needs .* but cpu has 500 B available"):
        Embedding.load(path)
