"""What the launchers of the CUDA twins have in common.

Outputs come from torch and kernels run on torch's current stream, so that nothing has to synchronize and there is one
memory pool.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch

from .kernel import Launch, Start
from .native import NativeError

C_TYPES = {torch.int32: "mmp_i32", torch.int64: "mmp_i64", torch.float32: "float", torch.float64: "double"}


def storage_types(indices: torch.dtype, values: torch.dtype) -> dict[str, str]:
    """The defines of a kernel that reads or writes the entries of a sparse matrix."""
    return {"MMP_INDEX": C_TYPES[indices], "MMP_VALUE": C_TYPES[values]}


class Kept:
    """The last object that a launcher made from a tensor, for as long as the tensor lives and does not change.

    A single one is enough, because launches that need the same object follow one another. This class is safe in
    threads: each method reads ``_last`` once or assigns it once.
    """

    def __init__(self) -> None:
        # The tensor, the key that it must still have, and what was made from it.
        self._last: tuple[weakref.ref[torch.Tensor], tuple[int, ...], Any] | None = None

    def get(self, tensor: torch.Tensor, form: int) -> Any | None:
        last = self._last
        if last is None or last[0]() is not tensor or last[1] != self._key_of(tensor, form):
            return None
        return last[2]

    def put(self, tensor: torch.Tensor, form: int, made: Any) -> None:
        if not tensor.is_inference():  # inference tensors do not record when they change
            self._last = weakref.ref(tensor, self._forget), self._key_of(tensor, form), made

    def _forget(self, tensor: weakref.ref[torch.Tensor]) -> None:
        """Drop the object of a tensor that died, and perhaps that of another thread: it is made again then."""
        last = self._last
        if last is not None and last[0] is tensor:
            self._last = None

    @staticmethod
    def _key_of(tensor: torch.Tensor, form: int) -> tuple[int, ...]:
        stream = torch.cuda.current_stream(tensor.device).cuda_stream if tensor.is_cuda else 0
        return tensor._version, form, stream


class Gpu:
    """Starts kernels by the function ``start``: CuPy's on a GPU, that of an emulation on the CPU in the tests."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self.kept = Kept()

    def run(self, launch: Launch, device: torch.device) -> None:
        for tensor in launch.arguments:
            if isinstance(tensor, torch.Tensor) and tensor.device != device:
                raise NativeError(f"{launch.kernel}: a tensor is on {tensor.device}; accepted: {device}, as the others")
        if launch.blocks > 0:
            self._start(launch, device)
