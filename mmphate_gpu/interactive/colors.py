"""Colors of the interactive picture, and the palette of names that all pictures share."""

from __future__ import annotations

from typing import Any

import numpy as np

# Twelve colors that differ from one another, from the ground and from the gray of missing values, also for people who
# see no red, no green or no blue: by 11 or more of CIEDE2000 (tests/interactive/test_colors.py). A search over sRGB
# found them.
PALETTE = (
    "#0069b4", "#e1a500", "#c3004b", "#1ec3ff", "#005a00", "#8778ff",
    "#f05a5a", "#2da587", "#782d69", "#877800", "#c378b4", "#000000",
)  # fmt: skip
DARK_PALETTE = (
    "#4b96e1", "#f0b42d", "#d20f96", "#00d2b4", "#87691e", "#ff7896",
    "#4b5af0", "#2d875a", "#c3e196", "#879600", "#f0b4ff", "#ffffff",
)  # fmt: skip
MISSING_GRAY = {"light": "#b9bcc0", "dark": "#5c6066"}
GROUND = {"light": "#ffffff", "dark": "#15171b"}
# The part of each map of matplotlib that is clear on the ground.
PARTS = {
    "viridis": {"light": (0.0, 0.93), "dark": (0.17, 1.0)},
    "plasma": {"light": (0.0, 0.9), "dark": (0.15, 1.0)},
    "turbo": {"light": (0.03, 0.97), "dark": (0.1, 0.93)},
}


def color_facts() -> dict[str, Any]:
    """The palettes and the maps, as the page reads them."""
    return {
        "palette": {"light": PALETTE, "dark": DARK_PALETTE},
        "ground": GROUND,
        "missing": MISSING_GRAY,
        "parts": PARTS,
        "maps": {name: _hexes(name) for name in PARTS},
    }


def _hexes(name: str, n: int = 64) -> str:
    """``n`` colors of a map of matplotlib, from one end to the other."""
    from matplotlib import colormaps

    return bytes(np.rint(colormaps[name](np.linspace(0, 1, n))[:, :3] * 255).astype(np.uint8)).hex()
