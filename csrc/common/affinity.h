// The arithmetic of the affinities: distances by differences, the kernel, and the symmetrized kernel.
//
// The C++ and the CUDA twins are compiled without contraction, so every function rounds after every operation. A pair
// therefore has the same bits on every instruction set and on the GPU.
#pragma once
#include "portable.h"
#if !defined(__CUDACC_RTC__)
#include <math.h>
#endif

// The squared distance of two points with p features. Feature f of x is x[f * x_stride].
MMP_HD double mmp_squared_distance(const double* x, mmp_i64 x_stride, const double* y, mmp_i64 y_stride, mmp_i64 p) {
    double sum = 0;
    for (mmp_i64 f = 0; f < p; ++f) {
        const double d = x[f * x_stride] - y[f * y_stride];
        sum = sum + d * d;
    }
    return sum;
}

// The same for points that may lack features, which are NaN: over the features that both have, scaled to all p. The
// result is NaN if they have none in common.
MMP_HD double mmp_masked_squared_distance(const double* x, mmp_i64 x_stride, const double* y, mmp_i64 y_stride,
                                          mmp_i64 p) {
    double sum = 0, count = 0;
    for (mmp_i64 f = 0; f < p; ++f) {
        const double d = x[f * x_stride] - y[f * y_stride];
        if (d == d) sum = sum + d * d, count = count + 1;
    }
    return sum * ((double)p / count);
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

// 2^k from shifted = 1.5 * 2^52 + k, whose lowest bits are those of k. AVX2 cannot convert k to a 64-bit integer.
MMP_HD double mmp_power_of_shifted(double shifted) {
    union {
        double value;
        mmp_u64 bits;
    } u;
    u.value = shifted;
    u.bits = (u.bits + 1023) << 52;
    return u.value;
}

// exp(x) for x <= 0, to about one unit in the last place; 0 below -708.
//
// This is a Taylor polynomial after a Cody-Waite reduction. It vectorizes and has the same bits everywhere. The exp of
// two libraries may differ.
MMP_HD double mmp_exp_nonpositive(double x) {
    const double clipped = x > -708.0 ? x : -708.0;
    const double shifted = clipped * 1.4426950408889634 + 6755399441055744.0;  // the sum rounds to an integer
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

// The decay as an integer if it is one from 1 to 16, else 0.
MMP_HD int mmp_whole_decay(double decay) {
    const int whole = decay >= 1 && decay <= 16 ? (int)decay : 0;
    return (double)whole == decay ? whole : 0;
}

// u^decay for u >= 0. Integer decays up to 16 take squares and products, which have the same bits everywhere. Other
// decays take the library's pow, whose last bit differs from one library to the next.
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

// The symmetrized affinity of points i and j, each with its bandwidth. A one-sided affinity below `thresh` counts as 0.
// The average of the two is 0 if it lies below `thresh` or below `smallest`.
MMP_HD double mmp_symmetrized_kernel(double distance, double bandwidth_i, double bandwidth_j, double decay,
                                     double thresh, double smallest) {
    const double forward = mmp_kernel(distance, bandwidth_i, decay);
    const double backward = mmp_kernel(distance, bandwidth_j, decay);
    const double value = (forward >= thresh ? forward : 0.0) / 2 + (backward >= thresh ? backward : 0.0) / 2;
    const double least = thresh > smallest ? thresh : smallest;
    return value >= least ? value : 0.0;
}
