"""The float32 screen of the CUDA kernels over pairs, emulated: its bounds, and the pairs that it leaves to float64."""

from __future__ import annotations

import ctypes
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmphate_gpu.affinities.bandwidth import interslice_bandwidth
from mmphate_gpu.datasets import bifurcation
from mmphate_gpu.ops.launch.kernel import Launch
from mmphate_gpu.ops.launch.sources import source_folder
from mmphate_gpu.ops.launch.twins import CPP
from mmphate_gpu.ops.pair_stack import stack_of
from mmphate_gpu.ops.radius_affinity import cut_distance
from mmphate_gpu.slices import unit_major
from mmphate_gpu.trace import normalize

from .cases import assert_same, normal
from .emulated_checks import (
    COUNTED,
    check_kth,
    check_radius,
    check_symmetrized,
    distances_of,
    has_cpp,
    middle_distance,
    others,
)
from .emulation import ORDERS, Emulation, Twins, compile_text, needs_emulation

pytestmark = needs_emulation


def _shells(p: int, scale: float, offset: float) -> torch.Tensor:  # (2, 70, p)
    """Points around the first point, at distances that differ by 1e-9 to 1e-6 or not at all; some of them twice."""
    rng = np.random.default_rng(p)
    directions = rng.normal(size=(2, 70, p))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    off = 10.0 ** rng.uniform(-9, -6, (2, 70, 1)) * rng.choice((-1, 0, 1), (2, 70, 1))
    points = directions * (1 + off)
    points[:, 0] = 0
    points[:, 40:50] = points[:, 30:40]
    return torch.from_numpy((points + offset) * scale)


def _around(distance: float) -> list[float]:
    """A distance, the float64 numbers beside it, and others too near for float32 to distinguish."""
    near = [distance * (1 + off) for off in (-1e-6, -1e-7, -1e-8, 1e-8, 1e-7, 1e-6)]
    return [distance, math.nextafter(distance, 0), math.nextafter(distance, math.inf), *near]


# Scale, and offset in scales. In the last two, squares vanish or overflow in float64.
RANGES = {"plain": (1, 0), "offset": (1, 1e6), "small": (1e-30, 0), "large": (1e30, 3), "tiny": (1e-161, 0)}
RANGES |= {"beyond": (1e154, 0)}


@pytest.mark.slow
@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("p", [1, 10, 33, 100])
def test_pairs_that_float32_cannot_tell_apart(cuda_in_turn: Twins, name: str, p: int) -> None:
    points = _shells(p, *RANGES[name])
    distances = others(points)
    for reach in _around(float(distances[0, 0, 20])):
        counts = cuda_in_turn.radius_counts(points, reach)
        # Squares that overflow are infinite, which is within an infinite reach, except for the point itself.
        near = (distances <= reach) & ~torch.eye(70, dtype=torch.bool)
        assert torch.equal(counts, near.sum(-1))
        if has_cpp():
            assert_same((counts,), (CPP["radius_counts"](points, reach),))
    if name != "beyond":  # its bandwidths would be infinite
        check_radius(cuda_in_turn, points, 2.0, *COUNTED)
        check_symmetrized(cuda_in_turn, points, 2.0, 0.3, torch.float64)
    for k in (1, 35, 69):
        check_kth(cuda_in_turn, points, k)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, 1e300])
def test_what_the_screen_has_no_bound_for(cuda_in_turn: Twins, wrong: float) -> None:
    """A coordinate that is not finite, or too large, does not change the result of other points of its set."""
    points = normal(2, 70, 6)
    points[1, [3, 35], 2] = wrong
    near = distances_of(points) <= 2.0
    near[:, range(70), range(70)] = False
    assert torch.equal(cuda_in_turn.radius_counts(points, 2.0), near.sum(-1))


_SCREEN = """
#include <cuda_emulation.h>
#include "{csrc}/common/screen.h"
namespace of {{
#include "{csrc}/cuda/pair_cut.h"
}}
using namespace of;
extern "C" double screen_error(double span, long long p) {{ return mmp_screen(span, p).error; }}
// How many of n pairs the screen decides wrongly, and the largest share of its error bound that a pair has.
extern "C" long long screen_faults(const double* x, const double* y, const float* a, const float* b, long long n,
                                   long long p, double span, double* used) {{
    const MmpScreen screen = mmp_screen(span, p);
    long long faults = 0;
    for (long long i = 0; i < n; ++i) {{
        const double square = mmp_squared_distance(x + i * p, 1, y + i * p, 1, p), root = sqrt(square);
        float fused = 0, rounded = 0;
        for (long long f = i * p; f < (i + 1) * p; ++f) {{
            const float d = a[f] - b[f];
            fused = fmaf(d, d, fused), rounded = rounded + d * d;
        }}
        for (const float rough : {{fused, rounded}}) {{
            faults += rough <= mmp_surely(screen, std::nextafter(root, 0.0)) || rough > mmp_possibly(screen, root);
            faults += square < mmp_least_square(screen, rough) || square > mmp_most_square(screen, rough);
            const double off = std::fabs(sqrt((double)rough) - root * screen.scale);
            *used = std::fmax(*used, off / (screen.error + screen.relative * root * screen.scale));
        }}
    }}
    return faults;
}}
"""


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = compile_text("screen", _SCREEN.format(csrc=source_folder()), tmp_path_factory.mktemp("screen"))
    library.screen_error.restype, library.screen_error.argtypes = ctypes.c_double, (ctypes.c_double, ctypes.c_int64)
    return library


