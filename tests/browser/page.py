"""An open page: what it shows, and the hands and eyes of a user."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.measure import chromium
from mmphate_gpu import Embedding
from mmphate_gpu.interactive import page as page_text

KEYS = {
    "Escape": 27,
    " ": 32,
    "Home": 36,
    "Enter": 13,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
    "Tab": 9,
}
SHIFT = 8  # a modifier of the protocol


class Page:
    """A page in the browser ``driver``, from the file ``path``. Positions are CSS pixels of the window."""

    def __init__(self, driver: Any, path: Path) -> None:
        self.driver, self.path = driver, path

    def show(
        self, content: str | Embedding, *, ready: bool = True, size: tuple[int, int] = (1280, 800), **options: Any
    ) -> Page:
        """Open the content; an embedding is shown with these options of the page."""
        if isinstance(content, Embedding):
            content = page_text(content.coordinates, content.layout, most_active=content.most_active, **options)
        self.path.write_text(content, encoding="utf-8")
        chromium.resize(self.driver, *size)
        self.driver.get(self.path.as_uri())
        return self.ready() if ready else self

    def ready(self) -> Page:
        """Wait for the first picture."""
        self.driver.execute_async_script(
            "const done = arguments[0]; window.mmphate.ready.then(() => done(), (error) => done(String(error)))"
        )
        return self

    # ---- what the browser keeps

    def forget(self) -> None:
        """Leave what an earlier test did to the browser."""
        self.driver.get("about:blank")
        self.prefers(scheme="light")
        self.messages(), chromium.requests(self.driver)
        for path in self.driver.downloads.iterdir():
            path.unlink()

    def messages(self) -> list[str]:
        """What the console shows, without what a driver writes where `mmphate.draw` waits for it."""
        return [line for line in chromium.messages(self.driver) if "GPU stall due to ReadPixels" not in line]

    def strangers(self) -> list[str]:
        """Requests for something else than the file itself and what is within it."""
        within = ("data:", "blob:", "about:")
        urls = chromium.requests(self.driver)
        return [url for url in urls if url != self.path.as_uri() and not url.startswith(within)]

    def prefers(self, **features: str) -> None:
        """What the system of the user prefers: ``scheme`` of colors."""
        media = [{"name": f"prefers-color-{name}", "value": value} for name, value in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})

    # ---- what the page says

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    @property
    def state(self) -> dict[str, Any]:
        return self.run("return mmphate.state()")

    def text(self, selector: str) -> str:
        """The text of the first such element, as it is shown."""
        return self.run("return document.querySelector(arguments[0]).innerText", selector)

    def texts(self, selector: str) -> list[str]:
        return self.run("return [...document.querySelectorAll(arguments[0])].map((item) => item.textContent)", selector)

    def tooltip(self) -> dict[str, str]:
        """The names and values of the tooltip; empty if it is hidden."""
        names, values = self.texts("#tooltip:not([hidden]) dt"), self.texts("#tooltip:not([hidden]) dd")
        return dict(zip(names, values, strict=True))

    def legend(self) -> dict[str, tuple[int, int, int]]:
        """The entries of the legend, with their colors."""
        script = """return [...document.querySelectorAll('#legend .entry')].map((entry) => [entry.textContent,
            getComputedStyle(entry.querySelector('.swatch')).backgroundColor.match(/\\d+/g).map(Number)])"""
        return {name: tuple(color[:3]) for name, color in self.run(script)}

    def box(self, selector: str) -> dict[str, float]:
        return self.run("return document.querySelector(arguments[0]).getBoundingClientRect().toJSON()", selector)

    def projected(self, nodes: Any) -> np.ndarray:  # (n, 2)
        """Where nodes are in the window; NaN for those that are not drawn."""
        script = "return arguments[0].map((node) => mmphate.project(node) ?? [NaN, NaN])"
        places = self.run(script, [int(node) for node in np.atleast_1d(nodes)])
        box = self.box("#canvas")
        return np.array([[np.nan if v is None else v for v in place] for place in places]) + [box["x"], box["y"]]

    def picked(self, place: Any) -> int:
        """The node that the page finds at a place of the window, or -1."""
        box = self.box("#canvas")
        return self.run("return mmphate.pick(...arguments)", float(place[0] - box["x"]), float(place[1] - box["y"]))

    def pixels(self) -> np.ndarray:  # (height, width, 3)
        """What is on the screen, after the page has drawn everything."""
        self.run("mmphate.draw()")
        return self.screen()

    def screen(self) -> np.ndarray:  # (height, width, 3)
        """What is on the screen, as the page has left it."""
        picture = Image.open(io.BytesIO(self.driver.get_screenshot_as_png()))
        return np.asarray(picture.convert("RGB")).astype(int)

    def keep(self, name: str) -> None:
        """Write the screen to the folder that MMPHATE_SCREENSHOTS names, for somebody to look at."""
        if folder := os.environ.get("MMPHATE_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(str(Path(folder, f"{name}.png")))

    def colors(self, nodes: Any) -> np.ndarray:  # (n, 3)
        """The pixels in the middle of nodes."""
        places = np.rint(self.projected(nodes) - 0.5).astype(int)
        return self.pixels()[places[:, 1], places[:, 0]]

    # ---- what a user does

    def mouse(self, action: str, place: Any, **more: Any) -> None:
        event = {"type": f"mouse{action}", "x": float(place[0]), "y": float(place[1]), **more}
        self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", event)

    def hover(self, place: Any) -> dict[str, str]:
        """Move the pointer there: the tooltip, which follows at once where the page has looked for nodes before."""
        self.picked(place)
        self.mouse("Moved", [place[0] + 30, place[1] + 30])
        self.mouse("Moved", place)
        return self.tooltip()

    def click(self, target: Any, **more: Any) -> None:
        """Click the middle of the element that a selector names, or a place."""
        if isinstance(target, str):
            self.run("document.querySelector(arguments[0]).scrollIntoView({block: 'nearest'})", target)
            box = self.box(target)
            target = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        press = {"button": "left", "clickCount": 1, **more}
        self.mouse("Moved", target)
        self.mouse("Pressed", target, **press)
        self.mouse("Released", target, **press)

    def drag(self, start: Any, end: Any) -> None:
        self.mouse("Moved", start)
        self.mouse("Pressed", start, button="left", clickCount=1)
        for share in (0.25, 0.5, 1.0):
            self.mouse("Moved", np.array(start) + share * (np.array(end) - start), button="left", buttons=1)
        self.mouse("Released", end, button="left", clickCount=1)

    def touch(self, *moments: list[Any]) -> None:
        """Put fingers down at the first places, move them to the next ones, and lift them."""
        emulated = {"enabled": True, "maxTouchPoints": 2}
        self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", emulated)
        for number, places in enumerate([*moments, []]):
            action = "touchEnd" if not places else "touchMove" if number else "touchStart"
            points = [{"x": float(x), "y": float(y), "id": i} for i, (x, y) in enumerate(places)]
            self.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": action, "touchPoints": points})
        self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})

    def press(self, *keys: str, modifiers: int = 0) -> None:
        """Press keys, wherever the focus is."""
        for key in keys:
            code = KEYS.get(key, ord(key[0].upper()))
            event = {"key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
            text = {"text": {"Enter": "\r"}.get(key, key)} if len(key) == 1 or key == "Enter" else {}
            self.driver.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": "keyDown", **event, **text})
            self.driver.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": "keyUp", **event})

    def focus(self, selector: str) -> None:
        self.run("document.querySelector(arguments[0]).focus()", selector)

    def focused(self) -> str:
        return self.run("return document.activeElement.id || document.activeElement.className || 'page'")

    def choose(self, name: str) -> None:
        """Take an entry of the color menu by its name."""
        script = """const menu = document.getElementById('color-by');
            menu.value = [...menu.options].find((option) => option.textContent === arguments[0]).value;
            menu.dispatchEvent(new Event('change', {bubbles: true}))"""
        self.run(script, name)

    def slide(self, selector: str, value: int) -> None:
        """Move a slider there, step by step with the keys."""
        self.focus(selector)
        script = "const {min, value} = document.querySelector(arguments[0]); return [Number(min), Number(value)]"
        _, now = self.run(script, selector)
        self.press(*["ArrowRight" if value > now else "ArrowLeft"] * abs(value - now))

    def search(self, text: str) -> None:
        self.run("document.querySelector('#search').select()")
        self.focus("#search")
        self.driver.execute_cdp_cmd("Input.insertText", {"text": text})

    def downloaded(self) -> Path:
        return chromium.downloaded(self.driver)

    def until(self, script: str, seconds: float = 10.0) -> Any:
        """Wait until the script returns something true."""
        end = time.monotonic() + seconds
        while not (answer := self.run(script)):
            assert time.monotonic() < end, f"still not: {script}"
            time.sleep(0.03)
        return answer
