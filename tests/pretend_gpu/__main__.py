"""Run Python with the pretended GPU: ``python -m tests.pretend_gpu -m pytest -m cuda tests``."""

import os
import sys
from pathlib import Path

from .environment import environment

FOLDER = Path(__file__).resolve().parents[2] / "build" / "pretended_gpu"
os.execve(sys.executable, [sys.executable, *sys.argv[1:]], os.environ | environment(FOLDER))
