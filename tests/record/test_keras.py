"""`KerasRecorder` with Keras itself on torch: layers by their names, and that the training gets the same bits."""

from __future__ import annotations

import os
import pickle
import sys
from typing import Any

import numpy as np
import pytest
import torch

import mmphate_gpu.record.keras
from mmphate_gpu import InputError, KerasRecorder, every

os.environ.setdefault("KERAS_BACKEND", "torch")  # Keras reads it when it is imported
keras = pytest.importorskip("keras")
layers = keras.layers
X = np.random.default_rng(0).normal(size=(24, 7, 3)).astype("float32")
LABELS = np.arange(24) % 2
PROBE = X[:10]


def reader(recurrent: Any = layers.LSTM) -> Any:
    """A model with a Dropout and a BatchNormalization that a recorder may disturb, and with a model inside."""
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential([keras.Input((7, 6)), recurrent(4, return_sequences=True, name="rnn")], name="encoder")
    model = keras.Sequential(
        [
            keras.Input((7, 3)),
            recurrent(6, return_sequences=True, name="first"),
            layers.Dropout(0.5),
            layers.BatchNormalization(),
            encoder,
            recurrent(5, name="second"),
            layers.Dense(4, activation="relu", name="dense"),
            layers.Dense(2, name="head"),
        ]
    )
    return compiled(model)


def compiled(model: Any) -> Any:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    return model


def fitted(*callbacks: Any, model: Any = None, epochs: int = 2, **options: Any) -> list[np.ndarray]:
    """The weights after a fit with 3 steps an epoch."""
    model = reader() if model is None else model
    model.fit(X, LABELS, epochs=epochs, batch_size=8, verbose=0, callbacks=list(callbacks), **options)
    return [np.array(weight) for weight in model.get_weights()]


def test_a_recorder_is_a_callback():
    callback = KerasRecorder("first", PROBE)
    assert isinstance(callback, keras.callbacks.Callback) and isinstance(callback, KerasRecorder)


@pytest.mark.parametrize(
    ("recurrent", "when", "numbers"),
    [(layers.LSTM, "epoch", [0, 1, 2]), (layers.GRU, "step", list(range(7))), (layers.SimpleRNN, "epoch", [0, 1, 2])],
    ids=["LSTM", "GRU", "SimpleRNN"],
)
def test_snapshots_are_taken_when_asked_and_change_no_bit(recurrent, when, numbers):
    callback = KerasRecorder(["first", "encoder.rnn", "second"], PROBE, when=when, labels=LABELS[:10])
    weights, without = fitted(callback, model=reader(recurrent)), fitted(model=reader(recurrent))
    assert all(map(np.array_equal, weights, without))
    trace = callback.trace()
    assert trace.epoch.tolist() == numbers and trace.shape[1:] == (7, 15, 10)
    assert trace.unit_layer.tolist() == ["first"] * 6 + ["encoder.rnn"] * 4 + ["second"] * 5


def states(model: Any, name: str) -> np.ndarray:  # (10, n, units), or (10, units)
    """What the layer ``name`` of a `reader` returns for the probe, computed layer by layer, with every time step."""
    values: Any = keras.ops.convert_to_tensor(PROBE)
    for layer in model.layers:
        if layer.name == name.partition(".")[0]:
            break
        values = layer(values, training=False)
    if not getattr(layer, "return_sequences", True):
        last_only, layer = layer, type(layer)(layer.units, return_sequences=True)
        layer.build(values.shape)
        layer.set_weights(last_only.get_weights())
    return layer(values, training=False).detach().cpu().numpy()


@pytest.mark.parametrize("name", ["first", "encoder.rnn", "second", "dense", "head"])
def test_values_are_those_of_the_layers(name):
    model = reader()
    callback = KerasRecorder(name, PROBE)
    fitted(callback, model=model)
    expected = states(model, name)
    expected = expected.reshape(10, -1, expected.shape[-1]).transpose(1, 2, 0)
    data = callback.trace().data[-1].numpy()
    assert data.shape == expected.shape
    np.testing.assert_allclose(data, expected, atol=1e-6)  # a loop over the steps may sum in another order


def test_a_layer_that_returns_its_last_step_still_does():
    model = reader()
    before = model.predict(PROBE, verbose=0)
    callback = KerasRecorder("second", PROBE)
    fitted(callback, model=model, epochs=0)
    callback.set_model(model)
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    assert not model.get_layer("second").return_sequences
    assert np.array_equal(model.predict(PROBE, verbose=0), before)
    assert callback.trace().shape == (1, 7, 5, 10)


def test_a_bidirectional_layer_with_its_last_step_only_is_refused():
    wrapped = layers.Bidirectional(layers.GRU(3), name="both")
    model = compiled(keras.Sequential([keras.Input((7, 3)), wrapped, layers.Dense(2)]))
    with pytest.raises(InputError, match="'both' is a Bidirectional .*accepted: return_sequences=True"):
        fitted(KerasRecorder("both", PROBE), model=model)


