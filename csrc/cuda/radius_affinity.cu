// Affinities within each set of a stack of points (B, n, p): radius_count counts the pairs within reach, radius_fill
// writes their affinities, and symmetrized_affinity has a bandwidth for each point. This is the twin of
// csrc/cpu/radius_affinity.cpp, with the same pairs and the same bits.
//
// The launcher defines MMP_P (the features of a pass), MMP_INDEX (the type of indices) and MMP_VALUE (of values).
#include "../common/affinity.h"
#include "pair_cut.h"
#include "pair_tiles.h"

// One block per tile of a set, one warp per 8 of its points, two columns a lane. A block visits its tile and those
// behind it. A lane counts for rows and for columns. The warp sums the counts of rows, and all are added to `counts`.
//
// counts (B, n): how many other points of its set lie within `reach` of the point at each place. The caller sets it to
// 0.
MMP_KERNEL void __launch_bounds__(mmp_threads, mmp_masked ? 3 : 0)
    radius_count(const double* points, const float* rough, const float* boxes, const double* spans,
                 const mmp_i32* order, mmp_i64 n, mmp_i64 p, mmp_i64 passes, double reach, mmp_u64* counts,
                 const mmp_i32* presence) {
    MMP_SHARED(MmpRows, rows);
    MMP_SHARED_BYTES(float, shared);
    const MmpStack stack{points, rough, boxes, spans, order, n, p, (int)passes, presence};
    const int n_tiles = mmp_tiles_of(n), first_tile = (int)(blockIdx.x % n_tiles), set = (int)(blockIdx.x / n_tiles);
    const MmpBlock block = mmp_block<MMP_P>(rows, shared, stack, set, [&](int row) {
        const int place = first_tile * mmp_tile + row;
        return place < n ? place : -1;
    });
    mmp_u64* const of_set = counts + set * n;
    const MmpCut cut = mmp_cut(stack, set, mmp_squared_reach(reach));
    MmpCounts of_rows{};
    mmp_walk<MMP_P>(block, first_tile, cut.possibly, true, [&](int tile, MmpSquares& squares) {
        if (tile == first_tile) mmp_leave_out_self(block, tile, squares);
        if (!mmp_any_near(cut.possibly, squares)) return;
        mmp_count(block, cut, tile, squares, tile != first_tile, of_rows, of_set);
    });
    mmp_add_counts(block, of_rows, of_set);
}

namespace {

// Pairs whose affinity is still to be computed, one queue a warp. The warp computes 32 of them together, so that all
// lanes are busy with distance and exponential, however few pairs of a tile lie within reach.
struct Queue {
    int row[64], column[64];  // the row within the block
    mmp_i64 entry[64];
};

// Where the entries of the rows of a block go.
struct FillRows {
    Queue queues[mmp_warps];
    mmp_i64 start[mmp_tile], gap[mmp_tile], size[mmp_tile];
};

// Takes up to 32 of the `waiting` pairs from the end of the queue, and returns how many remain.
MMP_OUTLINED int drain(const int* places, const Queue& queue, int waiting, const double* points, mmp_i64 p,
                       double bandwidth, double decay, MMP_VALUE* values) {
    const int taken = waiting < 32 ? waiting : 32, left = waiting - taken;
    if (mmp_lane() < taken) {
        const int slot = left + mmp_lane();
        const double* const row = points + places[queue.row[slot]] * p;
        const double square = mmp_square(row, points + queue.column[slot] * p, p);
        values[queue.entry[slot]] = (MMP_VALUE)mmp_kernel(sqrt(square), bandwidth, decay);
    }
    __syncwarp();
    return left;
}

// The symmetrized affinity of two points; 0 if they lie farther apart than `cut` times the larger bandwidth.
MMP_OUTLINED double averaged(double square, double bandwidth_i, double bandwidth_j, double decay, double thresh,
                             double smallest, double cut) {
    const double distance = sqrt(square);
    if (mmp_masked && square != square) return 0;
    if (distance > cut * (bandwidth_i < bandwidth_j ? bandwidth_j : bandwidth_i)) return 0;
    return mmp_symmetrized_kernel(distance, bandwidth_i, bandwidth_j, decay, thresh, smallest);
}

// The columns of a tile in which a row has an entry, one bit a lane for its even and one for its odd column.
struct Entries {
    unsigned even, odd;
};

MMP_DEVICE int size_of(const Entries& entries) { return __popc(entries.even) + __popc(entries.odd); }

// How many entries come before column h of this lane.
MMP_DEVICE int rank_of(const Entries& entries, int h) {
    return mmp_rank(entries.even) + mmp_rank(entries.odd) + (h ? (int)(entries.even >> mmp_lane() & 1u) : 0);
}

MMP_DEVICE unsigned low_bits(int n) { return n <= 0 ? 0u : n >= 32 ? ~0u : (1u << n) - 1; }

// How many entries come before column `width` of the tile.
MMP_DEVICE int size_before(const Entries& entries, int width) {
    return __popc(entries.even & low_bits((width + 1) / 2)) + __popc(entries.odd & low_bits(width / 2));
}

}  // namespace

