"""How well texts stand out from what is behind them, as WCAG 2 measures it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .page import Page

LEAST = 4.5  # of level AA, for text of normal size
# Every visible element with text of its own: the text, its color, the color behind it, and how opaque it is.
TEXTS = """
const up = function* (item) { for (let node = item; node; node = node.parentElement) yield getComputedStyle(node); };
const clear = (style) => /rgba\\(.*, 0\\)/.test(style.backgroundColor);
const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
const facts = (item, text, style) => [text, numbers(style.color),
  numbers(([...up(item)].find((style) => !clear(style)) ?? { backgroundColor: "rgb(255, 255, 255)" }).backgroundColor),
  [...up(item)].reduce((opacity, style) => opacity * style.opacity, 1)];
const items = [...document.querySelectorAll('body *')].filter((item) => item.checkVisibility() && !item.closest('svg'));
const texts = items.filter((item) => item.tagName !== 'OPTION'
  && [...item.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim()));
return [...texts.map((item) => facts(item, item.textContent, getComputedStyle(item))),
  ...items.filter((item) => item.placeholder)
    .map((item) => facts(item, item.placeholder, getComputedStyle(item, '::placeholder')))];
"""


def luminance(color: Sequence[float]) -> float:
    """The relative luminance of a color: https://www.w3.org/TR/WCAG21/#dfn-relative-luminance."""
    share = np.array(color[:3]) / 255
    return float(np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])


def contrast(a: Sequence[float], b: Sequence[float]) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def contrasts(page: Page) -> dict[str, float]:
    """The contrast of each text that is shown."""
    texts = page.run(TEXTS)
    return {
        text: contrast(opacity * np.array(color[:3]) + (1 - opacity) * np.array(behind[:3]), behind)
        for text, color, behind, opacity in texts
    }


def faint(page: Page) -> dict[str, float]:
    """The texts with too little contrast."""
    return {text: ratio for text, ratio in contrasts(page).items() if ratio < LEAST}
