"""The interactive picture is written whole, and bad input leaves no file."""

import numpy as np
import pytest

from mmphate_gpu.embedding import Embedding
from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.plots import interactive
from mmphate_gpu.slices import SliceLayout

from .test_plots import fake


def test_the_file_is_written_and_its_path_returned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"columns": {"layer": ("unit", list("aabb"))}, "title": "A <run>"}
    path = interactive(fake(components=3), **options)
    assert path.name == "picture.html" and path.is_file()
    text = path.read_text(encoding="utf-8")
    assert "<title>A &lt;run&gt;</title>" in text and '"layer"' in text
    first = path.read_bytes()
    assert interactive(fake(components=3), str(path), **options) == path
    assert path.read_bytes() == first and [file.name for file in tmp_path.iterdir()] == ["picture.html"]


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"path": "x.png"}, InputError, "ends in '.png'; accepted: .html"),
        ({"path": "nowhere/x.html"}, InputError, "in a folder that does not exist"),
        ({"path": 3}, InputTypeError, "path=3"),
        ({"title": 3}, InputTypeError, "title is a int; accepted: text, or None"),
        ({"max_nodes": 0}, InputError, "max_nodes=0 is out of range"),
        ({"max_nodes": 3}, InputError, "max_nodes=3 is less than a slice has; accepted: at least 4"),
        ({"max_nodes": 3.5}, InputTypeError, "max_nodes=3.5 must be an integer"),
        ({"columns": {"x": [1, 2]}}, InputError, r"columns\['x'\] has shape \(2,\)"),
    ],
)
def test_bad_arguments_leave_no_file(options, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        interactive(fake(), **options)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_embedding_is_refused(tmp_path):
    with pytest.raises(InputTypeError, match="embedding is a ndarray; accepted: an Embedding"):
        interactive(np.zeros((4, 2)), tmp_path / "x.html")
    empty = Embedding(np.full((4, 2), np.nan), SliceLayout.of_shape(2, 1, 2))
    with pytest.raises(InputError, match="NaN in every drawn row"):
        interactive(empty, tmp_path / "x.html")


def test_slices_are_left_out_above_the_limit(tmp_path):
    text = interactive(fake(), tmp_path / "x.html", max_nodes=48).read_text(encoding="utf-8")
    assert "48 of 120 nodes are drawn: all units at 3 of 6 epochs and 4 of 5 time steps." in text
