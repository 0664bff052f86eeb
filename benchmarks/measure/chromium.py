"""Chromium without a window, for pages of this library: it draws WebGL in software and reaches no network."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

SOFTWARE_WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")
# Without a window; without what asks the network; without a sandbox and /dev/shm, which a container may lack. A sandbox
# would protect from pages of others, and none is opened.
_ALWAYS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-sync",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-pings",
    "--hide-scrollbars",
    "--mute-audio",
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DRIVERS = ("chromedriver", "chromium.chromedriver")


def why_no_chromium() -> str:
    """Why no page can be opened here; empty if one can."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is not installed"
    for what, names in (("browser", BROWSERS), ("driver of a browser", DRIVERS)):
        if not _installed(names):
            return f"no {what} is installed ({', '.join(names)})"
    return ""


def _installed(names: Sequence[str]) -> str:
    return next(filter(None, map(shutil.which, names)), "")


@contextlib.contextmanager
def chromium(*switches: str, size: tuple[int, int] = (1280, 800), patience: float = 60.0) -> Iterator[Chrome]:
    """A browser with a new profile, whose downloads go to ``driver.downloads``.

    Logs of the console and of the network are kept. ``switches`` are further ones of the command line. The size of the
    page is ``size``, in CSS pixels. It is an error if a page, a script or the driver takes longer than ``patience``
    seconds.
    """
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    # The profile may still be written to while the browser ends.
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as folder:
        downloads = Path(folder, "downloads")
        downloads.mkdir()
        options = _options(Path(folder), downloads, switches)
        # A driver with a path keeps Selenium from looking for one on the network.
        driver = webdriver.Chrome(options=options, service=Service(_installed(DRIVERS)))
        try:
            driver.downloads = downloads
            driver.command_executor.client_config.timeout = patience
            # These come before it, and their messages say more.
            driver.set_page_load_timeout(0.8 * patience)
            driver.set_script_timeout(0.8 * patience)
            resize(driver, *size)
            yield driver
        finally:
            driver.quit()


def end(driver: Chrome) -> None:
    """End a driver that does not answer, with its browser: each later command fails at once."""
    process = psutil.Process(driver.service.process.pid)
    for each in [*process.children(recursive=True), process]:
        each.kill()


def _options(profile: Path, downloads: Path, switches: Sequence[str]) -> Any:
    from selenium.webdriver.chrome.options import Options

    options = Options()
    options.binary_location = _installed(BROWSERS)
    for switch in (*_ALWAYS, *SOFTWARE_WEBGL, f"--user-data-dir={profile}", *switches):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.add_experimental_option(
        "prefs",
        {
            "download.default_directory": str(downloads),
            "session.restore_on_startup": 4,
            "session.startup_urls": ["about:blank"],
        },
    )
    return options


def resize(driver: Chrome, width: int, height: int) -> None:
    """Give the page ``width`` x ``height`` CSS pixels, also fewer than a window can have."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def messages(driver: Chrome) -> list[str]:
    """What was written to the console since the last call, errors of the page among it."""
    return [f"{entry['level']}: {entry['message']}" for entry in driver.get_log("browser")]


def requests(driver: Chrome) -> list[str]:
    """The addresses that were requested since the last call."""
    events = (json.loads(entry["message"])["message"] for entry in driver.get_log("performance"))
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


def downloaded(driver: Chrome, seconds: float = 10.0) -> Path:
    """The only file among the downloads, once it is whole; it is an error to wait longer than ``seconds`` for it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        files = [path for path in driver.downloads.iterdir() if path.suffix != ".crdownload"]
        if files and files[0].stat().st_size and not list(driver.downloads.glob("*.crdownload")):
            return files[0]
        time.sleep(0.05)
    raise TimeoutError(f"nothing was downloaded within {seconds} s")
