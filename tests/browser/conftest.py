"""A browser for the whole session, and pages whose console and requests are looked at after each test."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.measure.chromium import chromium, end, why_no_chromium  # noqa: E402

from .page import Page  # noqa: E402

# CI sets this, so that a browser that does not start is a failure there and not a skip.
REQUIRED = os.environ.get("MMPHATE_BROWSER") == "required"


def refused(reason: str, *, required: bool) -> None:
    """End a test without a browser: it fails where one is required."""
    (pytest.fail if required else pytest.skip)(reason)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    reason = why_no_chromium()
    if reason:
        refused(reason, required=REQUIRED)
    with chromium() as driver:
        yield driver


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """A function that opens the text of a page, or the page of an embedding, and waits for its first picture.

    After the test the page must have written nothing to the console and requested nothing besides its file.
    """
    page = Page(browser, tmp_path / "a page.html")
    try:
        page.forget()
    except Exception:
        end(browser)  # so that the tests that follow fail at once, and do not wait as well
        raise
    yield page.show
    assert page.messages() == []
    assert page.strangers() == []
