"""The Triton twins on a GPU, against the portable versions on the CPU, and against themselves."""

from __future__ import annotations

import pytest
import torch

from mmphate_gpu.ops.launch.twins import TRITON

from .test_triton_interpreter import TOLERANCE, assert_nearest, relative_error
from .triton_cases import CASES, NEAREST, portable

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(TRITON.why_not() is not None, reason=str(TRITON.why_not())),
]


@pytest.mark.parametrize("name", CASES)
def test_twin_and_portable_agree(name: str) -> None:
    op, make = CASES[name]
    arguments = [value.cuda() if isinstance(value, torch.Tensor) else value for value in make()]
    result = getattr(torch.ops.mmphate_gpu, op)(*arguments)
    assert TRITON.why_not() is None and result.is_cuda  # this is not the portable version
    assert relative_error(result.cpu(), portable(name)) <= TOLERANCE[op]
    assert torch.equal(result, getattr(torch.ops.mmphate_gpu, op)(*arguments))


@pytest.mark.parametrize("name", NEAREST)
def test_nearest_centers(name: str) -> None:
    arguments = NEAREST[name]()
    result = torch.ops.mmphate_gpu.assign_nearest(*(part.cuda() for part in arguments))
    assert TRITON.why_not() is None and result[0].is_cuda
    assert_nearest(result, *arguments)
