"""Makes the pretended GPU. Python imports this module when it starts, if its folder is on PYTHONPATH."""

import os
import traceback

try:
    from tests.pretend_gpu import device

    device.install()
except BaseException:
    traceback.print_exc()
    os._exit(1)  # after an exception Python would go on without a GPU, and tests would be skipped
