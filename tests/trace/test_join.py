"""`join_traces`: the parts of a run make the trace of the run."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
import torch

from mmphate_gpu.errors import InputError, InputTypeError
from mmphate_gpu.trace import as_trace, join_traces, load_trace, save_trace, stored
from mmphate_gpu.trace.stored import StoredArray

from .traces import full_mask, lengths_mask, same, streams, values

LONG = (9, 3, 5, 7)
EPOCHS = np.array([0, 1, 2, 5, 10, 20, 50, 100, 200])


def run(mask=None, **fields):
    fields = {"unit": list("abcde"), "label": np.arange(7) % 2, "unit_layer": list("xxyyy")} | fields
    metrics = {"loss": np.linspace(1, 0, 9), "accuracy": np.arange(9)}
    return as_trace(values(LONG), mask=mask, epoch=EPOCHS, metrics=metrics, **fields)


def parts_of(trace, *bounds):
    return [trace.subsample(epochs=slice(start, stop)) for start, stop in bounds]


def as_files(folder, parts, stream):
    """The parts as they are, or in files of which none is read at once."""
    if not stream:
        return parts
    endings = (".h5", ".zarr", ".npz")
    paths = [folder / f"part{number}{endings[number % 3]}" for number, _ in enumerate(parts)]
    for path, part in zip(paths, parts, strict=True):
        save_trace(path, part)
    return [load_trace(path, stream=True) for path in paths]


@streams
@pytest.mark.parametrize("mask", [None, full_mask(LONG), lengths_mask()], ids=["plain", "full mask", "short mask"])
def test_the_parts_of_a_run_make_the_run(tmp_path, monkeypatch, mask, stream):
    monkeypatch.setattr(stored, "BLOCK_ELEMENTS", 50)  # blocks end within epochs, and within slices
    trace = run(mask)
    parts = as_files(tmp_path, parts_of(trace, (0, 4), (4, 5), (5, 9)), stream)
    joined = join_traces(parts)
    assert isinstance(joined.data, StoredArray) == stream
    same(joined, trace)
    same(join_traces(parts[::-1]), trace)  # epochs come in ascending order
    same(pickle.loads(pickle.dumps(joined)), trace)
    for units in (slice(1, 4), slice(4, None)):
        same(joined.subsample(epochs=[1, 6], units=units), trace.subsample(epochs=[1, 6], units=units))


@streams
def test_of_a_run_that_went_on_from_a_checkpoint_the_later_trace_wins(tmp_path, stream):
    before, after = parts_of(run(), (0, 6), (4, 9))
    stale = as_trace(before.data + torch.tensor([0, 0, 0, 0, 9, 9.0])[:, None, None, None], **fields_of(before))
    same(join_traces(as_files(tmp_path, [stale, after], stream), overlap="last"), run())
    sentence = "traces[1] holds the epoch 10, which traces[0] holds too; accepted: each epoch once, or overlap='last'"
    with pytest.raises(InputError, match=re.escape(sentence)):
        join_traces([before, after])
    with pytest.raises(InputError, match=re.escape("traces[0] holds the epoch 3, which traces[0] holds too")):
        join_traces([as_trace(values(), epoch=[1, 3, 3, 4])])


def fields_of(trace):
    return {name: getattr(trace, name) for name in ("epoch", "unit", "label", "unit_layer", "metrics")}


@streams
def test_layers_recorded_apart_make_one_trace(tmp_path, stream):
    """Units of two layers may have the same coordinates."""
    trace = run(full_mask(LONG), unit=[0, 1, 0, 1, 2])
    parts = as_files(tmp_path, [trace.subsample(units=slice(0, 2)), trace.subsample(units=slice(2, 5))], stream)
    same(join_traces(parts, axis="unit"), trace)
    same(join_traces(parts[::-1], axis="unit"), trace.subsample(units=[2, 3, 4, 0, 1]))
    with pytest.raises(InputError, match=re.escape("traces[1] holds the unit 0, which traces[0] holds too")):
        join_traces([parts[0], parts[0]], axis="unit")


def test_a_metric_is_missing_where_a_trace_lacks_it():
    first, second = parts_of(run(), (0, 2), (2, 4))
    joined = join_traces([as_trace(first, metrics={"loss": [1, 2]}), as_trace(second, metrics={"error": [3, 4]})])
    assert np.array_equal(joined.metrics["loss"], [1, 2, np.nan, np.nan], equal_nan=True)
    assert np.array_equal(joined.metrics["error"], [np.nan, np.nan, 3, 4], equal_nan=True)


def test_a_trace_without_a_mask_has_all_its_values():
    first, second = parts_of(run(full_mask(LONG)), (0, 4), (4, 9))
    joined = join_traces([first, as_trace(second.data, **fields_of(second))])
    assert torch.equal(joined.mask[:4], first.mask) and bool(joined.mask[4:].all())


def test_a_mask_of_time_steps_stays_small():
    joined = join_traces(parts_of(run(lengths_mask()), (0, 4), (4, 9)))
    assert joined.mask.untyped_storage().nbytes() == lengths_mask().size
    shorter = lengths_mask() & (np.arange(7) != 3)
    other = join_traces([*parts_of(run(lengths_mask()), (0, 4)), *parts_of(run(shorter), (4, 9))])
    assert other.mask.untyped_storage().nbytes() == 9 * lengths_mask().size  # one for each epoch, none for each unit
    assert torch.equal(
        other.mask[:, :, 0].unique(dim=0).sort(dim=0)[0], torch.tensor(np.stack([shorter, lengths_mask()]))
    )


def test_types_join_without_loss():
    single = as_trace(values(dtype=np.float32), epoch=np.arange(4))
    double = as_trace(values(), epoch=np.arange(4) + 4.5)
    joined = join_traces([single, double])
    assert joined.data.dtype == torch.float64 and joined.epoch.tolist() == [0, 1, 2, 3, 4.5, 5.5, 6.5, 7.5]
    halves = [as_trace(values(dtype=np.float16), epoch=np.arange(4) + start) for start in (0, 4)]
    assert join_traces(halves).recorded == torch.float16 and join_traces([halves[0], double]).recorded is None


def test_text_keeps_its_order_and_dates_ascend():
    names = join_traces(
        [as_trace(values(), epoch=list("dcba")), as_trace(values() + 1, epoch=list("aefg"))], overlap="last"
    )
    assert "".join(names.epoch) == "dcbaefg" and torch.equal(names.data[3], torch.from_numpy(values()[0] + 1))
    days = np.array(["2024-01-05", "2024-01-06", "2024-01-07", "2024-01-08"], "M8[D]")
    dates = join_traces([as_trace(values(), epoch=days), as_trace(values(), epoch=days - 4)])
    assert (np.diff(dates.epoch) == np.timedelta64(1, "D")).all()


def test_slices_join_along_their_axis():
    whole = as_trace(values((8, 5, 7)), epoch=np.arange(8), mask=full_mask((8, 5, 7)))
    same(join_traces(parts_of(whole, (3, 8), (0, 3))), whole)


def test_paths_are_loaded(tmp_path):
    parts = parts_of(run(), (0, 4), (4, 9))
    for number, part in enumerate(parts):
        save_trace(tmp_path / f"{number}.npz", part)
    same(join_traces([tmp_path / "0.npz", str(tmp_path / "1.npz")]), run())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"timestep": [0, 1, 4]}, "timestep is 4 at index 2, not 2 as in traces[0]"),
        ({"timestep": list("abc")}, "timestep has dtype <U1, not int64 as in traces[0]"),
        ({"sample": [0, 9, 2, 3, 4, 5, 6]}, "sample is 9 at index 1, not 1 as in traces[0]"),
        ({"unit": list("abcdé")}, "unit is é at index 4, not e as in traces[0]"),
        ({"label": np.zeros(7)}, "label is 0 at index 1, not 1 as in traces[0]"),
        ({"unit_layer": list("xyyyy")}, "unit_layer is y at index 1, not x as in traces[0]"),
        ({"epoch": list("fghi")}, "epoch has dtype <U1, not int64 as in traces[0]"),
    ],
)
def test_traces_that_differ_are_refused(change, sentence):
    first, second = parts_of(run(), (0, 5), (5, 9))
    with pytest.raises(InputError, match=re.escape(f"traces[1]: {sentence}; accepted: the same in all traces")):
        join_traces([first, as_trace(second, **change)])


def test_other_sizes_axes_and_kinds_are_refused(tmp_path):
    first, second = parts_of(run(), (0, 5), (5, 9))
    for other, sentence in {
        second.subsample(timesteps=[0, 1]): "timestep has 2 entries, not 3 as in traces[0]",
        second.subsample(samples=[0, 1]): "sample has 2 entries, not 7 as in traces[0]",
        as_trace(second.data, unit=second.unit, epoch=second.epoch): "label is missing, not as in traces[0]",
        second.to(torch.device("meta")): "device is meta, not cpu as in traces[0]",
    }.items():
        with pytest.raises(InputError, match=re.escape(f"traces[1]: {sentence}")):
            join_traces([first, other])
    with pytest.raises(InputError, match=re.escape("traces[1]: axes is ('slice', 'unit', 'sample'), not ('epoch',")):
        join_traces([first.subsample(timesteps=[0]), as_trace(second.data[:, 0], **fields_of(second))])
    with pytest.raises(InputError, match=re.escape("traces[1]: metrics['loss'] is 0.5 at index 4, not nan")):
        halves = [run().subsample(units=slice(0, 2)), run().subsample(units=slice(2, 5))]
        loss = np.where(np.arange(9) == 4, np.nan, halves[0].metrics["loss"])
        join_traces([as_trace(halves[0], metrics={"loss": loss}), halves[1]], axis="unit")
    for wrong, shown in ((first, "a Trace"), ([], "empty"), (tmp_path, "a PosixPath")):
        with pytest.raises(InputTypeError, match=f"traces is {shown}; accepted: a list of traces or of paths"):
            join_traces(wrong)
    with pytest.raises(InputError, match=r"traces\[0\]: .*none.npz does not exist"):
        join_traces([tmp_path / "none.npz"])
