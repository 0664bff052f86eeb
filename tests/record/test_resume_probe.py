"""A folder is continued with the probe and the options that it was begun with."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from mmphate_gpu import InputError, Recorder, load_trace
from mmphate_gpu.record.digest import digest_of
from mmphate_gpu.trace.formats import recording

from .cells import B, F, H, T, probe

X = probe()


def first(module, output):
    return output[0]


def second(module, output):
    return -output[0]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(F, H, num_layers=2, batch_first=True, bidirectional=True)

    def forward(self, x, scale=1.0):
        return self.rnn(x * scale)[0]


def record(path, epoch, x=X, **options):
    with Recorder(Net(), "rnn", x, path=path, resume=True, **options) as recorder:
        return recorder.snapshot(epoch)


@pytest.mark.parametrize(
    "other", [X + 1, X.flip(0), X.index_fill(0, torch.tensor(3), 0), (X, 2.0), {"x": X}, [X[:4], X[4:]]]
)
def test_another_probe_is_refused(tmp_path, other):
    record(tmp_path / "run", 0)
    message = r"recorded with another probe: that of this snapshot holds other values, or .*; accepted: the same probe"
    with pytest.raises(InputError, match=message):
        record(tmp_path / "run", 1, other)
    assert record(tmp_path / "run", 1, X.clone()) and record(tmp_path / "run", 2, X.numpy())
    assert load_trace(tmp_path / "run").epoch.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        ({"state": "h"}, {"state": "c"}, "state='h', and this snapshot has 'c'; accepted: the same state"),
        (
            {"state": first, "batch_first": True},
            {"state": second, "batch_first": True},
            "state='first', and this snapshot has 'second'; accepted: the same state, or another folder",
        ),
        ({"layer": 0}, {"layer": 1}, "layer='0', and this snapshot has '1'"),
        ({"direction": "forward"}, {"direction": "backward"}, "direction='forward', and this snapshot has 'backward'"),
        (
            {"state": first, "time_axis": 1},
            {"state": first, "time_axis": 0},
            "time_axis='1', and this snapshot has '0'",
        ),
    ],
)
def test_other_options_are_refused(tmp_path, before, now, message):
    square = probe(T)  # as many samples as time steps, so that the shapes are equal
    record(tmp_path / "run", 0, square, **before)
    with pytest.raises(InputError, match=f"was recorded with {message}"):
        record(tmp_path / "run", 1, square, **now)
    assert record(tmp_path / "run", 1, square, **before)


def test_a_folder_without_these_fields_is_continued(tmp_path):
    """Earlier versions did not write them."""
    record(tmp_path / "run", 0, state=first, batch_first=True)
    meta = tmp_path / "run" / recording.META
    header = recording.unsealed(json.loads(meta.read_text()))
    for name in ("probe", "state", "layer", "direction", "batch_first", "time_axis"):
        del header[name]
    meta.write_text(recording.header_text(header))
    assert record(tmp_path / "run", 1, X + 1, state=second, batch_first=True)
    assert load_trace(tmp_path / "run").epoch.tolist() == [0, 1]


# Values that are close to one another; each has another digest than all others.
DIFFERENT = [
    *(torch.zeros(4), torch.zeros(4, dtype=torch.float64), torch.zeros(8), torch.zeros(2, 2), torch.zeros(0)),
    *(torch.tensor([0, 0, 0, -0.0]), torch.zeros(8, dtype=torch.bfloat16), torch.zeros(2, dtype=torch.complex64)),
    *(torch.zeros(1), torch.zeros(()), torch.zeros(2, 2).to_sparse()),
    *([torch.zeros(4)], (torch.zeros(4),), [torch.zeros(4)] * 2, [[torch.zeros(4)]], {"a": torch.zeros(4)}),
    *({"b": torch.zeros(4)}, torch.nested.nested_tensor([torch.zeros(2, 2), torch.zeros(1, 2)], layout=torch.jagged)),
    *(pack_sequence([torch.zeros(2, 2), torch.zeros(1, 2)]), np.zeros(4), np.zeros(4, object), np.array(["a"])),
    *(0, 0.0, False, None, "0", b"0", np.float32(0), [], (), {}),
]


def test_digests_differ_where_values_do():
    assert len(set(map(digest_of, DIFFERENT))) == len(DIFFERENT)


def test_a_digest_is_that_of_the_values_alone():
    x = torch.complex(probe(), probe(B, 1))
    for left, right in (
        (X, X.mT.contiguous().mT),
        (X[:1], X[:1].clone().requires_grad_()),
        (torch.zeros(1, 2).expand(3, 2), torch.zeros(3, 2)),
        (x.conj(), x.conj().resolve_conj()),
        ({"a": 1, "b": X}, {"b": X, "a": 1}),
    ):
        assert digest_of(left) == digest_of(right)
