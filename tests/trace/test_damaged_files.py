"""Truncated .npz and .npy files, bytes that are no values, links, and FIFOs."""

from __future__ import annotations

import os
import zipfile

import numpy as np
import pytest

from mmphate_gpu import InputError, InputTypeError, load_trace, save_trace
from mmphate_gpu.embedding import Embedding
from mmphate_gpu.trace.formats import npy

from .headers import described, npy_bytes, of, recording, zipped
from .traces import SHAPE, streams, values

# ---------------------------------------------------------------- truncated members and files


@streams
def test_a_stored_member_shorter_than_its_header(tmp_path, stream):
    """Without the check, its last values would be bytes of the next member."""
    short = npy_bytes(described(SHAPE), values().tobytes()[:-80])
    path = zipped(tmp_path / "a.npz", zipfile.ZIP_STORED, data=short, epoch=of(np.arange(4)))
    with pytest.raises(InputError, match=r"the entry 'data' is truncated: its values have 3280 bytes"):
        load_trace(path, stream=stream)


@streams
# The offsets of the compressed and the uncompressed size in the central directory.
@pytest.mark.parametrize("place", [20, 24])
def test_a_directory_that_claims_more_than_an_entry_has(tmp_path, place, stream):
    """The header claims as many bytes as the directory, or the directory has two sizes for a stored member."""
    whole = npy_bytes(described(SHAPE), values().tobytes()[:-80])
    path = zipped(tmp_path / "a.npz", zipfile.ZIP_STORED, data=whole, epoch=of(np.arange(4)))
    raw = bytearray(path.read_bytes())
    at = raw.index(b"PK\x01\x02") + place
    size = int.from_bytes(raw[at : at + 4], "little") + 80
    raw[at : at + 4] = size.to_bytes(4, "little")
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"a\.npz"):
        load_trace(path, stream=stream)


@streams
def test_two_arrays_in_one_member(tmp_path, stream):
    path = zipped(tmp_path / "a.npz", zipfile.ZIP_STORED, data=of(values()) + of(values()))
    with pytest.raises(InputError, match=r"the entry 'data' has \d+ bytes after its values, by the directory"):
        load_trace(path, stream=stream)


def test_a_member_compressed_by_another_method(tmp_path):
    path = zipped(tmp_path / "a.npz", zipfile.ZIP_LZMA, data=of(values()))
    with pytest.raises(InputError, match="the entry 'data' has the compression method 14"):
        load_trace(path)


def test_a_file_that_is_truncated_while_it_is_read(tmp_path, monkeypatch):
    """If the file were memory-mapped, the process would be killed by SIGBUS."""
    np.save(tmp_path / "a.npy", np.zeros((50, 10, 10, 100)))
    plain = npy._fill

    def truncated(file, target, path):
        os.truncate(path, 10_000)
        plain(file, target, path)

    monkeypatch.setattr(npy, "_fill", truncated)
    with pytest.raises(InputError, match=r"a\.npy has changed, or was truncated, since it was opened"):
        load_trace(tmp_path / "a.npy", stream=False)


# ---------------------------------------------------------------- bytes that are no values of the dtype


@streams
def test_a_size_that_is_a_truth_value(tmp_path, stream):
    (tmp_path / "a.npy").write_bytes(
        npy_bytes("{'descr': '<f8', 'fortran_order': False, 'shape': (2, True, 2)}", bytes(32))
    )
    assert load_trace(tmp_path / "a.npy", stream=stream).load().shape == (2, 1, True, 2)


@streams
def test_bytes_that_are_no_booleans(tmp_path, stream):
    """Any nonzero byte is True, as in C; in torch a byte of 2 would count as both True and False."""
    mask = np.ones(SHAPE, np.uint8)
    mask[1, 2, 3, :] = [0, 1, 2, 3, 128, 255, 0]
    path = zipped(
        tmp_path / "a.npz",
        zipfile.ZIP_STORED,
        data=of(values()),
        mask=npy_bytes(described(SHAPE, "|b1"), mask.tobytes()),
    )
    trace = load_trace(path, stream=stream).load()
    assert np.array_equal(trace.mask.numpy().view(np.uint8), (mask != 0).view(np.uint8))


