"""Arrays of CuPy, which hold a tensor of the pretended GPU."""

from __future__ import annotations

from typing import Any

import torch


class ndarray:
    def __init__(self, tensor: torch.Tensor) -> None:
        assert tensor.is_cuda
        self.tensor = tensor
        self.shape, self.ndim, self.dtype = tuple(tensor.shape), tensor.ndim, torch.empty(0, dtype=tensor.dtype).numpy().dtype

    def __dlpack__(self, **options: Any) -> Any:
        with torch.cuda.device(self.tensor.device):
            return self.tensor.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.tensor.__dlpack_device__()

    def __array__(self, *_: Any, **__: Any) -> None:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __len__(self) -> int:
        return self.shape[0]

    def get(self) -> Any:
        return self.tensor.cpu().numpy()


def from_dlpack(source: Any) -> ndarray:
    assert source.__dlpack_device__()[0] == 2, "not a tensor of CUDA"
    return ndarray(torch.from_dlpack(source.__dlpack__()))
