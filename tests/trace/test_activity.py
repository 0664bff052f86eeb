"""The most active class, by hand for each of the five definitions."""

import numpy as np
import pytest

from mmphate_gpu.analysis import most_active_class
from mmphate_gpu.errors import InputError
from mmphate_gpu.trace import as_trace, load_trace
from mmphate_gpu.trace.activity import STRENGTHS

LABEL = np.array([0, 0, 1, 1, 2, 2, 2, 2, 3, 3])
# Its mean is 0. Per class, the means are 3, -2, 0, -1, the sums of sizes 6, 6, 8, 2, the peaks 3, 5, 2, 1, and the sums
# of squares 18, 26, 16, 2.
CENTERED = np.array([3.0, 3, -5, 1, 2, -2, 2, -2, -1, -1])
# The z-scores are the same. The sums of sizes are 10, 6, 8, 2, and those of squares 50, 18, 32, 2.
RAISED = CENTERED + 2
EXPECTED = {"mean": [0, 0], "abs": [2, 2], "peak": [1, 1], "raw": [2, 0], "root": [1, 0]}


def trace(dtype=np.float64, label=LABEL):
    return as_trace(np.broadcast_to(np.stack([CENTERED, RAISED]).astype(dtype), (2, 2, 10)), label=label)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("strength", STRENGTHS)
def test_the_class_by_hand(strength, dtype):
    assert most_active_class(trace(dtype), strength).tolist() == EXPECTED[strength] * 2


def test_the_default_is_the_mean():
    assert most_active_class(trace()).tolist() == EXPECTED["mean"] * 2


@pytest.mark.parametrize("strength", STRENGTHS)
def test_a_masked_sample_does_not_count(strength):
    values = np.random.default_rng(0).normal(size=(3, 4, 10)) + 0.5
    spoiled, present = values.copy(), np.arange(10) != 6
    spoiled[..., 6] = 1e6
    masked = as_trace(spoiled, mask=np.broadcast_to(present, values.shape), label=LABEL)
    left = as_trace(values[..., present], label=LABEL[present])
    assert most_active_class(masked, strength).tolist() == most_active_class(left, strength).tolist()


@pytest.mark.parametrize("strength", STRENGTHS)
def test_a_class_without_present_samples_does_not_win(strength):
    values = np.random.default_rng(1).normal(size=(3, 4, 10))
    masked = as_trace(values, mask=np.broadcast_to(LABEL != 2, values.shape), label=LABEL)
    assert 2 not in most_active_class(masked, strength)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_a_trace_on_disk_has_the_same_classes(tmp_path, strength):
    np.savez(tmp_path / "a.npz", data=trace().data.numpy(), label=LABEL)
    streamed = load_trace(tmp_path / "a.npz", stream=True)
    assert most_active_class(streamed, strength).tolist() == EXPECTED[strength] * 2


def test_of_equally_active_classes_the_smallest_label_wins():
    dead = as_trace(np.ones((2, 3, 4)), label=[5, 4, 5, 4])
    assert {strength: set(most_active_class(dead, strength)) for strength in STRENGTHS} == dict.fromkeys(STRENGTHS, {4})


def test_without_labels_or_with_another_strength():
    assert most_active_class(trace(label=None), "abs") is None
    with pytest.raises(InputError, match="strength='sum' is unknown; accepted: 'mean', 'abs', 'peak', 'raw', 'root'"):
        most_active_class(trace(), "sum")


def test_an_array_has_no_classes():
    assert most_active_class(np.ones((2, 3, 4))) is None
