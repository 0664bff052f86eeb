// Affinities above a threshold within each set of a stack of points: count, then fill in place. The twin of
// csrc/cpu/radius_affinity.cpp: the same pairs, the same bits.
//
// Compiled with MMP_INDEX (the type of the indices) and MMP_VALUE (of the values) defined.
#include "../common/affinity.h"
#include "../common/pair_tiles.h"

// One block per 64 points of the stack, one warp per 8 of them, two columns a lane; a lane counts, the warp adds up.
//
// counts (n_sets, n): other points of the same set within `reach` of each point of points (n_sets, n, p).
MMP_KERNEL void __launch_bounds__(mmp_threads)
    radius_count(const double* points, const float* rough, const double* spans, mmp_i64 n_sets, mmp_i64 n, mmp_i64 p,
                 double reach, mmp_i64* counts) {
    MMP_SHARED(MmpPairTiles, tiles);
    const MmpStack stack{points, rough, spans, n, p};
    mmp_locate(tiles, n_sets * n, [&](mmp_i64 row, mmp_i64& set, mmp_i64& own) { set = row / n, own = row % n; });
    const double limit = mmp_squared_reach(reach);
    MmpCut cut{};
    int found[mmp_warp_rows] = {};
    mmp_walk(tiles, stack, true, [&](const MmpPairs& pairs) {
        if (pairs.begins) cut = mmp_cut(stack, pairs.set, limit);
        mmp_each(tiles, stack, pairs, [&](const MmpPair& pair) {
            found[pair.r] += mmp_other(pair) && mmp_within(stack, cut, pair);
        });
    });
#pragma unroll
    for (int r = 0; r < mmp_warp_rows; ++r) {
        const int total = mmp_warp_sum(found[r]);
        if (mmp_lane() == 0 && mmp_row_of_launch(r) < n_sets * n) counts[mmp_row_of_launch(r)] = total;
    }
}

namespace {

// Pairs whose affinity is still to be computed, one queue a warp: with it distance and exponential run with all lanes
// busy, however few pairs of a tile lie within the radius.
struct Queue {
    int row[64], column[64];  // the row within the block
    mmp_i64 place[64];
};

// Where the entries of the rows of a block go.
struct FillRows {
    Queue queues[mmp_warps];
    mmp_i64 start[mmp_tile], gap[mmp_tile], size[mmp_tile];
};

// Takes up to 32 of the `waiting` pairs from the end of the queue; returns how many are left.
MMP_OUTLINED int drain(const MmpPairTiles& tiles, const Queue& queue, int waiting, const double* points, mmp_i64 n,
                       mmp_i64 p, double bandwidth, double decay, MMP_VALUE* values) {
    const int taken = waiting < 32 ? waiting : 32, left = waiting - taken;
    if (mmp_lane() < taken) {
        const int slot = left + mmp_lane(), row = queue.row[slot];
        const double* set = points + tiles.set[row] * n * p;
        const double square = mmp_squared_distance(set + tiles.own[row] * p, 1, set + queue.column[slot] * p, 1, p);
        values[queue.place[slot]] = (MMP_VALUE)mmp_kernel(sqrt(square), bandwidth, decay);
    }
    __syncwarp();
    return left;
}

// The averaged affinity of two points, 0 where they lie farther apart than `cut` times the larger bandwidth.
MMP_OUTLINED double averaged(double square, double own, double other, double decay, double thresh, double smallest,
                             double cut) {
    const double distance = sqrt(square);
    if (distance > cut * (own < other ? other : own)) return 0;
    return mmp_symmetrised_kernel(distance, own, other, decay, thresh, smallest);
}

MMP_DEVICE unsigned low_bits(int n) { return n <= 0 ? 0u : n >= 32 ? ~0u : (1u << n) - 1; }

}  // namespace

