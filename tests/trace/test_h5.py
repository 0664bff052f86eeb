""".h5: values in other files, links, and what a trace does not use."""

from __future__ import annotations

import os

import numpy as np
import pytest

from mmphate_gpu import InputError
from mmphate_gpu.trace import as_trace, load_trace
from mmphate_gpu.trace.files import OPENERS

from .h5_files import values, virtual, written
from .traces import SHAPE, refusal, streams

h5py = pytest.importorskip("h5py")


def by_number(file, name, pattern):
    """Make a virtual dataset whose epochs lie in the files whose numbered names match ``pattern``."""
    space = h5py.h5s.create_simple(SHAPE, (h5py.h5s.UNLIMITED, *SHAPE[1:]))
    space.select_hyperslab((0,) * 4, (h5py.h5s.UNLIMITED, 1, 1, 1), (1, 1, 1, 1), (1, *SHAPE[1:]))
    options = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    options.set_virtual(space, pattern, b"data", h5py.h5s.create_simple((1, *SHAPE[1:])))
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple(SHAPE, SHAPE), options)


def followed(path):
    """The values of "data" if links are followed, read at first and after opening the array again."""
    with OPENERS[".h5"](path, follow_links=True) as variables:
        read, opened = variables["data"].read(), variables["data"].opened
    with opened() as array:
        assert np.array_equal(array[...], read)
    return read


# ---------------------------------------------------------------- values in other files


def test_virtual_datasets(tmp_path):
    path = tmp_path / "a.h5"
    written(tmp_path / "source.h5").close()
    with written(path, plain=False) as file:
        file["inner"] = values()
        virtual(file, "data", (".", "inner"))
    assert "virtual dataset" in refusal(path)
    assert np.array_equal(followed(path), values())
    with written(path, plain=False) as file:
        virtual(file, "data", ("source.h5", "data"))
    assert "virtual dataset" in refusal(path)
    assert np.array_equal(followed(path), values())


@pytest.mark.parametrize(
    "case",
    ["itself", "by its name", "through another", "through another file", "a circle of files", "no file", "pattern"],
)
def test_virtual_datasets_that_no_option_accepts(tmp_path, case):
    path = tmp_path / "a.h5"
    with written(path, plain=False) as file:
        if case in ("itself", "by its name"):
            virtual(file, "data", ("." if case == "itself" else "a.h5", "data"))
        elif case == "through another":
            virtual(file, "data", (".", "b"))
            virtual(file, "b", (".", "data"))
        elif case == "no file":  # HDF5 would give the fill value
            virtual(file, "data", ("missing.h5", "data"))
        elif case == "pattern":
            by_number(file, "data", b"b%b.h5")
        else:
            virtual(file, "data", ("b.h5", "data"))
    with written(tmp_path / "b.h5", plain=False) as file:
        file["plain"] = values()
        virtual(file, "data", ("a.h5", "data") if case == "a circle of files" else (".", "plain"))
    assert "virtual dataset" in refusal(path)
    with pytest.raises(InputError, match="and a source of one; accepted|accepted: existing files"):
        followed(path)


@pytest.mark.parametrize("name", ["mask", "epoch", "label", "Unit"])
def test_virtual_datasets_beside_the_data(tmp_path, name):
    with written(tmp_path / "a.h5") as file:
        virtual(file, name, (".", name), shape=SHAPE if name == "mask" else (5,))
    assert "virtual dataset" in refusal(tmp_path / "a.h5")


def test_external_storage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # HDF5 takes the names from there
    values().tofile(tmp_path / "values.bin")
    with written(tmp_path / "a.h5", plain=False) as file:
        place = [("values.bin", 0, values().nbytes)]
        file.create_dataset("data", shape=SHAPE, dtype="f4", external=place)
    assert "external files" in refusal(tmp_path / "a.h5")
    assert np.array_equal(followed(tmp_path / "a.h5"), values())
    (tmp_path / "values.bin").unlink()
    with pytest.raises(InputError):
        followed(tmp_path / "a.h5")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "values.bin")
        with pytest.raises(InputError, match="FIFO"):
            followed(tmp_path / "a.h5")


