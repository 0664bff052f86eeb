// One SMACOF sweep: the stress at the points and their update together. This is the twin of
// csrc/cpu/guttman_transform.cpp.
//
// The launcher defines MMP_DISTANCE (the type of the distances, in which each pair is computed), MMP_C (the number C of
// components) and MMP_ROWS (the rows of a block).
#include "device.h"

constexpr int guttman_threads = 128;
constexpr int guttman_point_threads = 1024;
constexpr int guttman_rows = MMP_ROWS;
// A thread loads the distances of this many columns before it uses any of them, so that their latencies overlap.
constexpr int guttman_at_once = MMP_C <= 4 ? 2 : 1;
// Blocks on a multiprocessor. Eight leave 64 registers to a thread, and 132 multiprocessors then run 1,000 blocks at
// once.
constexpr int guttman_blocks = sizeof(MMP_DISTANCE) == 4 && MMP_C <= 3 ? 8 : 1;
// The smallest normal number: the inverse root of a smaller square would be wrong.
constexpr MMP_DISTANCE guttman_smallest = sizeof(MMP_DISTANCE) == 4 ? 1.17549435e-38f : 2.2250738585072014e-308;

namespace {

// The sums of a row: its pulls along each axis, and its squared residuals.
constexpr int guttman_sums = MMP_C + 1;

struct Reduction {
    double parts[guttman_threads / 32][guttman_rows][guttman_sums];
    mmp_i32 is_last;
};

struct Largest {
    double parts[guttman_point_threads / 32];
};

// Adds a pair to the sums of its row. Points no farther apart than the root of `least` do not pull.
//
// This takes no branch, root or division: the distance is its square times the inverse root. The distance of a point
// from itself is 0, and so is `wanted`.
MMP_DEVICE void add_pair(MMP_DISTANCE wanted, const MMP_DISTANCE* x, const MMP_DISTANCE* row_points, MMP_DISTANCE least,
                         MMP_DISTANCE* sums) {
    MMP_DISTANCE apart[MMP_C], squared = 0;
#pragma unroll
    for (int c = 0; c < MMP_C; ++c) {
        apart[c] = row_points[c] - x[c];
        squared = mmp_fused(apart[c], apart[c], squared);
    }
    const MMP_DISTANCE inverse = mmp_inverse_root(squared < guttman_smallest ? guttman_smallest : squared);
    const MMP_DISTANCE residual = mmp_fused(-squared, inverse, wanted);
    const MMP_DISTANCE ratio = squared > least ? wanted * inverse : 0;
#pragma unroll
    for (int c = 0; c < MMP_C; ++c) sums[c] = mmp_fused(ratio, apart[c], sums[c]);
    sums[MMP_C] = mmp_fused(residual, residual, sums[MMP_C]);
}

// Adds N columns, `guttman_threads` apart, to every row. All loads begin before any loaded value is used.
template <int N>
MMP_DEVICE void add_columns(const MMP_DISTANCE* to, const MMP_DISTANCE* columns, mmp_i64 n,
                            const MMP_DISTANCE (&row_points)[guttman_rows][MMP_C], MMP_DISTANCE least,
                            MMP_DISTANCE (&sums)[guttman_rows][guttman_sums]) {
    MMP_DISTANCE x[N][MMP_C], wanted[N][guttman_rows];
#pragma unroll
    for (int a = 0; a < N; ++a) {
#pragma unroll
        for (int r = 0; r < guttman_rows; ++r) wanted[a][r] = to[r * n + a * guttman_threads];
#pragma unroll
        for (int c = 0; c < MMP_C; ++c) x[a][c] = columns[c * n + a * guttman_threads];
    }
#pragma unroll
    for (int a = 0; a < N; ++a) {
#pragma unroll
        for (int r = 0; r < guttman_rows; ++r) add_pair(wanted[a][r], x[a], row_points[r], least, sums[r]);
    }
}

// The last block to store its stress adds those of all blocks, in an order that does not depend on which block it is.
MMP_DEVICE void add_blocks(const double* by_block, double* raw, Reduction& reduction) {
    const volatile double* const others = by_block;
    double sum = 0;
    for (mmp_i64 b = threadIdx.x; b < gridDim.x; b += guttman_threads) sum += others[b];
    sum = mmp_warp_sum(sum);
    __syncthreads();  // the parts have been read
    if (mmp_lane() == 0) reduction.parts[threadIdx.x / 32][0][0] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    double total = 0;
    for (int w = 0; w < guttman_threads / 32; ++w) total += reduction.parts[w][0][0];
    *raw = total;
}

}  // namespace

