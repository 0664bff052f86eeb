"""``python -m mmphate_gpu``: the same as the command ``mmphate-gpu``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