@pytest.mark.parametrize("order", "<>")
def test_text_that_is_not_unicode(tmp_path, order):
    unit = np.array(["a", "b", "c", "d", "e"], f"{order}U2")
    unit.view(f"{order}u4")[3] = 0x110000
    np.savez(tmp_path / "a.npz", data=values(), unit=unit)
    with pytest.raises(InputError, match=r"a\.npz.* holds text with a character beyond Unicode"):
        load_trace(tmp_path / "a.npz")


# ---------------------------------------------------------------- links and other files


needs_links = pytest.mark.skipif(os.name != "posix", reason="links and FIFOs of POSIX")


@needs_links
@streams
def test_a_fifo_is_refused(tmp_path, stream):
    for name in ("a.npy", "a.npz", "a.h5", "a.zarr"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(InputError, match=rf"{name} is a FIFO, a socket or a device"):
            load_trace(tmp_path / name, stream=stream)
    os.mkfifo(tmp_path / "embedding.npz")
    with pytest.raises(InputError, match="embedding.npz is a FIFO"):
        Embedding.load(tmp_path / "embedding.npz")
    folder = recording(tmp_path / "run", values()[0])
    (folder / "snapshot_0.npy").unlink()
    os.mkfifo(folder / "snapshot_0.npy")
    with pytest.raises(InputError, match=r"snapshot_0\.npy is a FIFO"):
        load_trace(folder, stream=stream)


@needs_links
@streams
def test_links_out_of_a_recording(tmp_path, stream):
    folder, other = recording(tmp_path / "run", *values()), recording(tmp_path / "other", *values())
    (folder / "snapshot_1.npy").unlink()
    (folder / "snapshot_1.npy").symlink_to(folder / "snapshot_2.npy")  # within the folder
    assert load_trace(folder, stream=stream).shape == SHAPE
    (folder / "snapshot_3.npy").unlink()
    (folder / "snapshot_3.npy").symlink_to(other / "snapshot_3.npy")
    with pytest.raises(InputError, match=r"snapshot_3\.npy is a link out of .*run to .*other.*follow_links=True"):
        load_trace(folder, stream=stream)
    assert load_trace(folder, stream=stream, follow_links=True).shape == SHAPE
    (folder / "snapshot_3.npy").unlink()
    (folder / "snapshot_3.npy").symlink_to(folder / "snapshot_3.npy")
    with pytest.raises(InputError, match=r"snapshot_3\.npy"):
        load_trace(folder, stream=stream)
    (folder / "snapshot_3.npy").unlink()
    (folder / "snapshot_3.npy").symlink_to(folder / "missing.npy")
    with pytest.raises(InputError, match=r"snapshot_3\.npy is a link to nothing"):
        load_trace(folder, stream=stream)


@needs_links
def test_a_link_to_nothing_is_named(tmp_path):
    (tmp_path / "a.npy").symlink_to(tmp_path / "a.npy")
    (tmp_path / "b.npy").symlink_to(tmp_path / "missing.npy")
    for name in ("a.npy", "b.npy"):
        with pytest.raises(InputError, match=rf"{name} is a link to nothing"):
            load_trace(tmp_path / name)


@needs_links
def test_the_path_itself_may_be_a_link(tmp_path):
    recording(tmp_path / "run", *values())
    save_trace(tmp_path / "b.npy", values())
    for link, target in (("latest", "run"), ("latest.npy", "b.npy")):
        (tmp_path / link).symlink_to(tmp_path / target)
        assert load_trace(tmp_path / link).shape == SHAPE


def test_follow_links_is_true_or_false(tmp_path):
    save_trace(tmp_path / "b.npy", values())
    with pytest.raises(InputTypeError, match="follow_links='no' is no bool; accepted: True or False"):
        load_trace(tmp_path / "b.npy", follow_links="no")
