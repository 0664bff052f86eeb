// Which pairs lie within a distance: rough squares decide most of them, and float64 decides the others.
//
// A lane notes its pairs in doubt as bits. If any lane of a warp has some, each lane decides its pairs in float64 after
// the tile.
#pragma once
#include "pair_block.h"

// Bounds of the float64 squared distance of a pair with this rough square.
MMP_DEVICE double mmp_least_square(const MmpScreen& screen, float rough) {
    const double least = (sqrt((double)rough) * (1 - screen.relative) - screen.error) / screen.scale;
    return least > 0 ? least * least : 0;
}
MMP_DEVICE double mmp_most_square(const MmpScreen& screen, float rough) {
    const double most = (sqrt((double)rough) * (1 + screen.relative) + screen.error) / screen.scale;
    return most * most;
}

// The squared distance of two points that decides. It has the same bits in all twins. It is NaN, which is within no
// distance, if the points have no feature in common.
MMP_DEVICE double mmp_square(const double* x, const double* y, mmp_i64 p) {
    return mmp_masked ? mmp_masked_squared_distance(x, 1, y, 1, p) : mmp_squared_distance(x, 1, y, 1, p);
}
// The same for points i and j.
MMP_OUTLINED double mmp_exact_square(const double* points, mmp_i64 p, int i, int j) {
    return mmp_square(points + i * p, points + j * p, p);
}
// The same for the points at the places a and b.
MMP_DEVICE double mmp_square_of_places(const double* points, const mmp_i32* order, mmp_i64 p, int a, int b) {
    return mmp_exact_square(points, p, order ? order[a] : a, order ? order[b] : b);
}
MMP_DEVICE double mmp_square_of_places(const MmpBlock& block, int a, int b) {
    return mmp_square_of_places(block.exact, block.order, block.p, a, b);
}

// A squared distance that pairs are compared with: `limit` in float64, and its two bounds for rough squares.
struct MmpCut {
    double limit;
    float surely, possibly;
};

// The cut at `limit` for a set with this span.
MMP_OUTLINED MmpCut mmp_cut(double span, mmp_i64 p, double limit) {
    if (limit < 0) return {limit, -1.0f, -1.0f};
    const MmpScreen screen = mmp_screen(span, p);
    const double radius = sqrt(limit);
    // An infinite rough square marks no pair (see mmp_leave_out_self), so it must never be surely within a cut.
    const float surely = mmp_surely(screen, radius), most = 3.4028234663852886e38f;
    return {limit, surely < most ? surely : most, mmp_possibly(screen, radius)};
}
MMP_DEVICE MmpCut mmp_cut(const MmpStack& stack, int set, double limit) {
    return mmp_cut(stack.spans[set], stack.p, limit);
}

// The pairs of a lane are bits: row r with column h has the bit 2 r + h.
MMP_DEVICE unsigned mmp_bit(int r, int h) { return 1u << (2 * r + h); }

// The pairs in `doubt` that float64 puts beyond the limit, or that are no pair of two points. `places` are those of the
// rows of the warp.
MMP_OUTLINED unsigned mmp_beyond(const double* points, const mmp_i32* order, mmp_i64 p, int n, const int* places,
                                 int column, double limit, unsigned doubt) {
    unsigned beyond = 0;
    for (; doubt; doubt &= doubt - 1) {
        const int bit = __ffs((int)doubt) - 1, place = places[bit / 2], other = column + bit % 2;
        const bool within =
            place >= 0 && other < n && place != other && mmp_square_of_places(points, order, p, place, other) <= limit;
        beyond |= within ? 0u : 1u << bit;
    }
    return beyond;
}
MMP_DEVICE unsigned mmp_beyond(const MmpBlock& block, int tile, double limit, unsigned doubt) {
    return mmp_beyond(block.exact, block.order, block.p, block.n, block.rows->places + mmp_row_of_block(0),
                      mmp_column(tile), limit, doubt);
}

// Rough squares above `possibly` are beyond the cut. NaN is not above it, so float64 decides.
MMP_DEVICE bool mmp_near(const MmpCut& cut, float square) { return !(square > cut.possibly); }
MMP_DEVICE bool mmp_in_doubt(const MmpCut& cut, float square) {
    return mmp_near(cut, square) && !(square <= cut.surely);
}

// Whether any rough square of the warp is at most `possibly`, the bound of a cut. Most tiles have none. fminf ignores
// NaN, which does no harm: where a square can be NaN the cut is infinite.
MMP_DEVICE bool mmp_any_near(float possibly, const MmpSquares& squares) {
    float least = squares[0][0];
#pragma unroll
    for (int r = 0; r < mmp_warp_rows; ++r)
#pragma unroll
        for (int h = 0; h < 2; ++h) least = fminf(least, squares[r][h]);
    return __any_sync(MMP_WARP, !(least > possibly));
}

