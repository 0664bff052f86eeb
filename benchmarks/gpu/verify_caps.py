"""The section of `verify_gpu.py` that runs under the memory of smaller cards."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.gpu.sections import UNFINISHED, TookTooLong, Verification, call, last_json, unfinished
from benchmarks.measure.tasks import tail

# (run of caps.py, storage, bytes), the most telling first: runs of the sizes that matter on workstation cards.
CARDS = (24e9, 12e9, 8e9)
CAPPED = (
    ("har", "auto", 8e9),
    ("har", "auto", 24e9),
    ("har", "auto", 12e9),
    ("suite", "auto", 8e9),
    ("har", "sparse", 8e9),  # more than there is: refused, and what the refusal says works
    ("har", "sparse", 24e9),
    ("walk", "auto", 8e9),
    *(("suite", storage, 8e9) for storage in ("lazy", "tiles", "sparse")),
    ("har", "lazy", 8e9),
    ("har", "tiles", 24e9),
    *(("walk", storage, 8e9) for storage in ("lazy", "tiles", "sparse")),
    *((run, "auto", cap) for run in ("suite", "walk") for cap in CARDS[:2]),
)
CAPPED_ON_CPU = (("small", "auto", 45e6), ("small", "sparse", 45e6), ("small", "sparse", 80e6))
PREDICTED_WITHIN = 0.15
CAPPED_SECONDS = 150  # of a call
CAPPED_LEAST = 20  # for one more run


def caps(v: Verification) -> dict[str, Any]:
    """Whole runs under the memory of smaller cards, in the form the library chooses and in those asked for.

    None falls back, reserves more than its cap or ends with another t than the same form has without a cap; peaks are
    as predicted; a run that is refused was planned not to fit, and what the refusal says works.
    """
    before = v.sections.get("caps", {})
    runs = dict(before.get("runs", {})) if before.get("status") == UNFINISHED else {}
    until = max(v.left - CAPPED_SECONDS, CAPPED_LEAST)
    asked = {
        f"{run} {storage} {cap / 1e9:g} GB": (run, storage, cap)
        for run, storage, cap in (CAPPED_ON_CPU if v.device == "cpu" else CAPPED)
    }
    uncapped: dict[tuple[str, str], dict[str, Any]] = {}
    for name, run in asked.items():
        if name not in runs and v.left >= until:
            with contextlib.suppress(TookTooLong):  # the call ended before the run
                runs[name] = _under_cap(v, name, *run, uncapped)
    findings = [finding for name, found in runs.items() for finding in capped_findings(name, found, asked[name][2])]
    found = {"runs": runs, "findings": findings}
    if left_out := [name for name in asked if name not in runs]:
        return {**unfinished(f"not run for lack of time: {', '.join(left_out)}"), **found}
    return {"status": "failed" if any(not finding["holds"] for finding in findings) else "passed", **found}


def _under_cap(
    v: Verification, name: str, run: str, storage: str, cap: float, uncapped: dict[tuple[str, str], dict[str, Any]]
) -> dict[str, Any]:
    """A run under a cap, with the one that a refusal advises or the same form's without a cap beside it."""
    found = capped(v, name, run, storage, cap)
    if "refused" in found:
        setting = remedy(found["refused"])
        found["as_told"] = capped(v, f"{name} as told", run, setting.pop("storage", storage), cap, setting)
    elif "form" in found:
        if (run, found["form"]) not in uncapped:
            uncapped[run, found["form"]] = capped(v, f"{run} {found['form']} without a cap", run, found["form"])
        found["without_cap"] = uncapped[run, found["form"]]
    return found


def capped(
    v: Verification, name: str, run: str, storage: str, cap: float | None = None, settings: dict[str, str] | None = None
) -> dict[str, Any]:
    """What `caps.py` says about one run; ``error`` if it came to no end."""
    options = [f"--device={v.device}", f"--storage={storage}", *([] if cap is None else [f"--cap={cap:.0f}"])]
    options += [f"--set={key}={value}" for key, value in (settings or {}).items()]
    command = [sys.executable, "-m", "benchmarks.gpu.caps", run, *options]
    try:
        done = call(v, f"caps_{name}".replace(" ", "_"), command, 90)
    except TookTooLong as error:
        if error.early:
            raise
        return {"error": str(error)}
    if done.returncode != 0:
        return {"error": tail(done.stderr)}
    return last_json(done.stdout)


def remedy(refusal: str) -> dict[str, str]:
    """The settings of the first way that a refusal names; none if it names none."""
    advice = refusal.partition("by plan it fits with")[2]
    first = advice if advice.endswith("together") else advice.partition(", or with ")[0]
    return dict(re.findall(r"(storage|n_landmark|n_svd)=\"?(\w+)", first))


def capped_findings(name: str, found: dict[str, Any], cap: float) -> list[dict[str, Any]]:
    """What was asked of a run under ``cap`` bytes, as numbers and the most they may be."""

    def finding(what: str, value: float, most: float = 0.0) -> dict[str, Any]:
        return {"what": f"{name}: {what}", "value": value, "most": most, "holds": value <= most}

    if "error" in found:
        return [finding(f"came to no end ({found['error'][-200:]})", 1)]
    if "refused" in found:
        return [
            finding("refused though planned to fit", int(found["planned_to_fit"])),
            finding("what the refusal says does not work", int(not found["as_told"].get("finite", False))),
        ]
    findings = [
        finding("coordinates that are not finite", int(not found["finite"])),
        finding("fallbacks", len(found["fallbacks"])),
        _same_t(finding, found),
        finding(
            "predicted over measured peak, off by",
            abs(found["predicted_peak_bytes"] / found["peak_bytes"] - 1),
            PREDICTED_WITHIN,
        ),
    ]
    if found["reserved_bytes"] is not None:
        findings.append(finding("reserved over the cap", found["reserved_bytes"] / cap, 1.0))
    return findings


def _same_t(finding: Callable[..., dict[str, Any]], found: dict[str, Any]) -> dict[str, Any]:
    free = found["without_cap"]
    if "t" not in free:
        return finding(f"the run without the cap came to no end ({str(free)[-200:]})", 1)
    return finding("another t than without the cap", int(found["t"] != free["t"]))
