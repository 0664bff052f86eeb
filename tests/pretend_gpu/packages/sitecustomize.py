"""Makes the pretended GPU. Python imports this module when it starts, if its folder is on PYTHONPATH."""

import os
import sys
import traceback
from pathlib import Path

# The checkout, for the modules of the pretended GPU. It comes last, so that an installed mmphate_gpu wins over it.
sys.path.append(str(Path(__file__).resolve().parents[3]))
try:
    from tests.pretend_gpu import device

    device.install()
except BaseException:
    traceback.print_exc()
    os._exit(1)  # after an exception Python would go on without a GPU, and tests would be skipped
