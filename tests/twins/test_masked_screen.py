"""The bound of csrc/common/screen.h for points that lack features, on a copy of the float32 arithmetic."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from mmphate_gpu.ops.launch.sources import source_folder

from .emulation import compile_text, needs_emulation

pytestmark = needs_emulation

_SCREEN = """
#include <cmath>
#include <initializer_list>
#include "{csrc}/common/screen.h"
// How many of n pairs the screen decides wrongly, and the largest share of its error bound that a pair has. x and y are
// centered points. The factor p / count is off by up to 3 units of rounding, its own included.
extern "C" long long screen_faults(const double* x, const double* y, long long n, long long p, double span,
                                   double* used) {{
    const MmpScreen screen = mmp_screen(span, p);
    long long faults = 0;
    for (long long i = 0; i < n; ++i) {{
        const double square = mmp_masked_squared_distance(x + i * p, 1, y + i * p, 1, p), root = sqrt(square);
        float fused = 0, rounded = 0, count = 0;
        for (long long f = i * p; f < (i + 1) * p; ++f) {{
            const float d = (float)(x[f] * screen.scale) - (float)(y[f] * screen.scale);
            if (d != d) continue;
            fused = fmaf(d, d, fused), rounded = rounded + d * d, count = count + 1;
        }}
        for (const double off : {{-2.0, 0.0, 2.0}})
            for (const float sum : {{fused, rounded}}) {{
                const float rough = sum * (float)((float)p / count * (1 + off * mmp_power_of_two(-24)));
                faults += rough <= mmp_surely(screen, std::nextafter(root, 0.0)) || rough > mmp_possibly(screen, root);
                const double error = std::fabs(sqrt((double)rough) - root * screen.scale);
                *used = std::fmax(*used, error / (screen.error + screen.relative * root * screen.scale));
            }}
    }}
    return faults;
}}
"""


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return compile_text("masked_screen", _SCREEN.format(csrc=source_folder()), tmp_path_factory.mktemp("screen"))


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30, 1e-160])
@pytest.mark.parametrize("p", [1, 2, 10, 70])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_the_bound_holds_for_any_number_of_common_features(screen, share, p, scale):
    """4,000 pairs with distances from 1e-9 of the span up to the span, and 1 to p features in common."""
    rng = np.random.default_rng(p)
    middle = rng.uniform(-1, 1, (4000, p))
    ends = middle + rng.uniform(-1, 1, (4000, p)) * 10.0 ** rng.uniform(-9, 0, (4000, 1))
    kept = rng.integers(0, p, 4000)
    points = []
    for values in (middle, ends):
        lacking = rng.random((4000, p)) > share
        lacking[np.arange(4000), kept] = False
        points.append(np.where(lacking, np.nan, values * scale))
    span, used = ctypes.c_double(2.0 * scale), ctypes.c_double()
    arrays = [ctypes.c_void_p(array.ctypes.data) for array in points]
    assert screen.screen_faults(*arrays, ctypes.c_int64(4000), ctypes.c_int64(p), span, ctypes.byref(used)) == 0
    assert used.value <= 1
