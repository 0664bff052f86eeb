// Distance to the k-th nearest other point of the same set, exactly, by counting: the twin of
// csrc/cpu/kth_neighbor_distance.cpp.
//
// Squared distances are from 0 on, so the integers of their bits are in the same order. A row keeps a bracket
// (low, high] of such integers that holds its k-th. Each pass over the columns counts the distances in eight parts of
// the bracket and keeps one; where 32 or fewer are left, one more pass collects and ranks them. No list of k entries.
#include "../common/pair_tiles.h"

namespace {

constexpr int few = 32;    // one a lane
constexpr int parts = 8;   // of a bracket; their counters share a 64-bit register
constexpr int inner = parts - 1;
constexpr int tiles_a_flush = 127;  // a lane adds two a tile to counters of 8 bits
constexpr mmp_i64 bits_of_infinity = 0x7ff0000000000000LL;

struct Brackets {
    mmp_i64 low[mmp_tile], high[mmp_tile];      // bits of squared distances: above low, up to high
    mmp_i64 below[mmp_tile], inside[mmp_tile];  // how many others lie up to low, and how many in the bracket
    MmpCut cuts[mmp_tile][inner];               // between the parts, ascending; for a list, its two ends
    int counts[mmp_tile][parts];
    int listed[mmp_tile][few];  // columns
};

MMP_DEVICE bool is_open(const Brackets& all, int row) {
    return all.inside[row] > few && all.high[row] - all.low[row] > 1;
}
// A bracket of one integer has its answer, and one without rows has none to find.
MMP_DEVICE bool is_listed(const Brackets& all, int row) {
    return all.inside[row] > 0 && all.inside[row] <= few && all.high[row] - all.low[row] > 1;
}

// Which rows of this warp are open (listed): bits.
template <class Is> MMP_DEVICE unsigned rows_that(Is is) {
    unsigned bits = 0;
    for (int r = 0; r < mmp_warp_rows; ++r) bits |= (unsigned)is(mmp_row_of_block(r)) << r;
    return bits;
}

// The first part holds the smallest integer of the bracket alone: that settles ties at the least distance at once.
MMP_DEVICE void divide(Brackets& all, int row, const MmpStack& stack, mmp_i64 set) {
    const mmp_i64 width = all.high[row] - all.low[row] - 1;
    for (int m = 0; m < inner; ++m) {
        const mmp_i64 step = width / inner * m + width % inner * m / inner;
        all.cuts[row][m] = mmp_cut(stack, set, __longlong_as_double(all.low[row] + 1 + step));
    }
    for (int m = 0; m < parts; ++m) all.counts[row][m] = 0;
}

// Keeps the part with the k-th of `others`. The first and the last count hold what lies outside the bracket too.
MMP_DEVICE void narrow(Brackets& all, int row, mmp_i64 k, mmp_i64 others) {
    all.counts[row][0] -= (int)all.below[row];
    all.counts[row][inner] -= (int)(others - all.below[row] - all.inside[row]);
    int m = 0;
    for (; m < inner && all.below[row] + all.counts[row][m] < k; ++m) all.below[row] += all.counts[row][m];
    if (m < inner) all.high[row] = __double_as_longlong(all.cuts[row][m].limit);
    if (m > 0) all.low[row] = __double_as_longlong(all.cuts[row][m - 1].limit);
    all.inside[row] = all.counts[row][m];
}

// Adds the counters of all lanes to those of the row. Sums of 32 lanes fit 16 bits: even and odd ones apart.
MMP_DEVICE void flush(Brackets& all, int row, mmp_u64 packed) {
    const mmp_u64 every_other = 0x00ff00ff00ff00ffULL;
    const mmp_u64 even = mmp_warp_sum(packed & every_other), odd = mmp_warp_sum((packed >> 8) & every_other);
    const int lane = mmp_lane();
    if (lane < parts) all.counts[row][lane] += (int)(((lane % 2 ? odd : even) >> (lane / 2 * 16)) & 0xffff);
}

// A bracket around all distances of each row.
MMP_DEVICE void find_range(MmpPairTiles& tiles, Brackets& all, const MmpStack& stack) {
    float least[mmp_warp_rows], most[mmp_warp_rows];
#pragma unroll
    for (int r = 0; r < mmp_warp_rows; ++r) least[r] = 3e38f, most[r] = 0;
    mmp_walk(tiles, stack, true, [&](const MmpPairs& pairs) {
        mmp_each(tiles, stack, pairs, [&](const MmpPair& pair) {
            const bool other = mmp_other(pair);
            least[pair.r] = other && pair.square < least[pair.r] ? pair.square : least[pair.r];
            most[pair.r] = other && pair.square > most[pair.r] ? pair.square : most[pair.r];
        });
    });
#pragma unroll
    for (int r = 0; r < mmp_warp_rows; ++r) {
        for (int step = 16; step > 0; step /= 2) {
            const float a = __shfl_xor_sync(MMP_WARP, least[r], step), b = __shfl_xor_sync(MMP_WARP, most[r], step);
            least[r] = a < least[r] ? a : least[r];
            most[r] = b > most[r] ? b : most[r];
        }
        const int row = mmp_row_of_block(r);
        if (mmp_lane() == 0 && tiles.set[row] >= 0) {
            const MmpScreen screen = mmp_screen_of(stack, tiles.set[row]);
            all.low[row] = __double_as_longlong(mmp_least_square(screen, least[r])) - 1;
            all.high[row] = __double_as_longlong(mmp_most_square(screen, most[r]));
        }
    }
}

// Which part of a bracket a squared distance lies in.
MMP_OUTLINED int exact_part(const MmpCut* cuts, const double* points, mmp_i64 p, int own, int column) {
    const double square = mmp_exact_square(points, p, own, column);
    int part = 0;
    for (int m = 0; m < inner; ++m) part += square > cuts[m].limit;
    return part;
}

// The same of a pair: by halves, as the limits ascend. Most pairs lie beyond all.
MMP_DEVICE int part_of(const MmpStack& stack, const MmpCut* cuts, const MmpPair& pair) {
    if (pair.square > cuts[inner - 1].possibly) return inner;
    int part = 0;
    bool certain = true;
#pragma unroll
    for (int step = parts / 2; step > 0; step /= 2) {
        const MmpCut& cut = cuts[part + step - 1];
        const bool beyond = pair.square > cut.possibly;
        certain = certain && (beyond || pair.square <= cut.surely);
        part += beyond ? step : 0;
    }
    if (certain) return part;
    return exact_part(cuts, stack.exact + pair.set * stack.n * stack.p, stack.p, pair.own, pair.column);
}

MMP_DEVICE void count_parts(MmpPairTiles& tiles, Brackets& all, const MmpStack& stack) {
    mmp_u64 packed[mmp_warp_rows] = {};
    int passed = 0;
    const unsigned open = rows_that([&](int row) { return is_open(all, row); });
    mmp_walk(tiles, stack, open != 0, [&](const MmpPairs& pairs) {
        mmp_each(tiles, stack, pairs, [&](const MmpPair& pair) {
            if (!(open >> pair.r & 1) || !mmp_other(pair)) return;
            packed[pair.r] += 1ULL << (8 * part_of(stack, all.cuts[mmp_row_of_block(pair.r)], pair));
        });
        if (++passed == tiles_a_flush) {
            passed = 0;
#pragma unroll
            for (int r = 0; r < mmp_warp_rows; ++r) flush(all, mmp_row_of_block(r), packed[r]), packed[r] = 0;
        }
    });
#pragma unroll
    for (int r = 0; r < mmp_warp_rows; ++r) flush(all, mmp_row_of_block(r), packed[r]);
}

// The columns of the rows that have a list.
MMP_DEVICE void collect(MmpPairTiles& tiles, Brackets& all, const MmpStack& stack) {
    int found[mmp_warp_rows] = {};
    const unsigned listed = rows_that([&](int row) { return is_listed(all, row); });
    mmp_walk(tiles, stack, listed != 0, [&](const MmpPairs& pairs) {
        mmp_each(tiles, stack, pairs, [&](const MmpPair& pair) {
            if (!(listed >> pair.r & 1)) return;
            const int row = mmp_row_of_block(pair.r);
            const MmpCut* const ends = all.cuts[row];
            const bool taken =
                mmp_other(pair) && mmp_within(stack, ends[1], pair) && !mmp_within(stack, ends[0], pair);
            const unsigned lanes = __ballot_sync(MMP_WARP, taken);
            const int place = found[pair.r] + mmp_rank(lanes);
            if (taken && place < few) all.listed[row][place] = pair.column;
            found[pair.r] += __popc(lanes);
        });
    });
    __syncwarp();
}

// The square of rank `rank` (from 0) among those of the first n lanes: the lane that holds it writes its root.
MMP_DEVICE void write_ranked(double square, int n, mmp_i64 rank, double* out) {
    const int lane = mmp_lane();
    int before = 0;
    for (int l = 0; l < n; ++l) {
        const double other = __shfl_sync(MMP_WARP, square, l);
        before += other < square || (other == square && l < lane);
    }
    if (lane < n && before == rank) *out = sqrt(square);
}

}  // namespace

