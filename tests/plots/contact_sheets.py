"""Sheets of all pictures side by side, to look at them: python -m tests.plots.contact_sheets FOLDER [NAMES ...]."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image

from mmphate_gpu.plots.canvas import plain_style

from .pictures import NAMES, PICTURES, WIDTHS, picture_of

COLUMNS, SPACE, DPI = 2300, 12, {3.35: 110, None: 90, 7.2: 90}  # pixels of a sheet, between pictures, and of an inch


def sheet(names: str, width: float | None) -> Image.Image:
    """Every picture with the names of a line of `NAMES`, in rows from the left."""
    page = Image.new("RGB", (COLUMNS, 20_000), "#7f7f7f")
    left = top = below = SPACE
    for picture in PICTURES:
        drawn = io.BytesIO()
        with plain_style():
            picture_of(picture, names, width).savefig(drawn, dpi=DPI[width])
        image = Image.open(drawn).convert("RGB")
        if left + image.width > COLUMNS:
            left, top = SPACE, below
        page.paste(image, (left, top))
        left, below = left + image.width + SPACE, max(below, top + image.height + SPACE)
    return page.crop((0, 0, COLUMNS, below))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for names in sys.argv[2:] or NAMES:
        for inches in WIDTHS:
            sheet(names, inches).save(folder / f"{names}, {inches or 'default'}.png".replace(" ", "_"))
