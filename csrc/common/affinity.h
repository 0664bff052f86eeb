// The arithmetic of the affinity: distances by differences, the kernel, the symmetrized kernel.
//
// Every function rounds after every operation (no fused multiply-add: both twins are compiled without contraction), so
// the same pair has the same bits on every instruction set and on the GPU.
#pragma once
#include "portable.h"
#if !defined(__CUDACC_RTC__)
#include <math.h>
#endif

// Source of a point: x[f * stride] is feature f.
MMP_HD double mmp_squared_distance(const double* x, mmp_i64 x_stride, const double* y, mmp_i64 y_stride, mmp_i64 p) {
    double sum = 0;
    for (mmp_i64 f = 0; f < p; ++f) {
        const double d = x[f * x_stride] - y[f * y_stride];
        sum = sum + d * d;
    }
    return sum;
}

// 2^k for -1022 <= k <= 1023.
MMP_HD double mmp_power_of_two(mmp_i64 k) {
    union {
        mmp_u64 bits;
        double value;
    } u;
    u.bits = (mmp_u64)(k + 1023) << 52;
    return u.value;
}

// The same, given 1.5 * 2^52 + k, whose lowest bits are those of k: AVX2 cannot convert to 64-bit integers.
MMP_HD double mmp_power_of_shifted(double shifted) {
    union {
        double value;
        mmp_u64 bits;
    } u;
    u.value = shifted;
    u.bits = (u.bits + 1023) << 52;
    return u.value;
}

// exp(x) for x <= 0, to about one unit in the last place; 0 below -708. Taylor polynomial after Cody-Waite reduction:
// written out so that it vectorises and gives the same bits everywhere, which no two libraries' exp do.
MMP_HD double mmp_exp_nonpositive(double x) {
    const double clipped = x > -708.0 ? x : -708.0;
    const double shifted = clipped * 1.4426950408889634 + 6755399441055744.0;  // nearest integer, by the magic sum
    const double k = shifted - 6755399441055744.0;
    const double r = (clipped - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10;
    double e = 1.6059043836821613e-10;  // 1/13!
    e = e * r + 2.0876756987868099e-09;
    e = e * r + 2.5052108385441719e-08;
    e = e * r + 2.7557319223985893e-07;
    e = e * r + 2.7557319223985891e-06;
    e = e * r + 2.4801587301587302e-05;
    e = e * r + 1.9841269841269841e-04;
    e = e * r + 1.3888888888888889e-03;
    e = e * r + 8.3333333333333332e-03;
    e = e * r + 4.1666666666666664e-02;
    e = e * r + 1.6666666666666666e-01;
    e = e * r + 0.5;
    e = e * r + 1.0;
    e = e * r + 1.0;
    const double value = e * mmp_power_of_shifted(shifted);
    return x < -708.0 ? 0.0 : value;
}

// The decay as a whole number from 1 to 16; 0 if it is none.
MMP_HD int mmp_whole_decay(double decay) {
    const int whole = decay >= 1 && decay <= 16 ? (int)decay : 0;
    return (double)whole == decay ? whole : 0;
}

// u^decay for u >= 0. Whole decays up to 16 by squaring and multiplying, with the same bits everywhere; the others by the
// library's pow, which differs in its last bit from one library to the next.
MMP_HD double mmp_decay_power(double u, double decay) {
    const int whole = mmp_whole_decay(decay);
    if (whole == 0) return pow(u, decay);
    double power = 1, square = u;
    for (int left = whole; left; left /= 2) {
        if (left % 2) power = power * square;
        square = square * square;
    }
    return power;
}

// exp(-(d / bandwidth)^decay)
MMP_HD double mmp_kernel(double distance, double bandwidth, double decay) {
    return mmp_exp_nonpositive(-mmp_decay_power(distance / bandwidth, decay));
}

// The averaged affinity of two points with a bandwidth each: one-sided values cut, averaged, and cut again (0 is "no").
MMP_HD double mmp_symmetrized_kernel(double distance, double bandwidth_i, double bandwidth_j, double decay,
                                     double thresh, double smallest) {
    const double forward = mmp_kernel(distance, bandwidth_i, decay);
    const double backward = mmp_kernel(distance, bandwidth_j, decay);
    const double value = (forward >= thresh ? forward : 0.0) / 2 + (backward >= thresh ? backward : 0.0) / 2;
    const double least = thresh > smallest ? thresh : smallest;
    return value >= least ? value : 0.0;
}
