"""Runs under caps in `verify_gpu`: what is asked of them, and the small form of the section."""

from __future__ import annotations

import json

import pytest

from benchmarks.gpu import sections, verify_caps, verify_gpu

RUN = {
    "form": "lazy",
    "t": 20,
    "without_cap": {"t": 20},
    "finite": True,
    "fallbacks": [],
    "predicted_peak_bytes": 105,
    "peak_bytes": 100,
    "reserved_bytes": 790,
}


def missed(**changes: object) -> list[str]:
    findings = verify_caps.capped_findings("run", {**RUN, **changes}, 800)
    return [finding.what.removeprefix("run: ") for finding in findings if not finding.holds]


def test_what_a_capped_run_has_to_do():
    assert not missed()
    assert missed(t=21) == ["another t than without the cap"]
    (reason,) = missed(without_cap={"error": "no device"})
    assert "without the cap did not end well" in reason and "no device" in reason
    assert missed(finite=False) == ["coordinates that are not finite"]
    assert missed(fallbacks=["gives way"]) == ["fallbacks"]
    assert missed(reserved_bytes=801) == ["reserved over the cap"]
    assert missed(reserved_bytes=None) == []
    assert missed(peak_bytes=90) == missed(peak_bytes=124) == ["predicted over measured peak, off by"]
    (failed,) = verify_caps.capped_findings("run", {"error": "CUDA error"}, 800)
    assert "CUDA error" in failed.what and not failed.holds


def test_what_a_refused_run_has_to_do():
    refused = {"refused": "needs more", "planned_to_fit": False, "as_advised": {"finite": True}}
    findings = verify_caps.capped_findings("run", refused, 800)
    assert all(finding.holds for finding in findings)
    for change in ({"planned_to_fit": True}, {"as_advised": {"refused": "again"}}, {"as_advised": {"error": "broke"}}):
        findings = verify_caps.capped_findings("run", {**refused, **change}, 800)
        assert sum(not finding.holds for finding in findings) == 1


@pytest.mark.parametrize(
    ("ways", "settings"),
    [
        ('by plan it fits with storage="lazy", or with a smaller n_svd=25', {"storage": "lazy"}),
        ("by plan it fits with a smaller n_landmark=500, or with a smaller n_svd=25", {"n_landmark": "500"}),
        (
            'by plan it fits with storage="lazy" and a smaller n_landmark=10000 and a smaller n_svd=50 together',
            {"storage": "lazy", "n_svd": "50", "n_landmark": "10000"},
        ),
        ('by plan it fits with storage="lazy" and a smaller n_svd=50 together', {"storage": "lazy", "n_svd": "50"}),
        ("fewer epochs, time steps, units or samples (Trace.subsample) lower it", {}),
    ],
)
def test_the_first_way_of_a_refusal(ways, settings):
    assert verify_caps.advice(f"a trace of shape (600, 1, 10, 8) needs 55.2 MiB; {ways}") == settings


def test_what_there_is_no_time_for_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(verify_caps, "capped", lambda *_: pytest.fail("no time is left"))
    v = sections.Verification("cuda", tmp_path, 10)
    section = verify_caps.caps(v)
    assert section["status"] == "unfinished" and "har auto 8 GB, har auto 24 GB" in section["detail"]


def test_the_next_call_goes_on_with_the_runs_that_are_left(tmp_path, monkeypatch):
    asked = []

    def capped(v, name, run, storage, cap=None, settings=None):
        asked.append(name)
        if len(asked) == 3:
            raise sections.TookTooLong("took more than 3 s", True)
        return {**RUN, "reserved_bytes": None}

    monkeypatch.setattr(verify_caps, "capped", capped)
    monkeypatch.setattr(verify_caps, "CAPPED_ON_CPU", verify_caps.CAPPED_ON_CPU[:2])
    v = sections.Verification("cpu", tmp_path, 300)
    v.sections["caps"] = first = verify_caps.caps(v)
    assert first["status"] == "unfinished" and list(first["runs"]) == ["small auto 0.045 GB"]
    again = verify_caps.caps(v)
    assert again["status"] == "passed" and list(again["runs"]) == ["small auto 0.045 GB", "small sparse 0.045 GB"]
    assert asked.count("small auto 0.045 GB") == 1


def test_a_run_that_is_cut_short_by_the_end_of_the_call_is_not_held_against_the_library(tmp_path, monkeypatch):
    def ended(early):
        def call(*_):
            raise sections.TookTooLong("took more than 3 s", early)

        monkeypatch.setattr(verify_caps, "call", call)
        return verify_caps.capped(sections.Verification("cuda", tmp_path, 10), "a run", "har", "auto")

    assert ended(early=False) == {"error": "took more than 3 s"}
    with pytest.raises(sections.TookTooLong):
        ended(early=True)


def test_a_refused_run_is_tried_as_advised(tmp_path, monkeypatch):
    asked = []

    def capped(v, name, run, storage, cap=None, settings=None):
        asked.append((run, storage, cap, settings))
        refused = {"refused": "by plan it fits with a smaller n_svd=25", "planned_to_fit": False}
        return refused if (storage, settings) == ("sparse", None) and cap == 45e6 else {**RUN, "reserved_bytes": None}

    monkeypatch.setattr(verify_caps, "capped", capped)
    assert verify_caps.caps(sections.Verification("cpu", tmp_path, 300))["status"] == "passed"
    assert ("small", "sparse", 45e6, {"n_svd": "25"}) in asked
    assert asked.count(("small", "lazy", None, None)) == 1  # the same form is run once without a cap


@pytest.mark.slow
def test_the_section_on_the_cpu(tmp_path):
    """Under 45 MB "auto" is matrix-free and the sparse form is refused, with a setting that works; under 80 it fits."""
    assert verify_gpu.main(["--cpu", "--only=caps", f"--out={tmp_path}", f"--log={tmp_path}"]) == 0
    (written,) = tmp_path.glob("verify_cpu-*.json")
    runs = json.loads(written.read_text())["sections"]["caps"]["runs"]
    auto, refused, fits = runs.values()
    assert auto["form"] == "lazy" and "n_svd" in refused["refused"] and fits["form"] == "sparse"
