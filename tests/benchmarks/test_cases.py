"""The named inputs."""

from __future__ import annotations

import pytest
import torch

from benchmarks import cases
from benchmarks.report import story
from benchmarks.suites import scale


def test_every_case_has_the_name_it_is_listed_under():
    assert all(name == case.name for name, case in cases.CASES.items())
    assert set(cases.QUICK) <= cases.CASES.keys()
    assert {case for names in story.RUNS.values() for case in names} <= cases.CASES.keys()


@pytest.mark.parametrize("axis", cases.AXES)
def test_a_series_doubles_one_size_alone(axis):
    for names in (cases.SERIES[axis], cases.SMALL_SERIES[axis]):
        sizes = [sizes_of(name) for name in names]
        for before, after in zip(sizes[:-1], sizes[1:], strict=True):
            assert [b / a for b, a in zip(after, before, strict=True)] == [1 + (a == axis) for a in cases.AXES], names


def sizes_of(name: str) -> tuple[int, ...]:
    case = cases.CASES[name]
    sizes = next(part for part in name.split("-") if "x" in part)
    assert (case.axis, scale.n_nodes(name)) == (case.axis, int(sizes.split("x")[0]) * int(sizes.split("x")[1]))
    return (*map(int, sizes.split("x")), case.options.get("n_landmark", 4000))


def test_the_slices_pass_through_har():
    sizes = [sizes_of(name)[:3] for name in cases.SERIES["slices"]]
    assert (127 * 128, 30, 6) in sizes and sizes[-1] == (130_048, 30, 6)
    first = cases.CASES[cases.SERIES["slices"][0]].trace()
    assert (first.n_slices, first.n_units, first.n_samples) == sizes[0]


@pytest.mark.slow
def test_the_digits_are_trained_once(tmp_path, monkeypatch):
    monkeypatch.setattr(cases, "DIGITS_EPOCHS", 2)
    with monkeypatch.context() as m:
        m.setattr("mmphate_gpu.cli.demo.train", None)  # in a process of its own
        first = cases.digits_trace(tmp_path)
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    assert first.data.shape == (3, 8, 20, 50)
    assert torch.equal(first.data, cases.digits_trace(tmp_path).data) and file.stat().st_mtime_ns == written
    assert torch.equal(first.data, cases.digits_trace().data)
