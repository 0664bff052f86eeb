// The exact distance of every point to its k-th nearest other point in its set, by counting. This is the twin of
// csrc/cpu/kth_neighbor_distance.cpp.
//
// Squared distances are at least 0, so the integers of their bits are in the same order. A row has a bracket
// (low, high] of such integers that holds its k-th squared distance. Each round over the columns counts the distances
// in eight parts of the bracket and keeps the part with the k-th. As soon as 32 or fewer remain, a last round collects
// and ranks them. So no row stores k entries. A round visits the tiles that come within the brackets of the block.
//
// The launcher defines MMP_P (the features of a pass).
#include "pair_cut.h"
#include "pair_tiles.h"

namespace {

constexpr int few = 32;   // one for each lane
constexpr int parts = 8;  // of a bracket; the counters of all but the last share a 64-bit register
constexpr int inner = parts - 1;
constexpr int tiles_per_flush = 127;  // a lane adds at most two per tile to counters of 8 bits
constexpr mmp_i64 bits_of_infinity = 0x7ff0000000000000LL;

struct Brackets {
    mmp_i64 low[mmp_tile], high[mmp_tile];      // bits of squared distances: above low, up to high
    mmp_i64 below[mmp_tile], inside[mmp_tile];  // how many other points lie up to low, and how many in the bracket
    MmpCut cuts[mmp_tile][inner];               // between the parts, ascending; for a list, its two ends
    int counts[mmp_tile][inner];                // of all parts but the last, which has the rest
    int listed[mmp_tile][few];                  // columns
    int reach;  // the bits of the largest rough square that matters to a row; -1 if none does
};

// A row whose bracket must be divided further.
MMP_DEVICE bool is_open(const Brackets& all, int row) {
    return all.inside[row] > few && all.high[row] - all.low[row] > 1;
}
// A row whose distances are collected. (A bracket with one integer is the result, and one without points has none.)
MMP_DEVICE bool is_listed(const Brackets& all, int row) {
    return all.inside[row] > 0 && all.inside[row] <= few && all.high[row] - all.low[row] > 1;
}
// A row whose bracket holds all distances.
MMP_DEVICE bool is_new(const Brackets& all, int row) {
    return all.inside[row] > 0 && all.high[row] == bits_of_infinity && all.low[row] < 0;
}

// The rows of this warp for which is(row) holds, as bits.
template <class Is> MMP_DEVICE unsigned rows_that(Is is) {
    unsigned bits = 0;
    for (int r = 0; r < mmp_warp_rows; ++r) bits |= (unsigned)is(mmp_row_of_block(r)) << r;
    return bits;
}

// Rough squares up to the `possibly` of this cut matter to the block. The bound is above 0 and not NaN, so its bits
// compare as the numbers do.
MMP_DEVICE void matters(Brackets& all, const MmpCut& cut) { atomicMax(&all.reach, mmp_bits_of(cut.possibly)); }
MMP_DEVICE float reach_of(const Brackets& all) { return mmp_of_bits(all.reach); }

// Divides a bracket. The first part has only the smallest integer of the bracket. So ties at the least distance are
// settled in one round.
MMP_DEVICE void divide(Brackets& all, int row, const MmpStack& stack, int set) {
    const mmp_i64 width = all.high[row] - all.low[row] - 1;
    for (int m = 0; m < inner; ++m) {
        const mmp_i64 step = width / inner * m + width % inner * m / inner;
        all.cuts[row][m] = mmp_cut(stack, set, __longlong_as_double(all.low[row] + 1 + step));
        all.counts[row][m] = 0;
    }
    matters(all, all.cuts[row][inner - 1]);
}

// Keeps the part with the k-th distance. The first count includes the distances below the bracket.
MMP_DEVICE void narrow(Brackets& all, int row, mmp_i64 k) {
    mmp_i64 rest = all.inside[row];
    all.counts[row][0] -= (int)all.below[row];
    for (int m = 0; m < inner; ++m) rest -= all.counts[row][m];
    int m = 0;
    for (; m < inner && all.below[row] + all.counts[row][m] < k; ++m) all.below[row] += all.counts[row][m];
    all.inside[row] = m < inner ? all.counts[row][m] : rest;
    if (m < inner) all.high[row] = __double_as_longlong(all.cuts[row][m].limit);
    if (m > 0) all.low[row] = __double_as_longlong(all.cuts[row][m - 1].limit);
}

// Adds the counters of all lanes to those of the row. Sums over 32 lanes need 16 bits, so the even and the odd counters
// are summed separately.
MMP_DEVICE void flush(Brackets& all, int row, mmp_u64 packed) {
    const mmp_u64 every_other = 0x00ff00ff00ff00ffULL;
    const mmp_u64 even = mmp_warp_sum(packed & every_other), odd = mmp_warp_sum((packed >> 8) & every_other);
    const int lane = mmp_lane();
    if (lane < inner) all.counts[row][lane] += (int)(((lane % 2 ? odd : even) >> (lane / 2 * 16)) & 0xffff);
}

// Gives each new row a bracket around all its distances.
MMP_DEVICE void find_range(const MmpBlock& block, Brackets& all, const MmpScreen& screen) {
    float least[mmp_warp_rows], minus_most[mmp_warp_rows];
#pragma unroll
    for (int r = 0; r < mmp_warp_rows; ++r) least[r] = 3e38f, minus_most[r] = 0;
    mmp_walk<MMP_P>(block, 0, mmp_infinity(), true, [&](int tile, MmpSquares& squares) {
        const int column = mmp_column(tile);
#pragma unroll
        for (int r = 0; r < mmp_warp_rows; ++r)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const bool other = column + h < block.n && column + h != block.rows->places[mmp_row_of_block(r)];
                const float square = squares[r][h];
                least[r] = other && square < least[r] ? square : least[r];
                minus_most[r] = other && -square < minus_most[r] ? -square : minus_most[r];
            }
    });
#pragma unroll
    for (int r = 0; r < mmp_warp_rows; ++r) {
        const float warp_least = mmp_warp_least(least[r]), warp_most = -mmp_warp_least(minus_most[r]);
        const int row = mmp_row_of_block(r);
        if (mmp_lane() == 0 && is_new(all, row)) {
            all.low[row] = __double_as_longlong(mmp_least_square(screen, warp_least)) - 1;
            all.high[row] = __double_as_longlong(mmp_most_square(screen, warp_most));
        }
    }
}

