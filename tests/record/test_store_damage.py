"""What a damaged recording gives: one sentence that names epoch and file, or the snapshots that are left."""

from __future__ import annotations

import json
import pickle
import warnings

import numpy as np
import pytest

from mmphate_gpu import InputError, load_trace
from mmphate_gpu.trace.files import heading
from mmphate_gpu.trace.formats import recording

from .stores import add, recorded, resumed, same

streams = pytest.mark.parametrize("stream", [False, True])


@pytest.fixture
def folder(tmp_path):
    return recorded(tmp_path / "run", 0, 1, 2, 3, 4)


def alter(path, place=-1):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def swap(first, second):
    first.rename(first.with_suffix(".swapped"))
    second.rename(first)
    first.with_suffix(".swapped").rename(second)


def snapshot(folder, number):
    return folder / f"snapshot_{number:06d}.npy"


def other_shape(folder):
    np.save(snapshot(folder, 3), np.zeros((4, 5, 7), np.float32))


def other_dtype(folder):
    np.save(snapshot(folder, 3), np.zeros((4, 5, 6)))


# What happens to the folder; the epochs that are left; the sentence.
DAMAGES = {
    "an altered value": (lambda f: alter(snapshot(f, 2)), [0, 1, 3, 4], "epoch 2 (snapshot_000002.npy differs from"),
    "an altered header": (lambda f: alter(snapshot(f, 2), 0), [0, 1, 3, 4], "epoch 2 (snapshot_000002.npy is trunc"),
    "swapped files": (
        lambda f: swap(snapshot(f, 0), snapshot(f, 3)),
        [1, 2, 4],
        "that of epoch 0 (snapshot_000000.npy differs from its checksum), that of epoch 3 (snapshot_000003.npy differ",
    ),
    "a missing file": (lambda f: snapshot(f, 4).unlink(), [0, 1, 2, 3], "of epoch 4 (snapshot_000004.npy is missing)"),
    "a truncated file": (
        lambda f: snapshot(f, 1).write_bytes(snapshot(f, 1).read_bytes()[:-9]),
        [0, 2, 3, 4],
        "that of epoch 1 (snapshot_000001.npy is truncated: its values have 471 bytes)",
    ),
    "an empty file": (lambda f: snapshot(f, 1).write_bytes(b""), [0, 2, 3, 4], "of epoch 1 (snapshot_000001.npy is tr"),
    "another shape": (other_shape, [0, 1, 2, 4], "of epoch 3 (snapshot_000003.npy holds float32 of shape (4, 5, 7), a"),
    "another dtype": (other_dtype, [0, 1, 2, 4], "of epoch 3 (snapshot_000003.npy holds float64 of shape (4, 5, 6), a"),
    "an altered line": (
        lambda f: alter(f / recording.LIST, 12),
        [1, 2, 3, 4],
        "line 1 of snapshots.jsonl, which is that of snapshot_000000.npy",
    ),
    "lost lines": (
        lambda f: (f / recording.LIST).write_text("".join((f / recording.LIST).read_text().splitlines(True)[:3])),
        [0, 1, 2],
        "a snapshot is damaged: snapshot_000004.npy, which is not in snapshots.jsonl",
    ),
}


@streams
@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_snapshot_is_named_and_the_others_load(folder, name, stream):
    damage, left, sentence = DAMAGES[name]
    damage(folder)
    with pytest.raises(InputError) as caught:
        load_trace(folder, stream=stream)
    message = str(caught.value)
    assert sentence in message and message.startswith(str(folder)) and "\n" not in message
    assert message.endswith('accepted: intact snapshots, or damaged="skip", which loads the others')
    with pytest.warns(RuntimeWarning, match="left out") as warned:
        trace = load_trace(folder, stream=stream, damaged="skip")
    assert len(warned) == 1 and sentence.removeprefix("a snapshot is damaged: ") in str(warned[0].message)
    assert warned[0].filename == __file__ and same(trace, *left)


