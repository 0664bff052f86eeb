"""Fixtures of the tests of twins: an instruction set for the C++ twins, and an emulation for the CUDA twins."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from mmphate_gpu import pipeline  # noqa: F401 - defines every op
from mmphate_gpu.ops.launch import native

from .cpp_points import POINT_SETS, stacks, stacks_of
from .emulation import ORDERS, Emulation, Twins
from .instruction_sets import ISAS


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "kernels(*names): the test fails if it does not start these CUDA kernels")


# ---------------------------------------------------------------- C++ twins


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The C++ twins of one instruction set are called."""
    monkeypatch.setattr(native, "isa", lambda: request.param)
    return request.param


@pytest.fixture
def each_isa(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Iterator[str]]:
    """A loop over the instruction sets, for tests whose expected result takes long."""

    def names() -> Iterator[str]:
        for name in ISAS:
            monkeypatch.setattr(native, "isa", lambda name=name: name)
            yield name

    return names


@pytest.fixture(params=["normal", *POINT_SETS])
def points_of(request: pytest.FixtureRequest) -> list[torch.Tensor]:
    """Stacks of points of several shapes."""
    return list(stacks() if request.param == "normal" else stacks_of(request.param))


# ---------------------------------------------------------------- CUDA twins


@pytest.fixture(scope="session")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> Emulation:
    return Emulation(tmp_path_factory.mktemp("cuda_emulation"))


# The third order is a variation on the others.
@pytest.fixture(
    params=[*ORDERS[:2], pytest.param(ORDERS[2], marks=pytest.mark.slow)], ids=lambda order: f"order {order}"
)
def cuda(emulation: Emulation, request: pytest.FixtureRequest) -> Twins:
    """The CUDA twins, with threads and blocks in each of several orders."""
    emulation.order = request.param
    return emulation.twins()


@pytest.fixture
def cuda_in_turn(emulation: Emulation, request: pytest.FixtureRequest) -> Twins:
    """The CUDA twins in one order, which differs from test to test: for tests over many shapes."""
    emulation.order = ORDERS[len(request.node.name) % len(ORDERS)]
    return emulation.twins()


@pytest.fixture(autouse=True)
def marked_kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test with the mark `kernels` starts these kernels."""
    mark = request.node.get_closest_marker("kernels")
    if mark is None:
        yield
        return
    started = request.getfixturevalue("emulation").started
    started.clear()
    yield
    assert set(mark.args) <= started
