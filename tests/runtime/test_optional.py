"""Optional packages: what is installed, which extra is named, and what an import loads."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from mmphate_gpu.errors import InputError
from mmphate_gpu.runtime import optional


def test_optional():
    assert optional.available("json") and not optional.available("no_such_package.at_all")
    assert optional.require("json", extra="x", purpose="y") is json
    with pytest.raises(InputError, match="drawing needs the package 'no_such': pip install \"mmphate-gpu\\[plots\\]\""):
        optional.require("no_such", extra="plots", purpose="drawing")
    with pytest.raises(InputError, match='pip install "no_such" '):
        optional.require("no_such.part", purpose="drawing")


@pytest.mark.parametrize(
    ("cuda", "extra"), [("12.9", "cuda12"), ("13.0", "cuda13"), ("14.1", "cuda13"), (None, "cuda13")], ids=str
)
def test_the_extra_is_that_of_torchs_cuda(cuda, extra, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    for module in ("cupy", "cupyx", "cupyx.scipy.sparse"):  # one of them may have been imported
        monkeypatch.setitem(sys.modules, module, None)
    for module in ("cupy", "cupyx.scipy.sparse"):
        with pytest.raises(InputError, match=rf"drawing needs the package '{module}'.*\"mmphate-gpu\[{extra}\]\""):
            optional.require_cupy(module, purpose="drawing")


def test_importing_is_light():
    code = (
        "import sys, mmphate_gpu.trace, mmphate_gpu.record, mmphate_gpu.runtime.optional as o; o.available('xarray');"
        "bad = {'cupy', 'pykeops', 'pynndescent', 'matplotlib', 'sklearn', 'xarray', 'pandas', 'zarr', 'h5py'};"
        "sys.exit(str(bad & set(sys.modules)) if bad & set(sys.modules) else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).returncode == 0
