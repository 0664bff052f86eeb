"""Limits on memory."""

from __future__ import annotations

import sys

import pytest

MIB = 2**20


linux = pytest.mark.skipif(sys.platform != "linux", reason="the limits are those of Linux")
