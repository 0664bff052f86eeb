"""The page inside a notebook."""

from __future__ import annotations

import html

FRAME = "width: 100%; height: 600px; border: 1px solid #8884; border-radius: 8px"
CAPTION = "margin: 4px 0; font-size: 90%; opacity: 0.75"


def framed(page: str, caption: str) -> str:
    """HTML with the page in a frame of its own, which cannot touch the notebook, above a line of text."""
    sandbox = 'sandbox="allow-scripts allow-downloads" title="MM-PHATE"'
    frame = f'<iframe srcdoc="{html.escape(page)}" {sandbox} style="{FRAME}"></iframe>'
    return f'{frame}<p style="{CAPTION}">{html.escape(caption)}</p>'
