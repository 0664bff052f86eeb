// What decides a pair by its squared distance: shared by the screens of both twins.
#pragma once
#include "portable.h"
#if !defined(__CUDACC_RTC__)
#include <math.h>
#endif

// The float64 `step` places above x >= 0.
MMP_HD double mmp_neighbouring(double x, int step) {
    union { mmp_u64 bits; double value; } u;
    u.value = x;
    u.bits += (mmp_u64)(mmp_i64)step;
    return u.value;
}

// The largest x with sqrt(x) <= reach.
MMP_HD double mmp_squared_reach(double reach) {
    double square = reach * reach;
    if (!(square < 1.7976931348623157e308)) return square;
    while (sqrt(square) > reach) square = mmp_neighbouring(square, -1);
    for (;;) {
        const double next = mmp_neighbouring(square, 1);
        if (sqrt(next) > reach) return square;
        square = next;
    }
}