def test_an_intact_folder_gives_no_warning(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(load_trace(folder, damaged="skip"), 0, 1, 2, 3, 4)


def test_many_damaged_snapshots_are_counted(folder):
    for number in range(5):
        snapshot(folder, number).unlink()
    with pytest.raises(
        InputError, match=r"5 snapshots are damaged: .*epoch 2 \(snapshot_000002.npy is missing\) and 2 mo"
    ):
        load_trace(folder)
    with pytest.warns(RuntimeWarning), pytest.raises(InputError, match="holds no snapshot; accepted"):
        load_trace(folder, damaged="skip")


def test_the_header_alone_is_enough_to_plan(folder, monkeypatch):
    """No value is read for it, so no checksum is compared; files that are missing are missed."""
    alter(snapshot(folder, 2))
    assert heading(folder).shape == (5, 4, 5, 6)
    snapshot(folder, 2).unlink()
    with pytest.raises(InputError, match="snapshot_000002.npy is missing"):
        heading(folder)


@pytest.mark.parametrize("damaged", ["raise", "skip"])
def test_a_damaged_header_is_one_sentence_and_the_snapshots_stay(folder, damaged):
    meta = folder / recording.META
    text = meta.read_text()
    for changed, sentence in (
        (text.replace('"label": [0, 1', '"label": [1, 1'), r"meta\.json is damaged, as its checksum shows; accepted"),
        (text[: len(text) // 2], r"meta\.json cannot be read: JSONDecodeError"),
        (text.replace('"version": 2', '"version": 3'), "accepted: format 'mmphate-gpu recording', version 1 or 2"),
        ("", r"meta\.json cannot be read"),
    ):
        meta.write_text(changed)
        for read in (lambda: load_trace(folder, damaged=damaged), lambda: resumed(folder)):
            with pytest.raises(InputError, match=sentence) as caught:
                read()
            assert "\n" not in str(caught.value)
    meta.unlink()
    for read in (lambda: load_trace(folder, damaged=damaged), lambda: resumed(folder)):
        with pytest.raises(InputError, match=r"has lost its meta\.json; accepted"):
            read()
    meta.write_text(text)
    assert same(load_trace(folder), 0, 1, 2, 3, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [4, 5]}, "cannot be read"),
        ({"shape": [2**40, 2**40, 6]}, "mask has 24 bits"),
        ({"shape": [4, 6, 5]}, "mask has 24 bits|5 snapshots are damaged"),
        ({"mask": "!"}, "cannot be read|mask has"),
        ({"mask": "AAAAAA=="}, "mask has 32 bits; accepted: one for each of 4 timesteps and 6 samples"),
        ({"mask": 3}, "cannot be read"),
        ({"unit": [0, 1]}, "unit has shape"),
        ({"unit": {"a": 1}}, "unit"),
        ({"unit": ["a" * 100_000, "b", "c", "d", "e"]}, "unit holds 5 texts, one of 100000 characters"),
        ({"unit_layer": [["a", 2]]}, "unit_layer has shape"),
        ({"unit_layer": [["a", 10**15]]}, "unit_layer has shape"),
        ({"unit_layer": [["a", 10**15]], "shape": [1, 10**15, 1], "mask": None}, "5 snapshots are damaged"),
        ({"unit_layer": [["a", 10**30]]}, "cannot be read"),
        ({"unit_layer": 5}, "cannot be read"),
        ({"label": [0.5] * 6}, "label"),
        ({"timestep": "abc"}, "timestep"),
        ({"dtype": "object"}, "5 snapshots are damaged"),
        ({"version": True}, "differs|does not describe|cannot be read|no list"),
    ],
)
@streams
def test_a_header_that_says_other_things(folder, changes, message, stream):
    """Its checksum is right, as if somebody had made it."""
    meta = json.loads((folder / recording.META).read_text())
    text = json.dumps(recording.sealed(recording.unsealed(meta) | changes))
    (folder / recording.META).write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_trace(folder, stream=stream)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


