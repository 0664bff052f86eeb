// One SMACOF sweep: distances, stress and update together. The twin of csrc/cpu/guttman_transform.cpp.
//
// Compiled with MMP_DISTANCE (the type of the distances, in which each pair is computed), MMP_C (components) and
// MMP_ROWS (rows of a block) defined.
#include "device.h"
#include "../common/guttman.h"

constexpr int guttman_threads = 256;
constexpr int guttman_rows = MMP_ROWS;

namespace {

struct Reduction {
    double parts[guttman_threads / 32][guttman_rows][MMP_C + 1];
};

}  // namespace

// One block per MMP_ROWS rows, which share the points its threads read; every 256th column a thread, then a fixed tree.
//
// distances (n, n), symmetric; points (n, C) float64, centred; together () -> moved (n, C), raw (n,): the sum over each
// row of (wanted - between)^2 at `points`. Pairs up to `together` apart pull nothing.
MMP_KERNEL void __launch_bounds__(guttman_threads)
    guttman_transform(const MMP_DISTANCE* distances, const double* points, mmp_i64 n, const double* together,
                      double* moved, double* raw) {
    MMP_SHARED(Reduction, reduction);
    const mmp_i64 row0 = (mmp_i64)blockIdx.x * guttman_rows;
    const MMP_DISTANCE least = (MMP_DISTANCE)*together;
    // Pulls along each axis, squared residuals.
    MMP_DISTANCE own[guttman_rows][MMP_C], sums[guttman_rows][MMP_C + 1];
#pragma unroll
    for (int r = 0; r < guttman_rows; ++r) {
#pragma unroll
        for (int c = 0; c < MMP_C; ++c) own[r][c] = row0 + r < n ? (MMP_DISTANCE)points[(row0 + r) * MMP_C + c] : 0;
#pragma unroll
        for (int c = 0; c < MMP_C + 1; ++c) sums[r][c] = 0;
    }
    for (mmp_i64 j = threadIdx.x; j < n; j += guttman_threads) {
        MMP_DISTANCE x[MMP_C];
#pragma unroll
        for (int c = 0; c < MMP_C; ++c) x[c] = (MMP_DISTANCE)points[j * MMP_C + c];
#pragma unroll
        for (int r = 0; r < guttman_rows; ++r) {
            if (row0 + r >= n || row0 + r == j) continue;
            MMP_DISTANCE apart[MMP_C], squared = 0;
#pragma unroll
            for (int c = 0; c < MMP_C; ++c) {
                apart[c] = own[r][c] - x[c];
                squared += apart[c] * apart[c];
            }
            const MMP_DISTANCE between = mmp_root(squared), wanted = distances[(row0 + r) * n + j];
            const MMP_DISTANCE ratio = between > least ? mmp_guttman_ratio(wanted, between, least) : 0;
#pragma unroll
            for (int c = 0; c < MMP_C; ++c) sums[r][c] += ratio * apart[c];
            sums[r][MMP_C] += (wanted - between) * (wanted - between);
        }
    }
#pragma unroll
    for (int r = 0; r < guttman_rows; ++r) {
#pragma unroll
        for (int c = 0; c < MMP_C + 1; ++c) {
            const double part = mmp_warp_sum((double)sums[r][c]);
            if (mmp_lane() == 0) reduction.parts[threadIdx.x / 32][r][c] = part;
        }
    }
    __syncthreads();
    const mmp_i64 row = row0 + threadIdx.x;
    if (threadIdx.x >= guttman_rows || row >= n) return;
    double totals[MMP_C + 1];
    for (int c = 0; c < MMP_C + 1; ++c) {
        totals[c] = 0;
        for (int w = 0; w < guttman_threads / 32; ++w) totals[c] += reduction.parts[w][threadIdx.x][c];
    }
    for (int c = 0; c < MMP_C; ++c) moved[row * MMP_C + c] = totals[c] / (double)n;
    raw[row] = totals[MMP_C];
}
