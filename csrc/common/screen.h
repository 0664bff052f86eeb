// The float32 screen: it decides most pairs by bounds, and leaves the pairs in doubt to float64.
#pragma once
#include "affinity.h"

// The float64 number that comes `step` places after x >= 0.
MMP_HD double mmp_neighboring(double x, int step) {
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
    while (sqrt(square) > reach) square = mmp_neighboring(square, -1);
    for (;;) {
        const double next = mmp_neighboring(square, 1);
        if (sqrt(next) > reach) return square;
        square = next;
    }
}

// The error bound of a set of points in float32. A coordinate x is stored as x', the float32 of (x - c) * scale, with
// one c for each feature.
//
// Notation: u = 2^-24 and v = 2^-53 are the relative roundings of float32 and float64. D is the distance of two points.
// E is the root of the float64 sum that decides, in the order of mmp_squared_distance. s is the float32 sum of the
// squared differences of the x', fused or not.
// - |x - c| <= span and scale = 2^-floor(log2(span)) give |(x - c) * scale| < 2. Both points have the same c, so its
//   value does not matter. The subtraction rounds by v of its result, and the conversion by u. So x' is off by at most
//   2 * (u + v), a difference by twice that, and the norm of p differences by sqrt(p) * 4.01 u. The code takes 4.2 u.
// - The additional 0.19 u, which is 2^-26.4, also covers results below the range of float32. CuPy appends -ftz=true to
//   our options, and CUDA then flushes float32 results below 2^-126 to 0. So a coordinate, a difference and a square
//   may be off by 2^-126 each, and the root of the sum of p squares by sqrt(p) * 2^-62.
// - A difference, its square and the sum of p squares round at most p + 2 times, each by u of the result. So s is off
//   by (p + 3) u of its value, and its root by half of that.
// - E is off from D by (p + 3) v / 2 of its value, and by at most sqrt(p) * 2^-537 where float64 squares vanish.
// So E * scale and sqrt(s) differ by `error` and by a share of less than `relative`. `relative` is twice the sum of
// these shares, because the arithmetic of the bounds rounds too. `error` is infinite if float64 squares might overflow,
// if a coordinate is not finite, or if p is 2^20 or more. Then nothing is certain, and float64 decides every pair. (The
// C++ twin takes finite points only.)
//
// Points may lack features, which are NaN. Then D is the distance over the c >= 1 features that both have, times the
// root of g = p / c. E is the root of mmp_masked_squared_distance. s is the float32 sum over these features times a
// float32 number that is off by at most 3 u of g. span is the largest |x - c| that there is. The same bounds hold:
// - The norm of c differences is off by sqrt(c) * 4.01 u, and the root of g multiplies this to sqrt(p) * 4.01 u. The
//   same goes for results below the range of float32, sqrt(p) * 2^-62, and of float64, sqrt(p) * 2^-537. As g >= 1, the
//   product with it falls below the range only if the sum does.
// - The sum rounds at most c + 2 times, and the product adds 3 u + u. So s is off by (p + 7) u of its value. E rounds
//   twice more, so it is off by (p + 5) v / 2. Twice the shares are (p + 7) u + (p + 5) v, less than `relative`.
// - A sum of c squares times g is at most p times the largest square, so no number overflows that did not before.
// Two points without a common feature have c = 0. They are within no radius: 0 times an infinite g is NaN.
struct MmpScreen {
    double scale, error, relative;
};

// The screen of a set of points with p features. `span` is the largest |x - c| of the set, or NaN if one of them is.
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

// The bound up to which a rough square s is surely within `radius`; -1 if there is no such s. NaN is above the bound.
MMP_HD float mmp_surely(const MmpScreen& screen, double radius) {
    const double least = (radius * screen.scale - screen.error) * (1 - screen.relative);
    return least > 0 ? mmp_below_infinity(least * least) : -1.0f;
}

// The bound above which a rough square is surely beyond `radius` >= 0.
MMP_HD float mmp_possibly(const MmpScreen& screen, double radius) {
    const double most = (radius * screen.scale + screen.error) * (1 + screen.relative);
    return mmp_below_infinity(most * most);
}