// The exact squared distance of two places, infinite if the points have no feature in common.
MMP_DEVICE double square_of(const double* points, const mmp_i32* order, mmp_i64 p, int place, int column) {
    const double square = mmp_square_of_places(points, order, p, place, column);
    return mmp_masked && square != square ? __longlong_as_double(bits_of_infinity) : square;
}
MMP_DEVICE double square_of(const MmpBlock& block, int place, int column) {
    return square_of(block.exact, block.order, block.p, place, column);
}

// The part of a bracket that the squared distance of a pair lies in, by float64.
MMP_OUTLINED int exact_part(const MmpCut* cuts, const double* points, const mmp_i32* order, mmp_i64 p, int place,
                            int column) {
    const double square = square_of(points, order, p, place, column);
    int part = 0;
    for (int m = 0; m < inner; ++m) part += square > cuts[m].limit;
    return part;
}

// The same part, by the rough square where that is certain. The limits ascend, so a binary search finds the part.
MMP_DEVICE int part_of(const MmpBlock& block, const MmpCut* cuts, float square, int place, int column) {
    int part = 0;
    bool certain = true;
#pragma unroll
    for (int step = parts / 2; step > 0; step /= 2) {
        const MmpCut& cut = cuts[part + step - 1];
        const bool beyond = square > cut.possibly;
        certain = certain && (beyond || square <= cut.surely);
        part += beyond ? step : 0;
    }
    return certain ? part : exact_part(cuts, block.exact, block.order, block.p, place, column);
}

// Counts the distances of the open rows in the parts of their brackets.
MMP_DEVICE void count_parts(const MmpBlock& block, Brackets& all) {
    mmp_u64 packed[mmp_warp_rows] = {};
    float last[mmp_warp_rows];  // rough squares above this lie in the last part; -1 where the row is not open
    int n_tiles = 0;            // since the last flush
    const unsigned open = rows_that([&](int row) { return is_open(all, row); });
#pragma unroll
    for (int r = 0; r < mmp_warp_rows; ++r)
        last[r] = open >> r & 1u ? all.cuts[mmp_row_of_block(r)][inner - 1].possibly : -1.0f;
    const float reach = reach_of(all);
    mmp_walk<MMP_P>(block, 0, reach, open != 0, [&](int tile, MmpSquares& squares) {
        const int column = mmp_column(tile);
        const bool any_near = mmp_any_near(reach, squares);
#pragma unroll
        for (int r = 0; r < mmp_warp_rows && any_near; ++r)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                if (squares[r][h] > last[r]) continue;
                const int row = mmp_row_of_block(r), place = block.rows->places[row];
                if (!(open >> r & 1u) || column + h >= block.n || column + h == place) continue;
                const int part = part_of(block, all.cuts[row], squares[r][h], place, column + h);
                packed[r] += part < inner ? 1ULL << (8 * part) : 0ULL;
            }
        if (++n_tiles == tiles_per_flush) {
            n_tiles = 0;
#pragma unroll
            for (int r = 0; r < mmp_warp_rows; ++r) flush(all, mmp_row_of_block(r), packed[r]), packed[r] = 0;
        }
    });
