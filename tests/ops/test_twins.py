"""Which versions of an op there are, and which of them runs."""

from __future__ import annotations

import torch

from mmphate_gpu.ops.launch import native
from mmphate_gpu.ops.launch.twins import CUPY, PORTABLE, serves, serving


def test_the_reported_versions_are_those_that_run():
    """The lines for the CPU and for CUDA name the versions that do run."""
    cpu, cuda = serving("cpu"), serving("cuda")
    assert cpu.startswith("C++ (" if serves(torch.device("cpu")) else "portable torch (")
    assert cuda.startswith("CUDA" if serves(torch.device("cuda")) else "portable torch (")
    switch = f"{native.SWITCH}=0 in the environment"
    assert (switch in cpu) == (switch in cuda) == native.switched_off()
    if not torch.cuda.is_available() and not native.switched_off():
        assert cuda == "portable torch (torch sees no CUDA device)" and CUPY.why_not() is not None
    assert not serves(torch.device("meta"))


def test_twins_are_ops_of_torch():
    assert {"csr_matmul", "radius_counts", "radius_fill", "symmetrized_affinity"} <= set(PORTABLE)
    for name, portable in PORTABLE.items():
        op = getattr(torch.ops.mmphate_gpu, name)
        assert op.__doc__ == portable.__doc__ and portable.__name__ == name