// One block per 64 points named, one warp per 8 of them, two columns a lane, pass after pass until all are found.
//
// distances (n_rows,): of the points `rows` (counted over the stack; null: all) of points (n_sets, n, p) to their k-th
// nearest other point of the same set, 1 <= k < n.
MMP_KERNEL void __launch_bounds__(mmp_threads)
    kth_neighbor_distance(const double* points, const float* rough, const double* spans, mmp_i64 n, mmp_i64 p,
                          mmp_i64 k, const mmp_i64* rows, mmp_i64 n_rows, double* distances) {
    MMP_SHARED(MmpPairTiles, tiles);
    MMP_SHARED(Brackets, all);
    const MmpStack stack{points, rough, spans, n, p};
    const int mine = (int)threadIdx.x;
    if (mine < mmp_tile) {
        const bool there = (mmp_i64)blockIdx.x * mmp_tile + mine < n_rows;
        all.low[mine] = -1, all.high[mine] = bits_of_infinity;
        all.below[mine] = 0, all.inside[mine] = there ? n - 1 : 0;
    }
    mmp_locate(tiles, n_rows, [&](mmp_i64 row, mmp_i64& set, mmp_i64& own) {
        const mmp_i64 point = rows ? rows[row] : row;
        set = point / n, own = point % n;
    });
    if (n - 1 > few) find_range(tiles, all, stack);
    __syncthreads();
    while (__syncthreads_or(mine < mmp_tile && is_open(all, mine))) {
        if (mine < mmp_tile && is_open(all, mine)) divide(all, mine, stack, tiles.set[mine]);
        __syncthreads();
        count_parts(tiles, all, stack);
        __syncthreads();
        if (mine < mmp_tile && is_open(all, mine)) narrow(all, mine, k, n - 1);
        __syncthreads();
    }
    if (mine < mmp_tile && is_listed(all, mine)) {
        const double low = all.low[mine] < 0 ? -1 : __longlong_as_double(all.low[mine]);
        all.cuts[mine][0] = mmp_cut(stack, tiles.set[mine], low);
        all.cuts[mine][1] = mmp_cut(stack, tiles.set[mine], __longlong_as_double(all.high[mine]));
    }
    if (__syncthreads_or(mine < mmp_tile && is_listed(all, mine))) collect(tiles, all, stack);
    for (int r = 0; r < mmp_warp_rows; ++r) {
        const int row = mmp_row_of_block(r), n_listed = (int)all.inside[row];
        double* out = distances + mmp_row_of_launch(r);
        if (is_listed(all, row)) {
            double square = 0;
            if (mmp_lane() < n_listed)
                square = mmp_exact_square(stack, tiles.set[row], tiles.own[row], all.listed[row][mmp_lane()]);
            write_ranked(square, n_listed, k - all.below[row] - 1, out);
        } else if (tiles.set[row] >= 0 && mmp_lane() == 0) {
            *out = sqrt(__longlong_as_double(all.high[row]));
        }
    }
}