#pragma unroll
    for (int r = 0; r < mmp_warp_rows; ++r) flush(all, mmp_row_of_block(r), packed[r]);
}

// Collects the columns in the brackets of the listed rows.
MMP_DEVICE void collect(const MmpBlock& block, Brackets& all) {
    int n_listed[mmp_warp_rows] = {};
    const unsigned listed = rows_that([&](int row) { return is_listed(all, row); });
    const float reach = reach_of(all);
    mmp_walk<MMP_P>(block, 0, reach, listed != 0, [&](int tile, MmpSquares& squares) {
        if (!mmp_any_near(reach, squares)) return;
        mmp_leave_out_self(block, tile, squares);
#pragma unroll
        for (int r = 0; r < mmp_warp_rows; ++r) {
            if (!(listed >> r & 1u)) continue;
            const int row = mmp_row_of_block(r);
            const MmpCut least = all.cuts[row][0], most = all.cuts[row][1];
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const float square = squares[r][h];
                bool taken = mmp_near(most, square) && !(square <= least.surely);
                if (taken && (mmp_in_doubt(most, square) || mmp_in_doubt(least, square))) {
                    const int place = block.rows->places[row], column = mmp_column(tile) + h;
                    taken = column < block.n && column != place;
                    const double exact = taken ? square_of(block, place, column) : 0;
                    taken = taken && exact <= most.limit && exact > least.limit;
                }
                const unsigned lanes = __ballot_sync(MMP_WARP, taken);
                const int slot = n_listed[r] + mmp_rank(lanes);
                if (taken && slot < few) all.listed[row][slot] = mmp_column(tile) + h;
                n_listed[r] += __popc(lanes);
            }
        }
    });
    __syncwarp();
}

// Each of the first n lanes has a square. The lane whose square has the rank `rank` (from 0) writes its root.
MMP_DEVICE void write_ranked(double square, int n, mmp_i64 rank, double* out) {
    const int lane = mmp_lane();
    int before = 0;
    for (int l = 0; l < n; ++l) {
        const double other = __shfl_sync(MMP_WARP, square, l);
        before += other < square || (other == square && l < lane);
    }
    if (lane < n && before == rank) *out = sqrt(square);
}

// The largest squared distance of points nearer than `distance`, or -1 if none can be nearer.
MMP_DEVICE double squares_nearer(double distance) {
    return distance > 0 ? mmp_squared_reach(mmp_neighboring(distance, -1)) : -1;
}

// Whether the point at `place` has no feature at all, and so lies infinitely far from all points.
MMP_DEVICE bool lacks_all(const MmpBlock& block, int place) {
    unsigned present = 0;
    for (int pass = 0; pass < block.passes; ++pass) present |= mmp_word_of(block, place, pass);
    return !present;
}

MMP_DEVICE mmp_i64 bits_of_square(double square) { return square < 0 ? -1 : __double_as_longlong(square); }

}  // namespace