def _pointer(values: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(values.data_ptr())


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30, 1e-160, 1e-305])
@pytest.mark.parametrize("p", [1, 2, 10, 50, 200])
def test_the_bound_of_the_screen_holds(emulation: Emulation, screen: ctypes.CDLL, p: int, scale: float) -> None:
    """4,000 pairs with distances from 1e-9 of the span up to the span."""
    rng = np.random.default_rng(p)
    ends = rng.uniform(-1, 1, (1, 4000, p)) * 10.0 ** rng.uniform(-9, 0, (1, 4000, 1))
    middle = rng.uniform(-1, 1, (1, 4000, p))
    points = torch.from_numpy(np.concatenate([middle, np.zeros((1, 1, p)), middle + ends], 1) * scale)
    stack = stack_of(emulation.twins().gpu, points)
    rough = stack.rough.transpose(2, 3).flatten(1, 2)[..., :p]  # without the padding of features
    spans = stack.spans
    x, y = points[0, :4000].contiguous(), points[0, 4001:].contiguous()
    a, b = rough[0, :4000].contiguous(), rough[0, 4001:].contiguous()
    used, span = ctypes.c_double(), ctypes.c_double(float(spans))
    arguments = (*map(_pointer, (x, y, a, b)), ctypes.c_int64(4000), ctypes.c_int64(p), span, ctypes.byref(used))
    assert screen.screen_faults(*arguments) == 0
    assert used.value <= 1  # measured: 0.46 for p = 1 to 0.05 for p = 200, since errors rarely add up
    # The bound is useful: 4.2 2^-24 sqrt(p) of the span, unless squares vanish.
    assert screen.screen_error(span, p) == pytest.approx(4.2 * 2**-24 * p**0.5, rel=1e-12) or scale < 1e-150


def test_the_screen_gives_up_where_it_has_no_bound(screen: ctypes.CDLL) -> None:
    for span, p in ((math.nan, 3), (math.inf, 3), (1e154, 3), (1.0, 2**20)):
        assert screen.screen_error(span, p) == math.inf
    assert screen.screen_error(1e153, 3) < 1e-6 and screen.screen_error(0.0, 3) < math.inf


def _pairs_in_doubt(emulation: Emulation, points: torch.Tensor, reach: float) -> int:
    """How many ordered pairs float64 decides: only these change with the float64 points of the kernel."""

    def count(exact: float) -> int:
        def start(launch: Launch, device: torch.device) -> None:
            if launch.kernel == "radius_count":
                launch = replace(launch, arguments=(torch.full_like(points, exact), *launch.arguments[1:]))
            emulation.start(launch, device)

        return int(Twins(start).radius_counts(points, reach).sum())

    return count(0.0) - count(math.nan)


def test_few_pairs_of_a_trace_reach_float64(emulation: Emulation) -> None:
    """Float64 decides few pairs. At full size it is 0.3 in a million for Hopf, and 1 for Hopf and pitchfork."""
    for scenario in ("hopf", "hopf_pitchfork"):
        by_unit = unit_major(normalize(bifurcation(scenario, n_epochs=12, n_timesteps=30)))
        bandwidth = interslice_bandwidth(by_unit, 25)
        reach = float(cut_distance(bandwidth, decay=2.0, thresh=1e-4))
        pairs = by_unit.shape[0] * by_unit.shape[1] ** 2
        assert _pairs_in_doubt(emulation, by_unit.contiguous(), reach) <= 1e-5 * pairs
    # Pairs that must be in doubt are counted: those of the first point of each set with the others, and their ties.
    points = _shells(10, 1, 0)
    assert _pairs_in_doubt(emulation, points, float(others(points)[0, 0, 20])) >= 4 * 60


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("p", [6, 33, 100])
def test_nothing_is_read_before_it_is_there(emulation: Emulation, p: int, order: int) -> None:
    """Shared memory begins as NaN, which is in doubt. So a read before the write shows as more pairs in doubt."""
    emulation.order, points = order, normal(1, 330, p)
    reach = middle_distance(points)
    assert _pairs_in_doubt(emulation, points, reach) <= 30  # a fault: thousands
    assert torch.equal(emulation.twins().radius_counts(points, reach), (others(points) <= reach).sum(-1))