// One block per 64 rows of a set, one warp per 8 of them, two columns a lane. Ballots give each entry its rank in the
// row. The tiles hold the points in their own order, so that columns ascend. One warp alone writes a row.
//
// It writes the entries that radius_count counted, for the points first .. last-1 of every set. Sets are interleaved:
// point i of set s has the matrix row (i - first) * n_sets + s, and its pair with point j has the column
// j * n_sets + s. A row has the entries from indptr[row] up to indptr[row + 1]. gap[row] of them are left free after
// the columns below that of point i; gap_at[row] is the first of these. *status becomes 3 if a row has more or fewer
// pairs than its entries without the gap.
MMP_KERNEL void __launch_bounds__(mmp_threads)
    radius_fill(const double* points, const float* rough, const float* boxes, const double* spans, mmp_i64 n_sets,
                mmp_i64 n, mmp_i64 p, mmp_i64 passes, mmp_i64 first, mmp_i64 last, double reach, double bandwidth,
                double decay, const mmp_i64* indptr, const mmp_i64* gap, mmp_i64* gap_at, MMP_INDEX* indices,
                MMP_VALUE* values, mmp_i64* status, const mmp_i32* presence) {
    MMP_SHARED(MmpRows, rows);
    MMP_SHARED(FillRows, fill);
    MMP_SHARED_BYTES(float, shared);
    const MmpStack stack{points, rough, boxes, spans, nullptr, n, p, (int)passes, presence};
    const int blocks = mmp_tiles_of(last - first), set = (int)(blockIdx.x / blocks);
    const mmp_i64 begin = first + (mmp_i64)(blockIdx.x % blocks) * mmp_tile;
    const MmpBlock block = mmp_block<MMP_P>(rows, shared, stack, set, [&](int row) {
        if (begin + row >= last) return -1;
        const mmp_i64 matrix_row = (begin + row - first) * n_sets + set;
        fill.start[row] = indptr[matrix_row];
        fill.gap[row] = gap[matrix_row];
        fill.size[row] = indptr[matrix_row + 1] - indptr[matrix_row] - gap[matrix_row];
        return (int)(begin + row);
    });
    const MmpCut cut = mmp_cut(stack, set, mmp_squared_reach(reach));
    Queue& queue = fill.queues[mmp_warp_of_block()];
    int written[mmp_warp_rows] = {}, before[mmp_warp_rows] = {}, waiting = 0;
    mmp_walk<MMP_P>(block, 0, cut.possibly, block.last_place >= 0, [&](int tile, MmpSquares& squares) {
        mmp_leave_out_self(block, tile, squares);
        if (!mmp_any_near(cut.possibly, squares)) return;
        const unsigned near = mmp_within(block, cut, tile, squares);
        const int column = mmp_column(tile);
#pragma unroll
        for (int r = 0; r < mmp_warp_rows; ++r) {
            const int row = mmp_row_of_block(r), place = rows.places[row];
            if (place < 0) continue;
            const Entries entries{__ballot_sync(MMP_WARP, (near & mmp_bit(r, 0)) != 0),
                                  __ballot_sync(MMP_WARP, (near & mmp_bit(r, 1)) != 0)};
            if ((entries.even | entries.odd) == 0) continue;
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const int rank = written[r] + rank_of(entries, h);
                const bool fits = (near & mmp_bit(r, h)) && rank < fill.size[row];
                const unsigned taken = __ballot_sync(MMP_WARP, fits);
                if (fits) {
                    const mmp_i64 entry = fill.start[row] + rank + (column + h > place ? fill.gap[row] : 0);
                    const int slot = waiting + mmp_rank(taken);
                    indices[entry] = (MMP_INDEX)((column + h) * n_sets + set);
                    queue.entry[slot] = entry, queue.row[slot] = row, queue.column[slot] = column + h;
                }
                waiting += __popc(taken);
                __syncwarp();
                if (waiting >= 32)
                    waiting = drain(rows.places, queue, waiting, block.exact, p, bandwidth, decay, values);
            }
            written[r] += size_of(entries);
            before[r] += size_before(entries, place - tile * mmp_tile);
        }
    });
    drain(rows.places, queue, waiting, block.exact, p, bandwidth, decay, values);
    if (mmp_lane() != 0) return;
