"""Ablations of networks that have learned to read digits."""

import numpy as np
import pytest
from torch.nn import functional as F

from mmphate_gpu.analysis import ablate_timesteps, ablate_units
from mmphate_gpu.cli.demo import digits, train

DATA = digits()
EPOCHS = 6


@pytest.fixture(scope="module", params=["LSTM", "GRU", "RNN"])
def training(request):
    return train(DATA, epochs=EPOCHS, cell=request.param)


def test_the_last_row_of_an_image_is_what_the_head_reads(training):
    result = ablate_timesteps(training.model, "rnn", *DATA.test, states=training.states)
    assert result.loss.shape == (EPOCHS + 1, 8) and result.epoch.tolist() == list(range(EPOCHS + 1))
    # The intact runs are those of the training: float32, with batches of the same size.
    np.testing.assert_allclose(result.base_loss, training.trace.metrics["test_loss"], rtol=1e-5)
    np.testing.assert_allclose(result.base_accuracy, training.trace.metrics["test_accuracy"], rtol=1e-12)
    for epoch, weights in training.states.items():
        # Without the last state, the head gives its bias for every image.
        logits = weights["head.bias"].expand(len(DATA.test[1]), -1)
        assert result.loss[epoch, -1] == pytest.approx(F.cross_entropy(logits, DATA.test[1]).item(), rel=1e-5)
    assert result.base_accuracy[-1] > 0.3 and result.accuracy[-1, -1] < 0.15
    assert abs(result.loss_change[-1, 0]) < 0.2 * result.loss_change[-1, -1]  # the first row of most images is empty


def test_units_matter_after_the_training(training):
    """Before it, the losses without a unit differ by a few thousandths from that of an even guess."""
    states = {epoch: training.states[epoch] for epoch in (0, EPOCHS)}
    result = ablate_units(training.model, "rnn", *DATA.test, states=states, replacement="mean")
    assert result.epoch.tolist() == [0, EPOCHS] and result.loss.shape == (2, 20)
    assert (result.loss_change[1] > 0).all()
    assert np.abs(result.loss_change[1]).mean() > 5 * np.abs(result.loss_change[0]).mean()
