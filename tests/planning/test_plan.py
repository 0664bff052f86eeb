"""Plans for a device by its name, the form that a plan chooses, and what a refusal advises."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmphate_gpu import InputError, plan
from mmphate_gpu.params import Params
from mmphate_gpu.planning.plan import LEAST, plan_run
from mmphate_gpu.planning.sample import Entries

CPU = torch.device("cpu")
HAR = (127, 128, 30, 6)


def test_a_card_has_the_memory_in_its_name_and_no_other(monkeypatch):
    monkeypatch.setenv("MMPHATE_GPU_MEMORY_LIMIT", "1000")
    planned = plan(HAR, device="7.5 GB card")
    assert planned.available_bytes == 7_500_000_000
    # The trace of a shape is copied to the card.
    options = {"dtype": torch.float32, "device": torch.device("cuda"), "available": 10**9, "entries": Entries()}
    on_device = plan_run(HAR, Params(), card="x", **options)
    assert planned.stages[0].peak_bytes - on_device.stages[0].peak_bytes == 4 * 127 * 128 * 30 * 6


@pytest.mark.parametrize("device", ["24 GB", "GB card", "0 GB card", "-3 GB card", "24 TB card", "card"])
def test_what_is_no_card(device):
    with pytest.raises(InputError, match=re.escape(f"device={device!r}")):
        plan(HAR, device=device)


def test_the_form_and_why():
    on_card = {"device": "12 GB card"}
    assert plan(HAR, active_share=0.1, active_tiles=0.4, **on_card).storage == "tiles"
    assert plan(HAR, active_share=0.02, active_tiles=1, **on_card).storage == "sparse"  # the tiles would not fit
    assert plan(HAR, active_share=0.3, active_tiles=1, **on_card).storage == "lazy"
    assert plan(HAR, storage="tiles", **on_card).why == "as asked for"
    text = str(plan(HAR, **on_card))
    assert "affinity: tiles, which takes 3.9 GiB for 0.27 of the pairs and leaves room for the rest" in text
    assert "fp16 tiles" in text and "128 tiles" in text and "at once" in text
    assert "matrix-free" in str(plan(HAR, storage="lazy", **on_card))


# ---------------------------------------------------------------- refusals, and what they advise


CAPS = [10.0**exponent for exponent in np.arange(5.5, 11, 0.25)]


@pytest.mark.parametrize("storage", ["auto", "sparse", "lazy"])
@pytest.mark.parametrize("shape", [HAR, (200, 1, 5, 4), (20, 20, 10, 5000), (100, 1, 50, 25)])
def test_what_a_refusal_advises_helps(settings_named, shape, storage):
    advised, worst = 0, set()
    for cap in CAPS:
        options = {"dtype": torch.float32, "device": CPU, "available": int(cap), "entries": Entries()}
        p = Params(storage=storage)
        planned = plan_run(shape, p, **options)
        if planned.fits:
            continue
        worst.add(max(planned.stages, key=lambda stage: stage.peak_bytes).stage)
        with pytest.raises(InputError, match=re.escape(planned.remedy)):
            planned.check()
        for settings in settings_named(planned.remedy):
            advised += 1
            changed = replace(p, **settings)
            assert plan_run(shape, changed, **options).fits
            assert all(getattr(changed, name) != getattr(p, name) for name in settings)
        if "Trace.subsample" in planned.remedy:
            fewer = (max(1, shape[0] // 2), *shape[1:])
            assert plan_run(fewer, p, **options).peak_bytes < planned.peak_bytes
    assert advised and worst


def test_a_refusal_names_no_more_than_has_to_change():
    """The matrix-free form takes a little too much. It fits with half the vectors and all the landmarks."""
    options = {"dtype": torch.float32, "device": CPU, "entries": LEAST._replace(interslice=0.3)}
    lean = plan_run(HAR, Params(storage="lazy"), available=10**12, **options).peak_bytes
    planned = plan_run(HAR, Params(storage="sparse"), available=lean - 1, **options)
    assert planned.remedy == 'by plan it fits with storage="lazy" and a smaller n_svd=50 together'


def test_a_counted_run_is_not_refused_for_what_it_does_not_take():
    """HAR size: 8.6 GB of CSR, and a measured peak of 12.9 GB, of which transitions are a small part."""
    counted = LEAST._replace(interslice=0.136)
    options = {"dtype": torch.float32, "device": CPU, "available": 14 * 10**9, "entries": counted}
    planned = plan_run(HAR, Params(storage="sparse"), **options)
    assert planned.fits and {stage.stage: stage for stage in planned.stages}["landmarks"].bytes < 5e8


def test_given_landmarks_are_not_advised_to_be_fewer():
    labels = np.arange(1000) % 500
    options = {"dtype": torch.float32, "device": CPU, "entries": LEAST}
    planned = plan_run((200, 1, 5, 4), Params(landmarks=labels), available=10**6, **options)
    assert not planned.fits and "n_landmark" not in planned.remedy and "n_svd" not in planned.remedy
    cheap = plan_run((200, 1, 5, 4), Params(landmarks="stratified", n_landmark=500), available=10**6, **options)
    assert not cheap.fits and "n_svd" not in cheap.remedy


def test_a_run_that_no_setting_makes_fit_is_thinned():
    """Recorded with ``timesteps=slice(None, None, 2)``, it fits on a card of 24 GB."""
    shape = (500, 100, 128, 64)
    planned = plan(shape, device="24 GB card")
    words = "by plan it fits if thinned to every 2nd timestep (Trace.subsample(timesteps=slice(None, None, 2)))"
    assert not planned.fits and planned.remedy.startswith(words) and words in str(planned)
    assert plan((500, 50, 128, 64), device="24 GB card").fits


@pytest.mark.parametrize("share", [0.5, 0.3, 0.12, 0.07])
def test_thinning_is_the_least_that_fits(share):
    options = {"dtype": torch.float32, "device": CPU, "entries": LEAST}
    p = Params(landmarks=np.arange(40 * 30 * 6) % 500, n_landmark=500)
    shape = (40, 30, 6, 4)
    free = int(share * plan_run(shape, p, available=10**12, **options).peak_bytes)
    remedy = plan_run(shape, p, available=free, **options).remedy
    steps = {name: int(step) for name, step in re.findall(r"(\w+)s=slice\(None, None, (\d+)\)", remedy)}
    for place, name in enumerate(("epoch", "timestep")):
        sizes = [-(-shape[place] // step) for step in range(2, 17)]
        shapes = [tuple(size if axis == place else shape[axis] for axis in range(4)) for size in sizes]
        fits = [step for step, fewer in enumerate(shapes, 2) if plan_run(fewer, p, available=free, **options).fits]
        assert steps.get(name) == (fits[0] if fits else None)