def test_a_bidirectional_layer_has_the_units_of_both_directions():
    wrapped = layers.Bidirectional(layers.GRU(3, return_sequences=True), name="both")
    model = compiled(keras.Sequential([keras.Input((7, 3)), wrapped, layers.GRU(2)]))
    callback = KerasRecorder("both", PROBE)
    fitted(callback, model=model)
    expected = wrapped(keras.ops.convert_to_tensor(PROBE)).detach().cpu().numpy()
    assert np.array_equal(callback.trace().data[-1].numpy(), expected.transpose(1, 2, 0))


def test_a_stateful_layer_goes_on_to_the_same_bits():
    def model() -> Any:
        keras.utils.set_random_seed(0)
        rnn = layers.SimpleRNN(4, stateful=True, return_sequences=True, name="rnn")  # stateful LSTMs fail in 3.15
        return compiled(keras.Sequential([keras.Input((7, 3), batch_size=8), rnn, layers.GRU(2)]))

    callback = KerasRecorder("rnn", X[:8], when="step")
    weights, without = fitted(callback, model=model()), fitted(model=model())
    assert all(map(np.array_equal, weights, without))
    assert callback.trace().shape == (7, 7, 4, 8)


def test_a_model_of_a_class_with_two_inputs():
    class Two(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = layers.GRU(4, name="rnn"), layers.Dense(2)

        def call(self, inputs: Any) -> Any:
            left, right = inputs
            return self.head(self.rnn(left + right))

    model = compiled(Two())
    callback = KerasRecorder("rnn", (PROBE, PROBE))
    model.fit((X, X), LABELS, epochs=1, batch_size=8, verbose=0, callbacks=[callback])
    assert callback.trace().shape == (2, 7, 4, 10)


def test_a_probe_with_names():
    left, right = (keras.Input((7, 3), name=name) for name in ("left", "right"))
    sums = layers.GRU(4, name="rnn")(layers.Add()([left, right]))
    model = compiled(keras.Model({"left": left, "right": right}, layers.Dense(2)(sums)))
    callback = KerasRecorder("rnn", {"left": PROBE, "right": PROBE})
    model.fit({"left": X, "right": X}, LABELS, epochs=1, batch_size=8, verbose=0, callbacks=[callback])
    assert callback.trace().shape == (2, 7, 4, 10)


def test_a_convolution_with_channels_first():
    model = compiled(
        keras.Sequential(
            [
                keras.Input((3, 7)),
                layers.Permute((2, 1)),
                layers.Conv1D(4, 3, padding="same", name="conv"),
                layers.Permute((2, 1), name="turned"),
                layers.Flatten(),
                layers.Dense(2),
            ]
        )
    )
    turned = X.transpose(0, 2, 1)
    first, last = KerasRecorder("conv", turned[:10]), KerasRecorder("turned", turned[:10], time_axis=2)
    model.fit(turned, LABELS, epochs=1, batch_size=8, verbose=0, callbacks=[first, last])
    assert torch.equal(first.trace().data, last.trace().data) and first.trace().shape == (2, 7, 4, 10)


def test_a_schedule_and_metrics():
    callback = KerasRecorder("first", PROBE, when="step", epochs=every(3))
    fitted(callback)
    trace = callback.trace()
    assert trace.epoch.tolist() == [0, 3, 6]
    assert set(trace.metrics) == {"loss", "accuracy"} and np.isnan(trace.metrics["loss"][0])


def test_metrics_of_the_validation_are_kept():
    callback = KerasRecorder("first", PROBE)
    model = reader()
    history = model.fit(X, LABELS, epochs=2, batch_size=8, verbose=0, callbacks=[callback], validation_data=(X, LABELS))
    assert callback.trace().metrics["val_loss"][1:].tolist() == history.history["val_loss"]


def test_a_second_fit_of_the_model_goes_on():
    callback, model = KerasRecorder("first", PROBE), reader()
    fitted(callback, model=model)
    fitted(callback, model=model, epochs=4, initial_epoch=2)
    assert callback.trace().epoch.tolist() == [0, 1, 2, 3, 4]


def test_an_unknown_layer_is_refused_with_the_names_of_keras():
    with pytest.raises(InputError, match="'third' is no module of the model.*'encoder.rnn'"):
        fitted(KerasRecorder("third", PROBE))


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(InputError, match="backend 'jax'; accepted: 'torch', with KERAS_BACKEND=torch"):
        KerasRecorder("first", PROBE)


def test_a_backend_that_is_not_installed_is_refused(monkeypatch):
    def require(*_: Any, **__: Any) -> Any:
        raise InputError("no keras") from ModuleNotFoundError("No module named 'tensorflow'")

    monkeypatch.setattr(mmphate_gpu.record.keras, "require", require)
    with pytest.raises(InputError, match="No module named 'tensorflow'.*KERAS_BACKEND=torch"):
        KerasRecorder("first", PROBE)


def test_without_keras_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    monkeypatch.setattr(mmphate_gpu.record.keras, "available", lambda name: False)
    with pytest.raises(InputError, match=r'KerasRecorder needs .*pip install "mmphate-gpu\[keras\]"'):
        KerasRecorder("first", PROBE)


def test_a_callback_can_be_pickled_before_a_fit():
    callback = pickle.loads(pickle.dumps(KerasRecorder("first", PROBE)))
    fitted(callback)
    assert callback.trace().shape == (3, 7, 6, 10)