#pragma unroll
    for (int r = 0; r < mmp_warp_rows; ++r) {
        const int row = mmp_row_of_block(r);
        if (rows.places[row] < 0) continue;
        gap_at[(rows.places[row] - first) * n_sets + set] = fill.start[row] + before[r];
        if (written[r] != fill.size[row]) *status = 3;  // all threads that write it write the same
    }
}

// One block per tile of a set, one warp per 8 of its points, two columns a lane. Ballots give entries their ranks.
//
// bandwidth (B, n): each point has its own. The diagonal is included. A pair farther apart than `cut` times its larger
// bandwidth has no entry. If indptr is null, the kernel writes counts only, else indices and values only.
MMP_KERNEL void __launch_bounds__(mmp_threads)
    symmetrized_affinity(const double* points, const float* rough, const float* boxes, const double* spans,
                         const double* bandwidth, mmp_i64 n, mmp_i64 p, mmp_i64 passes, double decay, double thresh,
                         double smallest, double cut, const mmp_i64* indptr, mmp_i64* counts, MMP_INDEX* indices,
                         MMP_VALUE* values, const mmp_i32* presence) {
    MMP_SHARED(MmpRows, rows);
    MMP_SHARED_BYTES(float, shared);
    const MmpStack stack{points, rough, boxes, spans, nullptr, n, p, (int)passes, presence};
    const int n_tiles = mmp_tiles_of(n), first_tile = (int)(blockIdx.x % n_tiles), set = (int)(blockIdx.x / n_tiles);
    const MmpBlock block = mmp_block<MMP_P>(rows, shared, stack, set, [&](int row) {
        const int place = first_tile * mmp_tile + row;
        return place < n ? place : -1;
    });
    const double* const of_set = bandwidth + set * n;
    const MmpScreen screen = mmp_screen(spans[set], p);
    int n_entries[mmp_warp_rows] = {};
    float row_far[mmp_warp_rows];  // rough squares above this are surely beyond the cut of a row
#pragma unroll
    for (int r = 0; r < mmp_warp_rows; ++r) {
        const int place = rows.places[mmp_row_of_block(r)];
        row_far[r] = place < 0 ? -1.0f : mmp_possibly(screen, cut * of_set[place]);
    }
    mmp_walk<MMP_P>(block, 0, mmp_infinity(), block.last_place >= 0, [&](int tile, MmpSquares& squares) {
        const int column = mmp_column(tile);
        float far[2];
#pragma unroll
        for (int h = 0; h < 2; ++h) far[h] = column + h < n ? mmp_possibly(screen, cut * of_set[column + h]) : -1.0f;
#pragma unroll
        for (int r = 0; r < mmp_warp_rows; ++r) {
            const int place = rows.places[mmp_row_of_block(r)];
            if (place < 0) continue;
            double value[2] = {};
#pragma unroll
            for (int h = 0; h < 2; ++h)
                // A pair beyond the cuts of both points is beyond that of the larger bandwidth.
                if (column + h < n && !(squares[r][h] > row_far[r] && squares[r][h] > far[h])) {
                    const double square = mmp_square_of_places(block, place, column + h);
                    value[h] = averaged(square, of_set[place], of_set[column + h], decay, thresh, smallest, cut);
                }
            const Entries entries{__ballot_sync(MMP_WARP, value[0] > 0), __ballot_sync(MMP_WARP, value[1] > 0)};
#pragma unroll
            for (int h = 0; h < 2; ++h)
                if (indptr && value[h] > 0) {
                    const mmp_i64 entry = indptr[set * n + place] + n_entries[r] + rank_of(entries, h);
                    indices[entry] = (MMP_INDEX)(column + h);
                    values[entry] = (MMP_VALUE)value[h];
                }
            n_entries[r] += size_of(entries);
        }
    });
    if (indptr || mmp_lane() != 0) return;
#pragma unroll
    for (int r = 0; r < mmp_warp_rows; ++r) {
        const int place = rows.places[mmp_row_of_block(r)];
        if (place >= 0) counts[set * n + place] = n_entries[r];
    }
}