// One block per 64 rows of a set, one warp per 8 of them, two columns a lane. A block divides brackets until no row is
// open.
//
// distances: from every row to its k-th nearest other point of its set, 1 <= k < n.
// rows: the places of the rows, counted over the stack; each block has 64 of one set, or -1 in place of a row. If it is
// null, all places are rows, and distances is (B, n).
// low, high (B,) and below, within (B, n), or null: a bracket for each set, and the counts of bracket_count. A row
// whose k-th distance lies in this bracket begins with it.
MMP_KERNEL void __launch_bounds__(mmp_threads, mmp_masked ? 2 : 0)
    kth_neighbor_distance(const double* points, const float* rough, const float* boxes, const double* spans,
                          const mmp_i32* order, mmp_i64 n, mmp_i64 p, mmp_i64 passes, mmp_i64 k, const mmp_i64* rows,
                          const double* low, const double* high, const mmp_i64* below, const mmp_i64* within,
                          double* distances, const mmp_i32* presence) {
    MMP_SHARED(MmpRows, rows_of_block);
    MMP_SHARED(Brackets, all);
    MMP_SHARED_BYTES(float, shared);
    const MmpStack stack{points, rough, boxes, spans, order, n, p, (int)passes, presence};
    const int n_tiles = mmp_tiles_of(n), mine = (int)threadIdx.x;
    const mmp_i64 first = (mmp_i64)blockIdx.x * mmp_tile;
    if (rows && rows[first] < 0) return;
    const int set = rows ? (int)(rows[first] / n) : (int)(blockIdx.x / n_tiles);
    const MmpBlock block = mmp_block<MMP_P>(rows_of_block, shared, stack, set, [&](int row) {
        if (rows) return rows[first + row] < 0 ? -1 : (int)(rows[first + row] - set * n);
        const int place = (int)(blockIdx.x % n_tiles) * mmp_tile + row;
        return place < n ? place : -1;
    });
    if (mine == 0) all.reach = -1;
    if (mine < mmp_tile) {
        const int place = rows_of_block.places[mine];
        all.low[mine] = -1, all.high[mine] = bits_of_infinity;
        if (mmp_masked && lacks_all(block, place)) all.low[mine] = bits_of_infinity - 1;
        all.below[mine] = 0, all.inside[mine] = place < 0 ? 0 : n - 1;
        if (place >= 0 && below && below[set * n + place] < k && within[set * n + place] >= k) {
            all.low[mine] = bits_of_square(squares_nearer(low[set]));
            all.high[mine] = bits_of_square(mmp_squared_reach(high[set]));
            all.below[mine] = below[set * n + place], all.inside[mine] = within[set * n + place] - all.below[mine];
        }
    }
    if (__syncthreads_or(n - 1 > few && mine < mmp_tile && is_new(all, mine)))
        find_range(block, all, mmp_screen(spans[set], p));
    __syncthreads();
    while (__syncthreads_or(mine < mmp_tile && is_open(all, mine))) {
        if (mine < mmp_tile && is_open(all, mine)) divide(all, mine, stack, set);
        __syncthreads();
        count_parts(block, all);
        __syncthreads();
        if (mine < mmp_tile && is_open(all, mine)) narrow(all, mine, k);
        if (mine == 0) all.reach = -1;
        __syncthreads();
    }
    if (mine < mmp_tile && is_listed(all, mine)) {
        const double least = all.low[mine] < 0 ? -1 : __longlong_as_double(all.low[mine]);
        all.cuts[mine][0] = mmp_cut(stack, set, least);
        all.cuts[mine][1] = mmp_cut(stack, set, __longlong_as_double(all.high[mine]));
        matters(all, all.cuts[mine][1]);
    }
    if (__syncthreads_or(mine < mmp_tile && is_listed(all, mine))) collect(block, all);
    for (int r = 0; r < mmp_warp_rows; ++r) {
        const int row = mmp_row_of_block(r), place = rows_of_block.places[row], n_listed = (int)all.inside[row];
        if (place < 0) continue;
        double* const out = distances + (rows ? first + row : set * n + place);
        if (is_listed(all, row)) {
            double square = 0;
            if (mmp_lane() < n_listed) square = square_of(block, place, all.listed[row][mmp_lane()]);
            write_ranked(square, n_listed, k - all.below[row] - 1, out);
        } else if (mmp_lane() == 0) {
            *out = sqrt(__longlong_as_double(all.high[row]));
        }
    }
}

// One block per tile of a set, one warp per 8 of its points, two columns a lane. As in radius_count, a block visits its
// tile and those behind it.
//
// For the point at every place it counts the other points of its set nearer than low[set], in `below` (B, n), and those
// within high[set], in `within` (B, n). The caller sets both to 0.
MMP_KERNEL void __launch_bounds__(mmp_threads, 3)
    bracket_count(const double* points, const float* rough, const float* boxes, const double* spans,
                  const mmp_i32* order, mmp_i64 n, mmp_i64 p, mmp_i64 passes, const double* low, const double* high,
                  mmp_u64* below, mmp_u64* within, const mmp_i32* presence) {
    MMP_SHARED(MmpRows, rows);
    MMP_SHARED_BYTES(float, shared);
    const MmpStack stack{points, rough, boxes, spans, order, n, p, (int)passes, presence};
    const int n_tiles = mmp_tiles_of(n), first_tile = (int)(blockIdx.x % n_tiles), set = (int)(blockIdx.x / n_tiles);
    const MmpBlock block = mmp_block<MMP_P>(rows, shared, stack, set, [&](int row) {
        const int place = first_tile * mmp_tile + row;
        return place < n ? place : -1;
    });
    const double nearer = squares_nearer(low[set]);
    const MmpCut least = mmp_cut(stack, set, nearer), most = mmp_cut(stack, set, mmp_squared_reach(high[set]));
    MmpCounts within_high{}, below_low{};
    mmp_walk<MMP_P>(block, first_tile, most.possibly, true, [&](int tile, MmpSquares& squares) {
        if (tile == first_tile) mmp_leave_out_self(block, tile, squares);
        if (!mmp_any_near(most.possibly, squares)) return;
        mmp_count(block, most, tile, squares, tile != first_tile, within_high, within + set * n);
        mmp_count(block, least, tile, squares, tile != first_tile, below_low, below + set * n);
    });
    mmp_add_counts(block, within_high, within + set * n);
    mmp_add_counts(block, below_low, below + set * n);
}
