"""Findings of two ways to the same numbers."""

from __future__ import annotations

import torch

from benchmarks.gpu import sections, twins


def test_a_finding_beyond_its_bound_fails_the_section():
    good, bad, none = (sections.Finding("a", value, 0.2) for value in (0.1, 0.3, float("nan")))
    assert sections.of_findings([good])["status"] == "passed"
    assert sections.of_findings([good, bad])["status"] == "failed"
    assert sections.of_findings([none])["status"] == "failed"


def test_missing_keops_is_said(monkeypatch):
    monkeypatch.setattr(twins, "why_no_keops", lambda: "pykeops is not installed")
    section = twins.operators(torch.device("cpu"), quick=True)
    assert section["missing"] == ["KeOps: pykeops is not installed"]
    assert section["findings"] and all("keops" not in finding["what"] for finding in section["findings"])


def test_the_run_on_a_device_is_held_against_carried_numbers(monkeypatch):
    cpu = twins.torch.device("cpu")
    small = twins.pipeline_numbers(cpu, "sparse", quick=True)
    carried = {"same_sources": True, "pipeline": {"quick": small}}
    monkeypatch.setattr(twins, "expected", lambda: carried)
    section = twins.pipeline(cpu, quick=True)
    assert section["status"] == "passed" and len(section["findings"]) == 15 and not section["missing"]
    for name, changed in (("t", small["t"] + 1), ("stress", 1.1 * small["stress"]), ("between", [0.0] * 66)):
        off = twins._pipeline_findings("run", {**small, name: changed}, small)
        assert sum(not finding.holds for finding in off) == 1
    carried["same_sources"] = False
    assert "--expect" in twins.pipeline(cpu, quick=True)["missing"][0]