@pytest.mark.parametrize(
    "entry",
    [
        {"file": "../run/snapshot_000001.npy"},
        {"file": None},
        {"file": "meta.json"},
        {"epoch": "1"},
        {"epoch": True},
        {"epoch": float("nan")},
        {"epoch": [1]},
        {"metrics": {"loss": "low"}},
        {"metrics": [1]},
        {"sha256": None},
        {"sha256": 7},
        {"more": 1},
    ],
)
def test_a_line_that_says_other_things(folder, entry):
    lines = (folder / recording.LIST).read_text().splitlines()
    lines[1] = json.dumps(recording.sealed(recording.unsealed(json.loads(lines[1])) | entry))
    (folder / recording.LIST).write_text("\n".join(lines) + "\n")
    if "more" in entry:  # a later version may say more
        assert same(load_trace(folder), 0, 1, 2, 3, 4)
        return
    with pytest.raises(InputError, match=r"line 2 of snapshots\.jsonl, which is that of snapshot_000001\.npy"):
        load_trace(folder)


@pytest.mark.parametrize("line", [b"[" * 100_000, b"\xff", b"", b"null", b"1" * 10_000, b'{"checksum": {}}'])
def test_a_line_that_is_none(folder, line):
    with (folder / recording.LIST).open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(InputError, match=r"line 6 of snapshots\.jsonl"):
        load_trace(folder)
    with pytest.warns(RuntimeWarning):
        assert same(load_trace(folder, damaged="skip"), 0, 1, 2, 3, 4)


def test_a_list_too_long_to_be_read(folder):
    with (folder / recording.LIST).open("r+b") as file:
        file.truncate(2**40)  # takes no space on the disk
    with pytest.raises(InputError, match=r"snapshots\.jsonl has 1099511627776 bytes; accepted: at most 268435456"):
        load_trace(folder)


def test_a_stream_can_be_sent_to_another_process_and_notices_changes(folder):
    trace = pickle.loads(pickle.dumps(load_trace(folder, stream=True)))
    assert same(trace, 0, 1, 2, 3, 4)
    alter(snapshot(folder, 2))
    with pytest.raises(InputError, match=r"snapshot_000002\.npy has changed"):
        trace.load()


def test_damaged_is_raise_or_skip(folder):
    for value in ("ignore", None, True):
        with pytest.raises(InputError, match=r"damaged=.* is unknown; accepted: 'raise', 'skip'"):
            load_trace(folder, damaged=value)


# ---------------------------------------------------------------- resume


@pytest.mark.parametrize("name", [name for name in DAMAGES if name != "lost lines"])
def test_a_damaged_snapshot_stays_listed_until_its_epoch_is_recorded_again(folder, name):
    damage, left, sentence = DAMAGES[name]
    damage(folder)
    with pytest.warns(RuntimeWarning, match="stay in the list until their epochs are recorded again") as warned:
        store = resumed(folder)
    assert len(warned) == 1 and sentence in str(warned[0].message) and store.epochs == left
    add(store, 5)
    with pytest.raises(InputError) as caught:
        store.trace()
    assert sentence in str(caught.value)
    if name == "an altered line":  # whose epoch nobody knows
        assert 'load_trace(path, damaged="skip"), which loads the other snapshots' in str(warned[0].message)
        add(store, 0)
        with pytest.raises(InputError, match="line 1 of snapshots"):
            load_trace(folder)
        with pytest.warns(RuntimeWarning, match="left out: line 1 of snapshots"):
            assert same(load_trace(folder, damaged="skip"), 1, 2, 3, 4, 5, 0)
        return
    assert "damaged line" not in str(warned[0].message)
    add(store, *({0, 1, 2, 3, 4} - {*left}))
    assert same(store.trace(), 0, 1, 2, 3, 4, 5)


def test_a_list_that_has_lost_lines_cannot_be_resumed(folder):
    DAMAGES["lost lines"][0](folder)
    with pytest.raises(InputError, match=r"snapshots\.jsonl has no line of snapshot_000004\.npy; accepted: another"):
        resumed(folder)
    assert snapshot(folder, 3).exists() and (folder / recording.LIST).read_text().count("\n") == 3


def test_the_command_line_says_the_same(folder, monkeypatch, capsys):
    from mmphate_gpu.cli import main

    alter(snapshot(folder, 2))
    monkeypatch.chdir(folder.parent)
    assert main(["embed", "run", "--out", "out", "--no-plots", "--device", "cpu"]) == 2
    assert "that of epoch 2 (snapshot_000002.npy differs from its checksum)" in capsys.readouterr().err
