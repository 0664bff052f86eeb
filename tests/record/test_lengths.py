"""Sequences that end early: by lengths, by a mask, by a keyword of the model, and by what the layer returns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from mmphate_gpu import InputError, Recorder

from .cells import B, F, H, T, probe

X, LENGTHS = probe(), torch.tensor([2, 5, 3, 5, 1, 4])
PRESENT = torch.arange(T) < LENGTHS[:, None]  # (P, T)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.rnn = nn.GRU(F, H, batch_first=True)

    def forward(self, x, padded=None):
        return self.rnn(x)[0]


def recorded(probe=X, **options):
    with Recorder(Net(), "rnn", probe, **options) as recorder:
        recorder.snapshot(0)
        recorder.snapshot(1)
    return recorder.trace()


SAID = {
    "lengths": lambda: {"lengths": LENGTHS},
    "a list of lengths": lambda: {"lengths": LENGTHS.tolist()},
    "a mask": lambda: {"mask": PRESENT},
    "a mask of 0 and 1": lambda: {"mask": PRESENT.long().numpy()},
    "a keyword": lambda: {"probe": {"x": X, "padded": ~PRESENT}, "padding_mask": "padded"},
    "a keyword of batches": lambda: {
        "probe": [{"x": X[:2], "padded": ~PRESENT[:2]}, {"x": X[2:], "padded": ~PRESENT[2:]}],
        "padding_mask": "padded",
    },
    "all of them": lambda: {
        "probe": {"x": X, "padded": ~PRESENT},
        "padding_mask": "padded",
        "lengths": LENGTHS,
        "mask": PRESENT,
    },
    "a packed sequence": lambda: {"probe": pack_padded_sequence(X, LENGTHS, batch_first=True, enforce_sorted=False)},
    "batches of other lengths": lambda: {"probe": [X[:1, :2], X[1:]], "lengths": LENGTHS},
}


@pytest.mark.parametrize("how", SAID)
def test_what_is_beyond_the_end_is_missing(how):
    trace = recorded(**SAID[how]())
    assert torch.equal(trace.mask, PRESENT.T[None, :, None].expand(2, T, H, B))
    with torch.no_grad():
        whole = Net().rnn(X)[0].permute(1, 2, 0)
    expected = torch.where(PRESENT.T[:, None], whole, 0)
    torch.testing.assert_close(trace.data, torch.stack([expected, expected]), rtol=0, atol=1e-6)


def test_a_value_is_present_if_all_say_so():
    other = torch.ones(B, T, dtype=torch.bool)
    other[:, 0] = False
    trace = recorded(
        pack_padded_sequence(X, LENGTHS, batch_first=True, enforce_sorted=False), mask=other, lengths=[4] * B
    )
    assert torch.equal(trace.mask[0, :, 0], (PRESENT & other & (torch.arange(T) < 4)).T)


def test_time_steps_that_are_left_out_leave_the_mask_too():
    trace = recorded(lengths=LENGTHS, timesteps=slice(None, None, 2))
    assert torch.equal(trace.mask[0, :, 0], PRESENT.T[::2])


def test_what_is_missing_may_be_anything():
    x = X.clone()
    x[~PRESENT] = float("nan")
    trace = recorded(x, lengths=LENGTHS, dtype="float16")
    assert (trace.data[~trace.mask] == 0).all() and trace.data[trace.mask].isfinite().all()


def test_a_transformer_with_its_padding_mask():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    x, padded = torch.randn(3, 5, 4), torch.arange(5) >= torch.tensor([5, 2, 4])[:, None]
    with Recorder(
        model, "layers.1", {"src": x, "src_key_padding_mask": padded}, padding_mask="src_key_padding_mask"
    ) as r:
        r.snapshot(0)
    trace = r.trace()
    assert torch.equal(trace.mask[0, :, 0], ~padded.T)
    with torch.no_grad():
        alone = model.eval()(x[1:2, :2])  # without padding
    torch.testing.assert_close(trace.data[0, :2, :, 1], alone[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"lengths": LENGTHS[:3]},
            r"lengths has shape \(3,\) and goes up to 5; accepted: a length of 0 to 5 for each of",
        ),
        ({"lengths": LENGTHS + 1}, "goes up to 6"),
        ({"lengths": LENGTHS / 2}, "lengths has shape .* dtype float32; accepted: one whole number"),
        ({"lengths": -LENGTHS}, "lengths has shape"),
        ({"lengths": PRESENT}, "lengths has shape"),
        ({"mask": PRESENT.T}, r"mask has shape \(5, 6\); accepted: \(sample, timestep\) = \(6, 5\).*swapped"),
        ({"mask": PRESENT[:, :3]}, r"mask has shape \(6, 3\); accepted"),
        ({"mask": LENGTHS}, r"mask has shape \(6,\) and dtype int64; accepted: booleans or 0 and 1"),
        ({"mask": PRESENT * 0.5}, "dtype float32; accepted: booleans or 0 and 1"),
        ({"padding_mask": "padded"}, "padding_mask='padded' is no keyword of the probe, which has none; accepted"),
        ({"probe": {"x": X}, "padding_mask": "padded"}, r"is no keyword of the probe, which has \['x'\]"),
        ({"probe": {"x": X, "padded": PRESENT.long()}, "padding_mask": "padded"}, "is given as mask="),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        recorded(**options)


def test_a_mask_may_be_longer_where_nothing_is_present():
    longer = np.pad(PRESENT.numpy(), ((0, 0), (0, 3)))
    assert torch.equal(recorded(mask=longer).mask, recorded(mask=PRESENT).mask)
    longer[0, -1] = True
    with pytest.raises(InputError, match=r"mask has shape \(6, 8\)"):
        recorded(mask=longer)