// One block. It converts the points to the type of the distances once, and stores them axis by axis, so that
// neighboring threads read neighboring numbers. It also squares the distance up to which two points are equal.
//
// points (n, C) float64; share: this distance as a share of the largest coordinate
// -> by_axis (C, n), least (): the squared distance, n_done (), which becomes 0.
MMP_KERNEL void __launch_bounds__(guttman_point_threads)
    guttman_points(const double* points, mmp_i64 n, double share, MMP_DISTANCE* by_axis, MMP_DISTANCE* least,
                   mmp_i32* n_done) {
    MMP_SHARED(Largest, shared);
    double largest = 0;
    for (mmp_i64 i = threadIdx.x; i < n; i += guttman_point_threads)
#pragma unroll
        for (int c = 0; c < MMP_C; ++c) {
            const double x = points[i * MMP_C + c];
            by_axis[c * n + i] = (MMP_DISTANCE)x;
            largest = mmp_larger(largest, x < 0 ? -x : x);
        }
    for (int step = 16; step > 0; step /= 2) largest = mmp_larger(largest, __shfl_xor_sync(MMP_WARP, largest, step));
    if (mmp_lane() == 0) shared.parts[threadIdx.x / 32] = largest;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int w = 0; w < guttman_point_threads / 32; ++w) largest = mmp_larger(largest, shared.parts[w]);
    const MMP_DISTANCE together = (MMP_DISTANCE)(share * largest);
    *least = together * together;
    *n_done = 0;
}

// One block per MMP_ROWS rows, which share the points that its threads read. A thread takes every 128th column, and a
// fixed tree sums over the threads.
//
// distances (n, n), symmetric, the diagonal 0; by_axis, least and n_done of `guttman_points`, whose points are
// centered; n >= MMP_ROWS
// -> moved (n, C), by_block (blocks,), raw (): the sum over all ordered pairs of (wanted - distance)^2 at the points.
MMP_KERNEL void __launch_bounds__(guttman_threads, guttman_blocks)
    guttman_transform(const MMP_DISTANCE* distances, const MMP_DISTANCE* by_axis, mmp_i64 n, const MMP_DISTANCE* least,
                      double* moved, double* by_block, mmp_i32* n_done, double* raw) {
    MMP_SHARED(Reduction, reduction);
    // The last block ends with the last row. It may compute some rows of the block before it again, to the same bits.
    const mmp_i64 begin = (mmp_i64)blockIdx.x * guttman_rows;
    const mmp_i64 row0 = begin < n - guttman_rows ? begin : n - guttman_rows;
    const MMP_DISTANCE pulls_from = *least;
    MMP_DISTANCE row_points[guttman_rows][MMP_C], sums[guttman_rows][guttman_sums];
#pragma unroll
    for (int r = 0; r < guttman_rows; ++r) {
#pragma unroll
        for (int c = 0; c < MMP_C; ++c) row_points[r][c] = by_axis[c * n + row0 + r];
#pragma unroll
        for (int c = 0; c < guttman_sums; ++c) sums[r][c] = 0;
    }
    const MMP_DISTANCE *to = distances + row0 * n + threadIdx.x, *columns = by_axis + threadIdx.x;
    mmp_i64 left = n - threadIdx.x;
    for (; left > (guttman_at_once - 1) * guttman_threads; left -= guttman_at_once * guttman_threads) {
        add_columns<guttman_at_once>(to, columns, n, row_points, pulls_from, sums);
        to += guttman_at_once * guttman_threads, columns += guttman_at_once * guttman_threads;
    }
    for (; left > 0; left -= guttman_threads) {
        add_columns<1>(to, columns, n, row_points, pulls_from, sums);
        to += guttman_threads, columns += guttman_threads;
    }
#pragma unroll
    for (int r = 0; r < guttman_rows; ++r) {
#pragma unroll
        for (int c = 0; c < guttman_sums; ++c) {
            const double part = mmp_warp_sum(sums[r][c]);
            if (mmp_lane() == 0) reduction.parts[threadIdx.x / 32][r][c] = part;
        }
    }
    __syncthreads();
    for (int q = (int)threadIdx.x; q < guttman_rows * guttman_sums; q += guttman_threads) {
        const int r = q / guttman_sums, c = q % guttman_sums;
        double total = 0;
        for (int w = 0; w < guttman_threads / 32; ++w) total += reduction.parts[w][r][c];
        reduction.parts[0][r][c] = total;
        if (c < MMP_C) moved[(row0 + r) * MMP_C + c] = total / (double)n;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        double total = 0;
        for (mmp_i64 row = begin; row < n && row < begin + guttman_rows; ++row)
            total += reduction.parts[0][row - row0][MMP_C];
        by_block[blockIdx.x] = total;
        __threadfence();  // the last block must see the stress before this one counts as done
        reduction.is_last = atomicAdd(n_done, 1) == (mmp_i32)gridDim.x - 1;
        __threadfence();
    }
    __syncthreads();
    if (reduction.is_last) add_blocks(by_block, raw, reduction);
}
