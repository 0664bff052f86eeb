// K @ onehot(labels) by segment sums: the twin of csrc/cpu/landmark_aggregate.cpp, and the same bits.
//
// Compiled with MMP_INDEX (the type of the indices) and MMP_VALUE (of the values) defined.
#include "device.h"

// Entries that a lane fetches before it adds any.
constexpr int aggregate_at_once = 4;

namespace {

// Adds one value a lane to the sum of its label, in the order of the lanes; lanes with no label have -1.
//
// The first lane of a run of equal labels adds all its values, one after the other in a register. Separate runs of one
// label take turns. `values` (32,) is scratch of this warp alone.
MMP_DEVICE void add_in_order(double* sums, double* values, int label, double value) {
    const int lane = mmp_lane();
    const int before = __shfl_sync(MMP_WARP, label, lane + 31);
    const bool leads = label >= 0 && (lane == 0 || before != label);
    const unsigned later = ~__ballot_sync(MMP_WARP, leads || label < 0) >> lane >> 1;
    const int length = __ffs((int)~later);  // up to the next lane that leads, or has none
    const int turn = mmp_rank(__match_any_sync(MMP_WARP, leads ? label : -1));
    values[lane] = value;
    __syncwarp();
    for (int now = 0; __ballot_sync(MMP_WARP, leads && turn >= now) != 0; ++now) {
        if (leads && turn == now) {
            double sum = sums[label];
            for (int k = 0; k < length; ++k) sum += values[lane + k];
            sums[label] = sum;
        }
        __syncwarp();
    }
}

// The entries of one lane among those that a warp takes at a time: the columns, whose labels are fetched next, and the
// labels and values, which are added next. Their loads begin before others are added, so that no add waits for them.
struct Entries {
    MMP_INDEX column[aggregate_at_once];
    mmp_i32 label[aggregate_at_once];
    MMP_VALUE value[aggregate_at_once];
};

// Fetches the labels (counted from `base`) and values of the columns in `now`, and the columns of the turn after.
MMP_DEVICE Entries next_entries(const Entries& now, const MMP_INDEX* indices, const MMP_VALUE* values,
                                const mmp_i32* labels, mmp_i64 first, mmp_i64 stop, mmp_i32 base) {
    Entries next;
#pragma unroll
    for (int a = 0; a < aggregate_at_once; ++a) {
        const mmp_i64 entry = first + 32 * a + mmp_lane(), after = entry + 32 * aggregate_at_once;
        next.label[a] = entry < stop ? labels[now.column[a]] - base : -1;
        next.value[a] = entry < stop ? values[entry] : 0;
        next.column[a] = after < stop ? indices[after] : 0;
    }
    return next;
}

}  // namespace

// One block of one warp per row. Labels pass in windows whose sums lie in shared memory, in one if it holds all.
//
// Row sums by label of a CSR matrix with entries from 0; labels 0 .. n_labels-1 of its columns. With out_indptr null
// labels with an entry above 0 are counted into `counts`; else they are written, ascending. Shared memory: `window`
// float64 and 32 more.
MMP_KERNEL void __launch_bounds__(32)
    landmark_aggregate(const MMP_INDEX* indptr, const MMP_INDEX* indices, const MMP_VALUE* values,
                       const mmp_i32* labels, mmp_i64 n_labels, mmp_i64 window, const mmp_i64* out_indptr,
                       mmp_i64* counts, mmp_i32* out_indices, MMP_VALUE* out_values) {
    MMP_SHARED_BYTES(double, sums);
    double* const in_turn = sums + window;
    const int lane = mmp_lane();
    const mmp_i64 row = blockIdx.x;
    const mmp_i64 start = indptr[row], stop = indptr[row + 1];
    mmp_i64 found = 0;
    for (mmp_i64 base = 0; base < n_labels; base += window) {
        const int width = (int)(n_labels - base < window ? n_labels - base : window);
        constexpr mmp_i64 step = 32 * aggregate_at_once;
        Entries next;
#pragma unroll
        for (int a = 0; a < aggregate_at_once; ++a) {
            const mmp_i64 entry = start + 32 * a + lane;
            next.column[a] = entry < stop ? indices[entry] : 0;
        }
        next = next_entries(next, indices, values, labels, start, stop, (mmp_i32)base);
        for (int l = lane; l < width; l += 32) sums[l] = 0;
        __syncwarp();
        for (mmp_i64 first = start; first < stop; first += step) {
            const Entries now = next;
            next = next_entries(now, indices, values, labels, first + step, stop, (mmp_i32)base);
#pragma unroll
            for (int a = 0; a < aggregate_at_once; ++a) {
                const bool inside = now.label[a] >= 0 && now.label[a] < width;
                add_in_order(sums, in_turn, inside ? now.label[a] : -1, (double)now.value[a]);
            }
        }
        for (int from = 0; from < width; from += 32) {
            const int l = from + lane;
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
