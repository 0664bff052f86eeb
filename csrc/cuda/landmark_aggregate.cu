// K @ onehot(labels), row by row: the sum of the entries of each label. This is the twin of
// csrc/cpu/landmark_aggregate.cpp, with the same bits.
//
// The launcher defines MMP_INDEX (the type of indices) and MMP_VALUE (of values).
#include "device.h"

// Entries that a lane fetches before it adds any.
constexpr int aggregate_at_once = 4;

namespace {

// Adds one value of each lane to the sum of its label, in the order of the lanes. A lane without a label has -1.
//
// The first lane of a run of equal labels adds all values of the run, one after the other in a register. Separate runs
// of the same label take turns. `values` (32,) is scratch memory of this warp.
MMP_DEVICE void add_in_order(double* sums, double* values, int label, double value) {
    const int lane = mmp_lane();
    const int before = __shfl_sync(MMP_WARP, label, lane + 31);
    const bool leads = label >= 0 && (lane == 0 || before != label);
    const unsigned later = ~__ballot_sync(MMP_WARP, leads || label < 0) >> lane >> 1;
    const int length = __ffs((int)~later);  // up to the next lane that leads a run or has no label
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

// The entries of one lane in a round of its warp: the columns, whose labels are fetched in the next round, and the
// labels and values, which are added in the next round. Loads begin one round early, so that no sum waits for them.
struct Entries {
    MMP_INDEX column[aggregate_at_once];
    mmp_i32 label[aggregate_at_once];
    MMP_VALUE value[aggregate_at_once];
};

// Fetches the labels (counted from `base`) and values of the columns in `now`, and the columns of the round after.
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

// One block of one warp per row. Labels are taken in windows whose sums fit into shared memory.
//
// Each column of the CSR matrix has one of the labels 0 .. n_labels-1, and no entry is negative. If out_indptr is null,
// `counts` becomes how many labels of each row have a sum above 0. Else these labels and sums are written, ascending.
// Shared memory has `window` float64 numbers and 32 more.
MMP_KERNEL void __launch_bounds__(32)
    landmark_aggregate(const MMP_INDEX* indptr, const MMP_INDEX* indices, const MMP_VALUE* values,
                       const mmp_i32* labels, mmp_i64 n_labels, mmp_i64 window, const mmp_i64* out_indptr,
                       mmp_i64* counts, mmp_i32* out_indices, MMP_VALUE* out_values) {
    MMP_SHARED_BYTES(double, sums);
    double* const in_turn = sums + window;
    const int lane = mmp_lane();
    const mmp_i64 row = blockIdx.x;
    const mmp_i64 start = indptr[row], stop = indptr[row + 1];
    mmp_i64 n_sums = 0;
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
                const mmp_i64 entry = out_indptr[row] + n_sums + mmp_rank(bits);
                out_indices[entry] = (mmp_i32)(base + l);
                out_values[entry] = (MMP_VALUE)sum;
            }
            n_sums += __popc(bits);
        }
        __syncwarp();  // the sums have been read
    }
    if (!out_indptr && lane == 0) counts[row] = n_sums;
}
