"""Python imports this module when it starts, where the folder of this file is on PYTHONPATH."""

from tests.pretend_gpu import device

device.install()
