"""Findings of two ways to the same numbers."""

from __future__ import annotations

import torch

from benchmarks.gpu import twins


def test_a_finding_beyond_its_bound_fails_the_section():
    good, bad, none = twins.Finding("a", 0.1, 0.2), twins.Finding("b", 0.3, 0.2), twins.Finding("c", float("nan"), 0.2)
    assert twins.Section([good], []).asdict()["status"] == "passed"
    assert twins.Section([good, bad], []).asdict()["status"] == "failed"
    assert twins.Section([none], []).asdict()["status"] == "failed"


def test_missing_keops_is_said(monkeypatch):
    monkeypatch.setattr(twins, "why_no_keops", lambda: "pykeops is not installed")
    section = twins.operators(torch.device("cpu"), quick=True)
    assert section.missing == ["KeOps: pykeops is not installed"]
    assert section.findings and all("keops" not in finding.what for finding in section.findings)