// One block per 64 points of the stack, one warp per 8 of them, two columns a lane; a lane counts, the warp adds up.
//
// For every point, how many others of its set lie nearer than low[set], and how many within high[set].
MMP_KERNEL void __launch_bounds__(mmp_threads)
    bracket_count(const double* points, const float* rough, const double* spans, mmp_i64 n_sets, mmp_i64 n, mmp_i64 p,
                  const double* low, const double* high, mmp_i64* below, mmp_i64* within) {
    MMP_SHARED(MmpPairTiles, tiles);
    const MmpStack stack{points, rough, spans, n, p};
    mmp_locate(tiles, n_sets * n, [&](mmp_i64 row, mmp_i64& set, mmp_i64& own) { set = row / n, own = row % n; });
    int nearer[mmp_warp_rows] = {}, near[mmp_warp_rows] = {};
    MmpCut least{}, most{};
    mmp_walk(tiles, stack, true, [&](const MmpPairs& pairs) {
        if (pairs.begins) {
            const double below_low = low[pairs.set] > 0 ? mmp_neighbouring(low[pairs.set], -1) : -1;
            least = mmp_cut(stack, pairs.set, below_low < 0 ? -1 : mmp_squared_reach(below_low));
            most = mmp_cut(stack, pairs.set, mmp_squared_reach(high[pairs.set]));
        }
        mmp_each(tiles, stack, pairs, [&](const MmpPair& pair) {
            if (!mmp_other(pair)) return;
            nearer[pair.r] += mmp_within(stack, least, pair);
            near[pair.r] += mmp_within(stack, most, pair);
        });
    });
#pragma unroll
    for (int r = 0; r < mmp_warp_rows; ++r) {
        const int a = mmp_warp_sum(nearer[r]), b = mmp_warp_sum(near[r]);
        if (mmp_lane() == 0 && mmp_row_of_launch(r) < n_sets * n)
            below[mmp_row_of_launch(r)] = a, within[mmp_row_of_launch(r)] = b;
    }
}