// One block per 64 rows, one warp per 8 of them, two columns a lane; a ballot gives each entry its place in the row.
//
// The entries that radius_count counted, of the points first .. last-1 of every set. Point i of set s has the row
// (i - first) * n_sets + s, with entries from indptr[row] up to indptr[row + 1], gap[row] of them left free after the
// columns below i, from gap_at[row] on. Entry j is written as column j * n_sets + s. *status becomes 3 if a row does
// not have the entries it was counted to have.
MMP_KERNEL void __launch_bounds__(mmp_threads)
    radius_fill(const double* points, const float* rough, const double* spans, mmp_i64 n_sets, mmp_i64 n, mmp_i64 p,
                mmp_i64 first, mmp_i64 last, double reach, double bandwidth, double decay, const mmp_i64* indptr,
                const mmp_i64* gap, mmp_i64* gap_at, MMP_INDEX* indices, MMP_VALUE* values, mmp_i64* status) {
    MMP_SHARED(MmpPairTiles, tiles);
    MMP_SHARED(FillRows, rows);
    const MmpStack stack{points, rough, spans, n, p};
    const mmp_i64 per_set = last - first;
    mmp_locate(tiles, n_sets * per_set, [&](mmp_i64 q, mmp_i64& set, mmp_i64& own) {
        set = q / per_set, own = first + q % per_set;
        const mmp_i64 row = (own - first) * n_sets + set;
        rows.start[threadIdx.x] = indptr[row];
        rows.gap[threadIdx.x] = gap[row];
        rows.size[threadIdx.x] = indptr[row + 1] - indptr[row] - gap[row];
    });
    const double limit = mmp_squared_reach(reach);
    MmpCut cut{};
    Queue& queue = rows.queues[mmp_warp_of_block()];
    int found[mmp_warp_rows] = {}, before[mmp_warp_rows] = {}, waiting = 0;
    mmp_walk(tiles, stack, true, [&](const MmpPairs& pairs) {
        if (pairs.begins) cut = mmp_cut(stack, pairs.set, limit);
        mmp_each(tiles, stack, pairs, [&](const MmpPair& pair) {
            const bool near = mmp_other(pair) && mmp_within(stack, cut, pair);
            const unsigned bits = __ballot_sync(MMP_WARP, near);
            if (bits == 0) return;
            const int r = pair.r, row = mmp_row_of_block(r), rank = mmp_rank(bits);
            if (near && found[r] + rank < rows.size[row]) {
                const mmp_i64 gap_before = pair.column > pair.own ? rows.gap[row] : 0;
                const mmp_i64 place = rows.start[row] + found[r] + rank + gap_before;
                indices[place] = (MMP_INDEX)(pair.column * n_sets + pair.set);
                queue.place[waiting + rank] = place;
                queue.row[waiting + rank] = row, queue.column[waiting + rank] = pair.column;
            }
            before[r] += __popc(bits & low_bits(pair.own - (pair.column - mmp_lane())));
            const mmp_i64 fits = rows.size[row] - found[r];
            found[r] += __popc(bits);
            waiting += fits < __popc(bits) ? (fits > 0 ? (int)fits : 0) : __popc(bits);
            __syncwarp();
            if (waiting >= 32) waiting = drain(tiles, queue, waiting, points, n, p, bandwidth, decay, values);
        });
    });
    drain(tiles, queue, waiting, points, n, p, bandwidth, decay, values);
    if (mmp_lane() != 0) return;
#pragma unroll
    for (int r = 0; r < mmp_warp_rows; ++r) {
        const int row = mmp_row_of_block(r);
        if (tiles.set[row] < 0) continue;
        gap_at[(tiles.own[row] - first) * n_sets + tiles.set[row]] = rows.start[row] + before[r];
        if (found[r] != rows.size[row]) *status = 3;  // every thread that writes it writes the same
    }
}

// One block per 64 points of the stack, one warp per 8 of them, two columns a lane; ballots give entries their places.
//
// The symmetrised form with a bandwidth (n_sets, n) per point, the diagonal included; pairs farther apart than `cut`
// times the larger bandwidth are none. With indptr null: counts only; else indices and values only.
MMP_KERNEL void __launch_bounds__(mmp_threads)
    symmetrised_affinity(const double* points, const float* rough, const double* spans, const double* bandwidth,
                         mmp_i64 n_sets, mmp_i64 n, mmp_i64 p, double decay, double thresh, double smallest, double cut,
                         const mmp_i64* indptr, mmp_i64* counts, MMP_INDEX* indices, MMP_VALUE* values) {
    MMP_SHARED(MmpPairTiles, tiles);
    const MmpStack stack{points, rough, spans, n, p};
    mmp_locate(tiles, n_sets * n, [&](mmp_i64 row, mmp_i64& set, mmp_i64& own) { set = row / n, own = row % n; });
    int found[mmp_warp_rows] = {};
    MmpScreen screen{};
    float own_far[mmp_warp_rows] = {};  // rough squares above this are surely beyond the cut of a point
    mmp_walk(tiles, stack, true, [&](const MmpPairs& pairs) {
        if (pairs.begins) screen = mmp_screen_of(stack, pairs.set);
        const double* const of_set = bandwidth + pairs.set * n;
#pragma unroll
        for (int r = 0; r < mmp_warp_rows; ++r)
            if (pairs.begins && r >= pairs.first && r < pairs.last)
                own_far[r] = mmp_possibly(screen, cut * of_set[tiles.own[mmp_row_of_block(r)]]);
        float far[2] = {};
#pragma unroll
        for (int h = 0; h < 2; ++h)
            if (pairs.column + 32 * h < n) far[h] = mmp_possibly(screen, cut * of_set[pairs.column + 32 * h]);
        mmp_each(tiles, stack, pairs, [&](const MmpPair& pair) {
            double value = 0;
            // Beyond the cuts of both is beyond that of the larger bandwidth.
            if (pair.there && !(pair.square > own_far[pair.r] && pair.square > far[pair.h])) {
                const double square = mmp_exact_square(stack, pair.set, pair.own, pair.column);
                value = averaged(square, of_set[pair.own], of_set[pair.column], decay, thresh, smallest, cut);
            }
            const mmp_i64 row = mmp_row_of_launch(pair.r);
            const unsigned bits = __ballot_sync(MMP_WARP, value > 0);
            if (indptr && value > 0) {
                const mmp_i64 place = indptr[row] + found[pair.r] + mmp_rank(bits);
                indices[place] = (MMP_INDEX)pair.column;
                values[place] = (MMP_VALUE)value;
            }
            found[pair.r] += __popc(bits);
        });
    });
    if (indptr || mmp_lane() != 0) return;
#pragma unroll
    for (int r = 0; r < mmp_warp_rows; ++r)
        if (mmp_row_of_launch(r) < n_sets * n) counts[mmp_row_of_launch(r)] = found[r];
}
