"""Arrays of CuPy, which hold a tensor of the pretended GPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch


class ndarray:
    def __init__(self, tensor: torch.Tensor) -> None:
        assert tensor.is_cuda
        self.tensor = tensor
        self.shape, self.ndim = tuple(tensor.shape), tensor.ndim

    def __dlpack__(self, **options: Any) -> Any:
        with torch.cuda.device(self.tensor.device):
            return self.tensor.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.tensor.__dlpack_device__()

    def __array__(self, *_: Any, **__: Any) -> None:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    @property
    def device(self) -> Any:
        return SimpleNamespace(id=self.tensor.device.index)

    @property
    def dtype(self) -> np.dtype:
        return torch.empty(0, dtype=self.tensor.dtype).numpy().dtype

    def __len__(self) -> int:
        return self.shape[0]

    def get(self) -> Any:
        return self.tensor.cpu().numpy()


def from_dlpack(source: Any) -> ndarray:
    platform, index = source.__dlpack_device__()
    assert platform == 2, "not a tensor of CUDA"
    with torch.cuda.device(index):  # CuPy makes the device of the tensor the current one
        return ndarray(torch.from_dlpack(source.__dlpack__()))
