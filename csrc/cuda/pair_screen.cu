// The points of a stack as the float32 screen of the kernels over pairs has them: see csrc/common/screen.h.
#include "../common/pair_tiles.h"

namespace {

typedef mmp_i64 OfWarps[mmp_warps];

// The largest of all threads; all have it.
MMP_DEVICE mmp_i64 largest_of_block(OfWarps& shared, mmp_i64 value) {
    for (int step = 16; step > 0; step /= 2) {
        const mmp_i64 other = __shfl_xor_sync(MMP_WARP, value, step);
        value = other > value ? other : value;
    }
    if (mmp_lane() == 0) shared[mmp_warp_of_block()] = value;
    __syncthreads();
    for (int w = 0; w < mmp_warps; ++w) value = shared[w] > value ? shared[w] : value;
    return value;
}

}  // namespace

// One block per set, one coordinate a thread at a time, all of them twice: for the span, and to write.
//
// rough (n_sets, n, p) and spans (n_sets,), as in MmpStack, of points (n_sets, n, p). A set is centred on the point in
// its middle: any is right, and points in the order of time begin far out.
MMP_KERNEL void __launch_bounds__(mmp_threads)
    pair_screen(const double* points, mmp_i64 n, mmp_i64 p, float* rough, double* spans) {
    MMP_SHARED(OfWarps, shared);
    const mmp_i64 first = blockIdx.x * n * p, last = first + n * p;
    const double* const centre = points + first + n / 2 * p;
    // The bits of absolute values, taken for integers, are in the same order, and those of NaN come last.
    mmp_i64 most = 0;
    for (mmp_i64 e = first + threadIdx.x; e < last; e += mmp_threads) {
        const mmp_i64 bits = __double_as_longlong(fabs(points[e] - centre[(e - first) % p]));
        most = bits > most ? bits : most;
    }
    const double span = __longlong_as_double(largest_of_block(shared, most));
    const double scale = mmp_screen(span, p).scale;
    for (mmp_i64 e = first + threadIdx.x; e < last; e += mmp_threads)
        rough[e] = (float)((points[e] - centre[(e - first) % p]) * scale);
    if (threadIdx.x == 0) spans[blockIdx.x] = span;
}
