"""The section of `verify_gpu` that runs under the memory of smaller cards."""

from __future__ import annotations

import contextlib
import re
import sys
from typing import Any

from benchmarks.gpu.sections import (
    UNFINISHED,
    Finding,
    TookTooLong,
    Verification,
    call,
    last_json,
    of_findings,
    unfinished,
)
from benchmarks.measure.tasks import tail

# Runs of caps.py as (run, storage, bytes), the most telling first: the sizes that matter on workstation cards.
CAPPED = (
    *(("har", "auto", cap) for cap in (8e9, 24e9, 12e9)),
    ("suite", "auto", 8e9),
    *(("har", "sparse", cap) for cap in (8e9, 24e9)),  # 8 GB are too little: it is refused, and the advice must work
    ("walk", "auto", 8e9),
    *(("suite", storage, 8e9) for storage in ("lazy", "tiles", "sparse")),
    *(("har", "lazy", 8e9), ("har", "tiles", 24e9)),
    *(("walk", storage, 8e9) for storage in ("lazy", "tiles", "sparse")),
    *((run, "auto", cap) for run in ("suite", "walk") for cap in (24e9, 12e9)),
)
CAPPED_ON_CPU = (("small", "auto", 45e6), ("small", "sparse", 45e6), ("small", "sparse", 80e6))
PREDICTED_WITHIN = 0.15
CAPPED_SECONDS = 150  # of a call
CAPPED_LEAST = 20  # seconds that must be left for a further run


def caps(v: Verification) -> dict[str, Any]:
    """Whole runs under the memory of smaller cards, in the planned form and in given forms.

    No run may fall back, reserve more than its cap, or end with another t than the same form without a cap. Peaks must
    be as predicted. A run that is refused must not fit by its plan, and the advice of the refusal must work.
    """
    before = v.sections.get("caps", {})
    runs = dict(before.get("runs", {})) if before.get("status") == UNFINISHED else {}
    until = max(v.left - CAPPED_SECONDS, CAPPED_LEAST)
    planned = {
        f"{run} {storage} {cap / 1e9:g} GB": (run, storage, cap)
        for run, storage, cap in (CAPPED_ON_CPU if v.device == "cpu" else CAPPED)
    }
    uncapped: dict[tuple[str, str], dict[str, Any]] = {}
    for name, run in planned.items():
        if name not in runs and v.left >= until:
            with contextlib.suppress(TookTooLong):  # the call ended before the run
                runs[name] = _under_cap(v, name, *run, uncapped)
    findings = [finding for name, line in runs.items() for finding in capped_findings(name, line, planned[name][2])]
    section = {"runs": runs, **of_findings(findings)}
    if left_out := [name for name in planned if name not in runs]:
        return {**section, **unfinished(f"not run for lack of time: {', '.join(left_out)}")}
    return section


def _under_cap(
    v: Verification, name: str, run: str, storage: str, cap: float, uncapped: dict[tuple[str, str], dict[str, Any]]
) -> dict[str, Any]:
    """A run under a cap, and beside it the run that a refusal advises, or the same form without a cap."""
    line = capped(v, name, run, storage, cap)
    if "refused" in line:
        settings = advice(line["refused"])
        line["as_advised"] = capped(v, f"{name} as advised", run, settings.pop("storage", storage), cap, settings)
    elif "form" in line:
        form = (run, line["form"])
        if form not in uncapped:
            uncapped[form] = capped(v, f"{run} {line['form']} without a cap", *form)
        line["without_cap"] = uncapped[form]
    return line


def capped(
    v: Verification, name: str, run: str, storage: str, cap: float | None = None, settings: dict[str, str] | None = None
) -> dict[str, Any]:
    """The numbers of `caps` for a run; ``error`` if it did not end well."""
    options = [f"--device={v.device}", f"--storage={storage}", *([] if cap is None else [f"--cap={cap:.0f}"])]
    options += [f"--set={key}={value}" for key, value in (settings or {}).items()]
    command = [sys.executable, "-m", "benchmarks.gpu.caps", run, *options]
    try:
        done = call(v, f"caps_{name}".replace(" ", "_"), command, 90)
    except TookTooLong as error:
        if error.early:
            raise
        return {"error": str(error)}
    return last_json(done.stdout) if done.returncode == 0 else {"error": tail(done.stderr)}


def advice(refusal: str) -> dict[str, str]:
    """The settings of the first way that a refusal names; empty if it names none."""
    ways = refusal.partition("by plan it fits with")[2]
    first = ways if ways.endswith("together") else ways.partition(", or with ")[0]
    return dict(re.findall(r"(storage|n_landmark|n_svd)=\"?(\w+)", first))


def capped_findings(name: str, line: dict[str, Any], cap: float) -> list[Finding]:
    """What a run under ``cap`` bytes has to fulfill."""

    def finding(what: str, value: float, most: float = 0.0) -> Finding:
        return Finding(f"{name}: {what}", value, most)

    if "error" in line:
        return [finding(f"did not end well ({line['error'][-200:]})", 1)]
    if "refused" in line:
        return [
            finding("refused though planned to fit", int(line["planned_to_fit"])),
            finding("the advice of the refusal does not work", int(not line["as_advised"].get("finite", False))),
        ]
    free = line["without_cap"]
    off = abs(line["predicted_peak_bytes"] / line["peak_bytes"] - 1)
    findings = [
        finding("coordinates that are not finite", int(not line["finite"])),
        finding("fallbacks", len(line["fallbacks"])),
        finding("another t than without the cap", int(line["t"] != free["t"]))
        if "t" in free
        else finding(f"the run without the cap did not end well ({str(free)[-200:]})", 1),
        finding("predicted over measured peak, off by", off, PREDICTED_WITHIN),
    ]
    if line["reserved_bytes"] is not None:
        findings.append(finding("reserved over the cap", line["reserved_bytes"] / cap, 1.0))
    return findings
