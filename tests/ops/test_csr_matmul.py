"""Products of sparse matrices with thin dense ones."""

from __future__ import annotations

import pytest
import torch

from mmphate_gpu.ops import csr_matmul as csr_matmul_module
from mmphate_gpu.ops.csr import Csr
from mmphate_gpu.ops.csr_matmul import matmul
from mmphate_gpu.ops.launch.twins import PORTABLE

from ..linalg.matrices import normal


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("width", [1, 15, 16, 40])
def test_matmul_is_in_the_dtype_of_the_block(sparse_and_dense, dtype, width):
    """Entries of either dtype, narrow and wide blocks, and a dtype that only the portable version accepts."""
    csr, dense = sparse_and_dense
    block = normal(11, width, dtype=dtype)
    for values in (csr.values, csr.values.float()):
        result = matmul(csr._replace(values=values), block, interleave=3)
        assert result.dtype == dtype and result.shape == (17, width)
        expected = torch.from_numpy(dense).to(values.dtype).to(dtype) @ block
        # Sums of a few products. Measured: 4e-16 and 2.4e-7.
        tolerance = 1e-14 if dtype == torch.float64 else 3e-6
        torch.testing.assert_close(result, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("width", [1, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_on_a_gpu_no_library_multiplies(sparse_and_dense, dtype, width, monkeypatch):
    """On every device except the CPU the op is called, and so its twin on CUDA."""
    csr, _ = sparse_and_dense
    called: list[str] = []
    monkeypatch.setattr(csr_matmul_module, "csr_matmul", lambda *_: called.append("op"))
    monkeypatch.setitem(PORTABLE, "csr_matmul", lambda *_: called.append("library"))
    for device in ("meta", "cpu"):
        parts = [part.to(device) for part in csr[:3]]
        matmul(Csr(*parts, csr.shape), torch.zeros(11, width, dtype=dtype, device=device))
    assert called == ["op", "library" if dtype == torch.float32 and width == 1 else "op"]