def test_external_links(tmp_path):
    path = tmp_path / "a.h5"
    with written(tmp_path / "b.h5") as file:
        file["group/data"] = values()
        file["again"] = h5py.ExternalLink("a.h5", "/again")
        virtual(file, "virtual", (".", "virtual"))
    for target in ("/data", "group/data", "group/.//data"):
        with written(path, plain=False) as file:
            file["data"] = h5py.ExternalLink("b.h5", target)
        assert "is a link to" in refusal(path)
        assert np.array_equal(followed(path), values())
    with written(path, plain=False) as file:
        file["way"] = h5py.ExternalLink("b.h5", "/group")
        file["data"] = h5py.SoftLink("/way/data")
        file["other"] = h5py.ExternalLink("missing.h5", "/data")
    assert "is a link to" in refusal(path)
    assert np.array_equal(followed(path), values())
    for target in ("again", "virtual", "nothing", "data/data", "group"):
        with written(path, plain=False) as file:
            file["data"] = h5py.ExternalLink("b.h5", target)
            file["again"] = h5py.ExternalLink("b.h5", "/again")
        refusal(path)
        with pytest.raises(InputError):
            followed(path)


def test_external_links_that_a_trace_does_not_use(tmp_path):
    with written(tmp_path / "a.h5") as file:
        file["other"] = h5py.ExternalLink("/dev/zero", "/data")
        file["another"] = h5py.SoftLink("/other/data")
        if hasattr(os, "mkfifo"):
            os.mkfifo(tmp_path / "fifo")
            file["fifo"] = h5py.ExternalLink("fifo", "/data")
    for stream in (False, True):
        assert np.array_equal(load_trace(tmp_path / "a.h5", stream=stream).load().data, as_trace(values()).data)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs")
def test_fifos(tmp_path):
    os.mkfifo(tmp_path / "fifo.h5")
    assert "FIFO" in refusal(tmp_path / "fifo.h5")
    with written(tmp_path / "a.h5", plain=False) as file:
        file["data"] = h5py.ExternalLink("fifo.h5", "/data")
    with pytest.raises(InputError, match="FIFO"):
        followed(tmp_path / "a.h5")


@streams
def test_soft_links_within_the_file(tmp_path, stream):
    with written(tmp_path / "a.h5", plain=False) as file:
        file["group/deep/values"] = values()
        file["group/way"] = h5py.SoftLink("deep")
        file["data"] = h5py.SoftLink("group/way/values")
        file["epoch"] = h5py.SoftLink("/group/numbers")
        file["group/numbers"] = [1, 2, 5, 9]
    trace = load_trace(tmp_path / "a.h5", stream=stream).load()
    assert np.array_equal(trace.data, as_trace(values()).data) and list(trace.epoch) == [1, 2, 5, 9]


@pytest.mark.parametrize("target", ["/nothing", "/data", "data", "/other", "/plain/data", "/", "", "/group"])
def test_soft_links_to_nowhere(tmp_path, target):
    with written(tmp_path / "a.h5", plain=False) as file:
        file["plain"] = values()
        file["other"] = h5py.SoftLink("/data")
        file.create_group("group")
        file["data"] = h5py.SoftLink(target or "/././.")
    refusal(tmp_path / "a.h5")


# ---------------------------------------------------------------- what means nothing to a trace


def test_attributes_of_datasets_that_a_trace_does_not_use(tmp_path):
    path = tmp_path / "a.h5"
    with written(path) as file:
        file["unrelated"] = np.zeros(3)
        file["unrelated"].attrs["CLASS"] = np.array(["a", "b"], object)
        file["other"] = np.zeros(3)
        file["other"].attrs["CLASS"] = "model description " * 100
        file["data"].attrs["CLASS"] = np.array(["a", "b"], object)
        file["data"].attrs["units"] = "v" * 2000
        file["data"].attrs["missing_value"] = np.arange(1000.0, 1100.0)
        file.id.links.create_soft(b"b\xffd", b"/data")
    assert load_trace(path).shape == SHAPE


def test_text_of_one_dataset_that_is_longer_than_any_name(tmp_path):
    with written(tmp_path / "a.h5") as file:
        file.create_dataset("unit", data=["x" * 100_000, "b", "c", "d", "e"], dtype=h5py.string_dtype())
    assert "one of 100000 characters" in refusal(tmp_path / "a.h5")


def test_sentences_for_common_mistakes(tmp_path):
    with written(tmp_path / "a.h5", plain=False) as file:
        file["data"] = h5py.SoftLink("/none")
    assert "the entry 'data' is a link to nothing" in refusal(tmp_path / "a.h5")
    (tmp_path / "b.h5").write_text("<html>")
    assert "is truncated or no HDF5 file" in refusal(tmp_path / "b.h5")
    with written(tmp_path / "c.h5", plain=False) as file:
        created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        created.set_chunk(SHAPE)
        created.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple(SHAPE)
        h5py.h5d.create(file.id, b"data", h5py.h5t.IEEE_F32LE, space, created)
    assert "the HDF5 filter 32001" in refusal(tmp_path / "c.h5")
