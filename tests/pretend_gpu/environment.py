"""The variables with which Python starts with the pretended GPU."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGES = Path(__file__).with_name("packages")
FOLDER_VARIABLE = "MMPHATE_PRETEND_GPU"  # it names the folder of the compiled libraries


def environment(folder: Path) -> dict[str, str]:
    """These variables; libraries are kept in ``folder``."""
    paths = [str(PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {FOLDER_VARIABLE: str(folder), "PYTHONPATH": os.pathsep.join(paths), "TRITON_INTERPRET": "1"}