// The pairs of a lane for which is(square) holds, as bits.
template <class Is> MMP_DEVICE unsigned mmp_pairs_that(const MmpSquares& squares, Is is) {
    unsigned bits = 0;
#pragma unroll
    for (int r = 0; r < mmp_warp_rows; ++r)
#pragma unroll
        for (int h = 0; h < 2; ++h) bits |= is(squares[r][h]) ? mmp_bit(r, h) : 0u;
    return bits;
}

// The pairs of a lane that the screen leaves in doubt and float64 puts beyond the cut. Few tiles have such pairs, so
// all comparisons are made again here. To keep their results would cost every tile more than the count itself.
MMP_DEVICE unsigned mmp_doubtful_beyond(const MmpBlock& block, const MmpCut& cut, int tile, const MmpSquares& squares) {
    const MmpCut same{cut.limit, mmp_anew(cut.surely), mmp_anew(cut.possibly)};
    const unsigned doubt = mmp_pairs_that(squares, [&](float square) { return mmp_in_doubt(same, square); });
    return mmp_beyond(block, tile, cut.limit, doubt);
}

// The pairs of a lane within the cut.
MMP_DEVICE unsigned mmp_within(const MmpBlock& block, const MmpCut& cut, int tile, const MmpSquares& squares) {
    const unsigned near = mmp_pairs_that(squares, [&](float square) { return mmp_near(cut, square); });
    const unsigned sure = mmp_pairs_that(squares, [&](float square) { return square <= cut.surely; });
    if (!__any_sync(MMP_WARP, near != sure)) return near;
    return near & ~mmp_doubtful_beyond(block, cut, tile, squares);
}

// How many pairs of this lane lie within a cut, row by row.
typedef int MmpCounts[mmp_warp_rows];

// Adds the pairs of a tile within the cut to the counts of their rows. If `for_columns`, it also adds those of every
// column to `of_set`, which has one number for every point of the set.
MMP_DEVICE void mmp_count(const MmpBlock& block, const MmpCut& cut, int tile, const MmpSquares& squares,
                          bool for_columns, MmpCounts& counts, mmp_u64* of_set) {
    int of_columns[2] = {}, sure = 0;
#pragma unroll
    for (int r = 0; r < mmp_warp_rows; ++r)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            counts[r] += mmp_near(cut, squares[r][h]);
            of_columns[h] += mmp_near(cut, squares[r][h]);
            sure += squares[r][h] <= cut.surely;
        }
    if (__any_sync(MMP_WARP, sure != of_columns[0] + of_columns[1])) {
        const unsigned beyond = mmp_doubtful_beyond(block, cut, tile, squares);
#pragma unroll
        for (int r = 0; r < mmp_warp_rows; ++r) counts[r] -= __popc(beyond >> (2 * r) & 3u);
        of_columns[0] -= __popc(beyond & 0x5555u), of_columns[1] -= __popc(beyond & 0xaaaau);
    }
    if (!for_columns) return;
#pragma unroll
    for (int h = 0; h < 2; ++h)
        if (of_columns[h] > 0) atomicAdd(of_set + mmp_column(tile) + h, (mmp_u64)of_columns[h]);
}

// Adds the counts of all lanes to those of the rows in `of_set`.
MMP_DEVICE void mmp_add_counts(const MmpBlock& block, const MmpCounts& counts, mmp_u64* of_set) {
#pragma unroll
    for (int r = 0; r < mmp_warp_rows; ++r) {
        const int place = block.rows->places[mmp_row_of_block(r)], total = mmp_warp_sum(counts[r]);
        if (mmp_lane() == 0 && place >= 0) atomicAdd(of_set + place, (mmp_u64)total);
    }
}

// Makes the rough square of every row with itself infinite.
MMP_DEVICE void mmp_leave_out_self(const MmpBlock& block, int tile, MmpSquares& squares) {
    if (block.last_place < tile * mmp_tile || block.first_place >= (tile + 1) * mmp_tile) return;
    const int column = mmp_column(tile);
#pragma unroll
    for (int r = 0; r < mmp_warp_rows; ++r) {
        const int place = block.rows->places[mmp_row_of_block(r)];
#pragma unroll
        for (int h = 0; h < 2; ++h)
            if (place == column + h) squares[r][h] = mmp_infinity();
    }
}
