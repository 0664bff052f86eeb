"""Paths that users give: ~ is the home folder everywhere, and what no file system takes is refused in one sentence."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmphate_gpu import Embedding, InputError, InputTypeError, plots
from mmphate_gpu.record import Recorder
from mmphate_gpu.slices import SliceLayout
from mmphate_gpu.trace import as_trace, load_trace, save_trace

TRACE = np.random.default_rng(0).normal(size=(4, 3, 5, 7))
EMBEDDING = Embedding(np.random.default_rng(1).normal(size=(20, 2)), SliceLayout.of_shape(4, 1, 5))
WRITERS = {
    ".npz": lambda path: save_trace(path, TRACE, overwrite=True),
    ".npy": lambda path: save_trace(path, TRACE),
    "embedding": lambda path: EMBEDDING.save(path, overwrite=True),
    ".png": lambda path: plots.panels(EMBEDDING, path=path),
    ".svg": lambda path: plots.entropy([3.0, 2.0, 1.0], path=path),
}
writers = pytest.mark.parametrize("written", WRITERS)


def suffix(written):
    return ".npz" if written == "embedding" else written


@writers
def test_home(tmp_path, monkeypatch, written):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    WRITERS[written](f"~/a{suffix(written)}")
    WRITERS[written](Path("~") / f"b{suffix(written)}")
    assert all((tmp_path / f"{name}{suffix(written)}").is_file() for name in "ab")
    with pytest.raises(InputError, match="~no_such_user_here/a.* names the home of an unknown user"):
        WRITERS[written](f"~no_such_user_here/a{suffix(written)}")


@writers
def test_what_is_no_path(tmp_path, written):
    for path in (3, 2.5, b"a" + suffix(written).encode(), ["a" + suffix(written)]):
        with pytest.raises(InputTypeError, match=r"^path=.* is a \w+; accepted: a path as text"):
            WRITERS[written](path)


@writers
def test_names_that_no_file_has(tmp_path, written):
    names = ["a\0b"] if sys.platform == "win32" else ["a\0b", "\ud800"]
    for name in names:
        with pytest.raises(InputError, match=r"^path=.* holds a character that no file name can have"):
            WRITERS[written](f"{tmp_path}/{name}{suffix(written)}")
    with pytest.raises(InputError, match=r"^\S*aaa\S* (cannot be written|is in a folder that does not exist)"):
        WRITERS[written](tmp_path / ("a" * 300 + suffix(written)))
    with pytest.raises(InputError, match=r"(cannot be written|does not exist)"):
        WRITERS[written](tmp_path / ("a" * 300) / f"a{suffix(written)}")
    assert not list(tmp_path.iterdir())


@writers
def test_a_folder_is_no_file(tmp_path, written):
    path = tmp_path / f"d{suffix(written)}"
    path.mkdir()
    with pytest.raises(InputError, match=rf"d\{suffix(written)}"):
        WRITERS[written](path)
    assert [item.name for item in tmp_path.iterdir()] == [path.name] and not list(path.iterdir())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="a user who may not write everywhere")
@writers
def test_a_folder_that_may_not_be_written(tmp_path, written):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be written"):
        WRITERS[written](tmp_path / f"a{suffix(written)}")


def test_reading_and_recording(tmp_path):
    for name in ("a\0b.npz", "a" * 300 + ".npz"):
        for read in (load_trace, Embedding.load):
            with pytest.raises(InputError):
                read(tmp_path / name)
    for path, message in ((3, "path=3 is a int"), ("a\0b", "holds a character")):
        with pytest.raises(InputError, match=message):
            Recorder(torch.nn.GRU(2, 3), "", probe=torch.zeros(5, 4, 2), path=path)


@pytest.mark.parametrize("figsize", [3, "ab", 4.5, {8}])
def test_sizes_of_figures(figsize):
    with pytest.raises(InputError, match=r"^figsize="):
        plots.panels(EMBEDDING, figsize=figsize)


@pytest.mark.parametrize("text", ["\ud800", "a\0b"])
@pytest.mark.parametrize("axis", ["unit", "sample"])
def test_text_that_h5_cannot_hold(tmp_path, axis, text):
    pytest.importorskip("h5py")
    names = [text, *(f"n{i}" for i in range({"unit": 4, "sample": 6}[axis]))]
    trace = as_trace(TRACE, **{axis: names})
    with pytest.raises(InputError, match=rf"^{axis} holds text that .h5 cannot hold"):
        save_trace(tmp_path / "a.h5", trace)
    assert not list(tmp_path.iterdir())
    save_trace(tmp_path / "a.npz", trace)
    assert getattr(load_trace(tmp_path / "a.npz"), axis).tolist() == names
