// The float32 screen in front of float64 decisions by distance, and what decides them: shared by both twins.
#pragma once
#include "affinity.h"

// The float64 `step` places above x >= 0.
MMP_HD double mmp_neighbouring(double x, int step) {
    union {
        mmp_u64 bits;
        double value;
    } u;
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

// How rough a set is in float32: x is kept as x', the float32 of (x - c) * scale, with one c for a feature.
//
// With u = 2^-24, v = 2^-53, D the distance of two points, E the root of the float64 sum that decides (the order of
// mmp_squared_distance) and s the float32 sum of squared differences of the x', fused or not:
// - |x - c| <= span and scale = 2^-floor(log2(span)) give |(x - c) * scale| < 2. c is the same for both points, so it
//   does not matter which it is. The subtraction rounds by v of its result, the conversion by u of it: x' is off by at
//   most 2 * (u + v), a difference by twice that, the norm of p differences by sqrt(p) * 4.01 u. What falls below the
//   range of float32 is the smaller part of the 0.19 u added to it: CuPy has CUDA flush float32 results below 2^-126 to
//   0 (it appends -ftz=true to our options), so a coordinate, a difference and a square may be off by 2^-126 each, and
//   the root of the sum of p squares by sqrt(p) * 2^-62. The 0.19 u are 2^-26.4. Without the flush it is less.
// - A difference, its square and the sum of p of them round p + 2 times at most, each by u of itself: s is off by
//   (p + 3) u of itself, its root by half of that.
// - E is off from D by (p + 3) v / 2 of it, and, where float64 squares vanish, by sqrt(p) * 2^-537 at most.
// So E * scale and sqrt(s) differ by `error` and then by a share of less than `relative`, which is twice what was
// counted: the rest is for the arithmetic of the bounds themselves. Where float64 squares might overflow, where a
// coordinate is not finite or p is beyond reason, error is infinite: nothing is certain then, and float64 decides (the
// C++ twin takes finite points only).
struct MmpScreen {
    double scale, error, relative;
};

// Of a set of points with p features; span: the largest |x - c|, rounded (NaN if one is).
MMP_HD MmpScreen mmp_screen(double span, mmp_i64 p) {
    union {
        double value;
        mmp_u64 bits;
    } u;
    u.value = span;
    const mmp_i64 down = 1023 - (mmp_i64)(u.bits >> 52 & 0x7ff);
    const double root = sqrt((double)p), unit = mmp_power_of_two(-24);
    MmpScreen screen;
    screen.scale = mmp_power_of_two(down < -1000 ? -1000 : down > 1000 ? 1000 : down);
    screen.error = root * (4.2 * unit + mmp_power_of_two(-535) * screen.scale);
    screen.relative = (double)(p + 8) * unit;
    // Differences are up to 2 * span.
    const bool proven = span * root < mmp_power_of_two(510) && p < 1 << 20;
    if (!proven) screen.error = mmp_power_of_two(1023) * 2;
    return screen;
}

MMP_HD float mmp_below_infinity(double x) { return (float)(x < 3e38 ? x : mmp_power_of_two(1023) * 2); }

// Rough squares s up to this are surely within `radius`; -1 if none is. NaN is never.
MMP_HD float mmp_surely(const MmpScreen& screen, double radius) {
    const double least = (radius * screen.scale - screen.error) * (1 - screen.relative);
    return least > 0 ? mmp_below_infinity(least * least) : -1.0f;
}

// Rough squares above this are surely beyond `radius` >= 0.
MMP_HD float mmp_possibly(const MmpScreen& screen, double radius) {
    const double most = (radius * screen.scale + screen.error) * (1 + screen.relative);
    return mmp_below_infinity(most * most);
}

// Bounds of the float64 squared distance of a pair with this rough square.
MMP_HD double mmp_least_square(const MmpScreen& screen, float rough) {
    const double least = (sqrt((double)rough) * (1 - screen.relative) - screen.error) / screen.scale;
    return least > 0 ? least * least : 0;
}
MMP_HD double mmp_most_square(const MmpScreen& screen, float rough) {
    const double most = (sqrt((double)rough) * (1 + screen.relative) + screen.error) / screen.scale;
    return most * most;
}
