"""Where no browser is installed, the tests of pages are skipped; where one is required, they fail."""

from __future__ import annotations

import pytest

from benchmarks.measure.chromium import why_no_chromium

from .conftest import refused


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    reason = why_no_chromium()
    assert reason.startswith("no browser is installed (chromium") or reason == "selenium is not installed"
    with pytest.raises(pytest.skip.Exception, match="browser"):
        refused("no browser", required=False)
    with pytest.raises(pytest.fail.Exception, match="browser"):
        refused("no browser", required=True)
