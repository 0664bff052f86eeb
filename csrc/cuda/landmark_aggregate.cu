// K @ onehot(labels) by segment sums: the twin of csrc/cpu/landmark_aggregate.cpp, and the same bits.
//
// Compiled with MMP_INDEX (the type of the indices) and MMP_VALUE (of the values) defined.
#include "device.h"

constexpr int aggregate_warps = 4;

// One warp per row, one entry a lane; the labels pass in windows whose sums lie in shared memory.
//
// Row sums by label of a CSR matrix with entries from 0; labels 0 .. n_labels-1 of its columns. With out_indptr null
// labels with an entry above 0 are counted into `counts`; else they are written, ascending. Shared memory: `window`
// float64 for each warp.
MMP_KERNEL void __launch_bounds__(32 * aggregate_warps)
    landmark_aggregate(const MMP_INDEX* indptr, const MMP_INDEX* indices, const MMP_VALUE* values,
                       const mmp_i32* labels, mmp_i64 n_rows, mmp_i64 n_labels, mmp_i64 window,
                       const mmp_i64* out_indptr, mmp_i64* counts, mmp_i32* out_indices, MMP_VALUE* out_values) {
    MMP_SHARED_BYTES(double, all_sums);
    const int warp = (int)threadIdx.x / 32, lane = mmp_lane();
    const mmp_i64 row = (mmp_i64)blockIdx.x * aggregate_warps + warp;
    if (row >= n_rows) return;
    double* const sums = all_sums + warp * window;
    const mmp_i64 start = indptr[row], stop = indptr[row + 1];
    mmp_i64 found = 0;
    for (mmp_i64 base = 0; base < n_labels; base += window) {
        const mmp_i64 width = n_labels - base < window ? n_labels - base : window;
        for (mmp_i64 l = lane; l < width; l += 32) sums[l] = 0;
        __syncwarp();
        for (mmp_i64 first = start; first < stop; first += 32) {
            mmp_i64 label = -1;
            double value = 0;
            if (first + lane < stop) {
                label = labels[indices[first + lane]] - base;
                value = (double)values[first + lane];
            }
            const bool taken = label >= 0 && label < width;
            // Entries of one label are added one after the other, in the order of the row.
            const int turn = mmp_rank(__match_any_sync(MMP_WARP, taken ? (int)label : -1));
            for (int now = 0; __ballot_sync(MMP_WARP, taken && turn >= now) != 0; ++now) {
                if (taken && turn == now) sums[label] += value;
                __syncwarp();
            }
        }
        for (mmp_i64 from = 0; from < width; from += 32) {
            const mmp_i64 l = from + lane;
            const double sum = l < width ? sums[l] : 0;
            const unsigned bits = __ballot_sync(MMP_WARP, sum > 0);
            if (out_indptr && sum > 0) {
                const mmp_i64 place = out_indptr[row] + found + mmp_rank(bits);
                out_indices[place] = (mmp_i32)(base + l);
                out_values[place] = (MMP_VALUE)sum;
            }
            found += __popc(bits);
        }
        __syncwarp();  // the sums have been read
    }
    if (!out_indptr && lane == 0) counts[row] = found;
}
