"""The page of `mmphate-gpu report` in a browser: wide and narrow, light and dark, on paper, with its picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmphate_gpu import Embedding
from mmphate_gpu.cli import main
from mmphate_gpu.slices import SliceLayout

from .contrast import contrasts, faint, luminance
from .page import Page

pytestmark = pytest.mark.browser
UNITS = ["</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "אבג", "a.very.long.dotted.name." * 20]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a run with two embeddings, analyses and units of hostile names."""
    root = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        np.save("trace.npy", np.random.default_rng(0).normal(size=(9, 3, 4, 5)).cumsum(0))
        options = ["--device", "cpu", "--only", "entropy,spread"]
        assert main(["analyze", "trace.npy", "--out", "a run", *options]) == 0
        flat = Embedding.load("a run/embedding.npz")
        layout = SliceLayout(flat.layout.epoch, flat.layout.timestep, np.array(UNITS))
        active = np.array(UNITS)[np.arange(flat.n_nodes) % 4]
        for columns, name in (([0, 1], "embedding.npz"), ([0, 1, 0], "embedding3d.npz")):
            more = {"most_active": active, "entropy": flat.entropy, "t": flat.t, "stress": flat.stress}
            Embedding(flat.coordinates[:, columns], layout, **more).save(f"a run/{name}", overwrite=True)
        assert main(["report", "a run"]) == 0
    return Path(root, "a run", "report.html").read_text(encoding="utf-8")


def in_frame(page: Page, size: int, script: str) -> Any:
    """The result of a script in the frame of an embedding, once its picture is drawn."""
    frame = page.run("return document.querySelector(`iframe[data-size='${arguments[0]}']`)", size)
    page.run("arguments[0].scrollIntoView()", frame)
    page.driver.switch_to.frame(frame)
    try:
        return page.ready().run(script)
    finally:
        page.driver.switch_to.default_content()


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_page(show, report, width):
    page = show(report, ready=False, size=(width, 800))
    assert page.run("return document.documentElement.scrollWidth") <= width
    # Tables and lines of code scroll by themselves, and what is in them counts no more.
    script = """return [...document.querySelectorAll('main *')].filter((item) => !item.closest('.scroll, pre')
        && item.getBoundingClientRect().right > innerWidth + 0.5).map((item) => item.outerHTML.slice(0, 90))"""
    assert page.run(script) == []
    pictures = page.run("return [...document.images].map((image) => image.complete && image.naturalWidth > 100)")
    assert len(pictures) == 4 and all(pictures)
    assert in_frame(page, 3, "return mmphate.project(7) !== null")


def test_the_buttons_show_one_embedding_each(show, report):
    page = show(report, ready=False)
    shown = "return [...document.querySelectorAll('iframe')].filter((f) => f.offsetParent).map((f) => f.dataset.size)"
    assert page.run(shown) == ["3"]
    page.click("button[data-shows='2']")
    assert page.run(shown) == ["2"]
    assert page.texts("button[aria-pressed='true']") == ["2 components"]
    assert in_frame(page, 2, "return document.getElementById('dimension')?.offsetParent ?? null") is None
    page.click("button[data-shows='3']")
    assert page.run(shown) == ["3"] and in_frame(page, 3, "return mmphate.project(0) !== null")


def test_names_are_text(show, report):
    page = show(report, ready=False)
    assert page.run("return document.scripts.length") == 1 and page.run("return document.images.length") == 4
    choose = "const m = document.getElementById('color-by'); m.selectedIndex = 3; m.dispatchEvent(new Event('change'));"
    legend = in_frame(page, 3, choose + "return document.getElementById('legend').textContent")
    assert UNITS[1] in legend and in_frame(page, 3, "return document.images.length") == 0


@pytest.mark.parametrize(("scheme", "is_dark"), [("light", False), ("dark", True)])
def test_text_can_be_read_in_both_schemes(show, report, scheme, is_dark):
    page = show(report, ready=False)
    page.prefers(scheme=scheme)
    ground = page.run("return getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g).map(Number)")
    assert (luminance(ground) < 0.05) == is_dark
    assert len(contrasts(page)) > 50
    assert faint(page) == {}


def test_on_paper_the_panels_take_the_place_of_the_picture(show, report):
    page = show(report, ready=False)
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    visible = "return [...document.querySelectorAll(arguments[0])].map((item) => item.offsetParent !== null)"
    assert not any(page.run(visible, "iframe, nav, .switch")) and all(page.run(visible, "img, .paper"))
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
