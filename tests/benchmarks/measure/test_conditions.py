"""The conditions of a row, and when they are the same."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from benchmarks.measure import conditions, rows
from benchmarks.measure.rows import Row
from benchmarks.peers import peers
from mmphate_gpu.ops.launch import twins as native_twins

from ..made import WHERE, row


def test_what_a_row_was_measured_on():
    now = conditions.conditions("cpu", ("pytest", "no-such-package"))
    assert now["device"] == "cpu" and now["threads"] == torch.get_num_threads()
    assert now["versions"]["torch"] == torch.__version__ and now["versions"]["pytest"] == pytest.__version__
    serving = native_twins.serving("cpu")
    assert now["versions"]["twins"] == (serving if serving.startswith("C++") else "none")
    assert now["memory_bytes"] > 1e9
    assert "no-such-package" not in now["versions"]
    assert len(now["source"]) == 12 and now["source"] == conditions.source()
    assert Row(suite="a", case="b", **now).machine == conditions.machine_name(torch.device("cpu"))


def test_the_source_is_what_decides_a_number(tmp_path, monkeypatch):
    decides = {
        "mmphate_gpu/a/b.py": True,
        "csrc/cpu/c.cpp": True,
        "benchmarks/cases.py": True,
        "benchmarks/peers/d.py": True,
        "benchmarks/run.py": False,
        "benchmarks/report/e.py": False,
        "benchmarks/gpu/f.py": False,
        "docs/g.md": False,
    }
    for name in decides:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one")
    monkeypatch.setattr(conditions, "ROOT", tmp_path)
    for name, changes in decides.items():
        before = conditions.source()
        (tmp_path / name).write_text("two")
        assert (conditions.source() != before) is changes, name
    assert conditions.commit() == ""  # no checkout of git


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        ({}, True),
        ({"versions": {"torch": "2", "no-such-peer": "0.5"}}, True),  # of a peer that is no longer installed
        ({"versions": {"torch": "2", "pytest": pytest.__version__}}, True),
        ({"versions": {"torch": "2", "pytest": "0.5"}}, False),  # of a peer that is another now
        ({"memory_bytes": 15 * 10**9}, True),
        ({"versions": {"torch": "3"}}, False),
        ({"versions": {"torch": "2", "cupy": "13"}}, False),  # it is gone
        ({"versions": {}}, False),
        ({"memory_bytes": 12 * 10**9}, False),
        ({"memory_bytes": None}, False),
        ({"source": "of other files"}, False),
    ],
)
def test_rows_hold_on_one_machine_with_the_same_packages(changes, holds):
    assert conditions.same_conditions(row(**changes), WHERE) is holds


def test_rows_hold_while_the_same_twins_serve():
    native = WHERE | {"versions": {"torch": "2", "twins": "C++ (avx2)"}}
    none = row(versions={"torch": "2", "twins": "none"})
    assert conditions.same_conditions(row(versions=native["versions"]), native)
    assert not conditions.same_conditions(none, native)
    assert conditions.same_conditions(dataclasses.replace(none, by=rows.PORTABLE), native)  # has none by its nature
    assert "MMPHATE_GPU_NATIVE" in peers()[rows.PORTABLE].environment
