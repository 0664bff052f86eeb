// A CSR matrix times a dense block of few columns: the twin of csrc/cpu/csr_matmul.cpp.
//
// The launcher defines MMP_INDEX, MMP_VALUE and MMP_BLOCK (the types of indices, values and dense block), MMP_LANES
// (the lanes that work on a row: 16 or 32) and MMP_PER_LANE (the columns that each of these lanes sums).
#include "device.h"

constexpr int csr_threads = 256;

// MMP_LANES lanes per row, MMP_PER_LANE columns a lane. Every lane goes through all entries of its row in order.
//
// out (n_rows, C) = matrix @ block, with C = width. Sums run along the row in the type of `block`. Rows r and
// r + interleave have neighboring columns. Neighboring threads take them, so that they share the cache. This changes no
// bit.
MMP_KERNEL void __launch_bounds__(csr_threads)
    csr_matmul(const MMP_INDEX* indptr, const MMP_INDEX* indices, const MMP_VALUE* values, const MMP_BLOCK* block,
               MMP_BLOCK* out, mmp_i64 n_rows, mmp_i64 width, mmp_i64 interleave) {
    const mmp_i64 per_class = (n_rows + interleave - 1) / interleave;
    const mmp_i64 tasks = (per_class * interleave + csr_threads / MMP_LANES - 1) / (csr_threads / MMP_LANES);
    // A band of columns ends before the next one begins, so that the part of `block` in use stays in the cache.
    const mmp_i64 band = blockIdx.x / tasks * (MMP_LANES * MMP_PER_LANE);
    const mmp_i64 task = blockIdx.x % tasks * (csr_threads / MMP_LANES) + threadIdx.x / MMP_LANES;
    const mmp_i64 row = task % per_class * interleave + task / per_class;
    if (task >= per_class * interleave || row >= n_rows) return;
    const mmp_i64 column = band + threadIdx.x % MMP_LANES;
    MMP_BLOCK sums[MMP_PER_LANE] = {};
    const mmp_i64 stop = indptr[row + 1];
#pragma unroll 4
    for (mmp_i64 e = indptr[row]; e < stop; ++e) {
        const MMP_BLOCK value = (MMP_BLOCK)values[e];
        const MMP_BLOCK* from = block + (mmp_i64)indices[e] * width;
#pragma unroll
        for (int c = 0; c < MMP_PER_LANE; ++c)
            if (column + c * MMP_LANES < width) sums[c] = mmp_fused(value, from[column + c * MMP_LANES], sums[c]);
    }
#pragma unroll
    for (int c = 0; c < MMP_PER_LANE; ++c)
        if (column + c * MMP_LANES < width) out[row * width + column + c * MMP_LANES] = sums[c];
}
