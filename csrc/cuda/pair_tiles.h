// What the kernels over pairs share: they visit the pairs of some points with all points of their set, tile by tile,
// and have the rough square of each, its squared distance in float32. One block serves mmp_tile rows of one set, and
// each of its warps serves mmp_warp_rows of them. A tile has mmp_tile columns. Every lane has two neighbouring ones.
//
// The float32 features of a tile lie together, feature by feature (see pair_screen.cu). So a copy of a tile needs no
// division. A point past the last is infinitely far from all points, so it needs no test. Features pass through shared
// memory P at a time. The compiler knows P and unrolls the loop over them. The launcher chooses P so that P times a
// whole number of passes is the number of features or little more; the features past the last are 0. The next tile is
// copied while the warps work on the present one.
//
// Tiles whose bounding box lies beyond reach are not visited. Boxes are compared by the same operations in the same
// order as pairs, and each operation is monotonic. So the rough square of a pair is never below that of the boxes.
//
// A pair of points with p features takes 2 p operations in float32 and 4 to 6 more. A lane notes its pairs in doubt as
// bits. If a warp has any, its lanes decide them in float64 after the tile, each lane its own.
#pragma once
#include "../common/screen.h"
#include "device.h"

constexpr int mmp_warps = 8;
constexpr int mmp_warp_rows = 8;
constexpr int mmp_threads = 32 * mmp_warps;
constexpr int mmp_tile = mmp_warps * mmp_warp_rows;
// A box has at most this many features, the first ones: a sum over fewer features is a lower bound as well.
constexpr int mmp_box_features = 64;

// Points of n_sets sets of n < 2^31 each: in float64 as the caller has them, and in tiles as pair_screen made them. A
// place is the number of a point in the order of the tiles.
struct MmpStack {
    const double* exact;   // (n_sets, n, p)
    const float* rough;    // (n_sets, tiles, passes * P, mmp_tile)
    const float* boxes;    // (n_sets, 2, up to mmp_box_features, tiles): least and largest features
    const double* spans;   // (n_sets,)
    const mmp_i32* order;  // (n_sets, n): the point at each place; null if point i has place i
    mmp_i64 n, p;
    int passes;  // over the features, P at a time
};

MMP_DEVICE int mmp_tiles_of(mmp_i64 n) { return (int)((n + mmp_tile - 1) / mmp_tile); }

// Numbers that one instruction reads.
struct alignas(16) MmpFour {
    float of[4];
};
struct alignas(8) MmpTwo {
    float of[2];
};

// The rows of a block and the tiles that it will visit, in shared memory.
struct MmpRows {
    int own[mmp_tile];  // the place of every row within its set; -1 past the last
    float low[mmp_box_features], high[mmp_box_features];
    int visits[mmp_threads];
    unsigned marks[mmp_warps];
};

// What a block works on.
struct MmpBlock {
    MmpRows* rows;
    float* rough;        // shared: of the rows, then two buffers of columns
    const float* tiles;  // of the set
    const float* boxes;
    const double* exact;
    const mmp_i32* order;
    mmp_i64 p;
    int set, n, n_tiles, passes;
    int first_own, last_own;  // the least and the largest place of the rows of this warp; -1 if it has none
};

typedef float MmpSquares[mmp_warp_rows][2];

MMP_DEVICE int mmp_warp_of_block() { return (int)(threadIdx.x / 32); }
// Row r of this warp, counted within the block.
MMP_DEVICE int mmp_row_of_block(int r) { return mmp_warp_of_block() * mmp_warp_rows + r; }
// The first of the two columns of this lane.
MMP_DEVICE int mmp_column(int tile) { return tile * mmp_tile + 2 * mmp_lane(); }

MMP_DEVICE float mmp_infinity() { return (float)(mmp_power_of_two(1023) * 2); }

MMP_DEVICE float mmp_warp_least(float value) {
    for (int step = 16; step > 0; step /= 2) {
        const float other = __shfl_xor_sync(MMP_WARP, value, step);
        value = other < value ? other : value;
    }
    return value;
}

// ---------------------------------------------------------------- decisions in float64

// The squared distance of two points that decides, the same bits in all twins.
MMP_OUTLINED double mmp_exact_square(const double* points, mmp_i64 p, int one, int other) {
    return mmp_squared_distance(points + one * p, 1, points + other * p, 1, p);
}
// The same for the points at two places.
MMP_DEVICE double mmp_square_of_places(const double* points, const mmp_i32* order, mmp_i64 p, int one, int other) {
    return mmp_exact_square(points, p, order ? order[one] : one, order ? order[other] : other);
}
MMP_DEVICE double mmp_square_of_places(const MmpBlock& block, int one, int other) {
    return mmp_square_of_places(block.exact, block.order, block.p, one, other);
}

// A squared distance to compare pairs with: in float64, and its two bounds for rough squares.
struct MmpCut {
    double limit;
    float surely, possibly;
};

// The cut at `limit` for a set with this span.
MMP_OUTLINED MmpCut mmp_cut(double span, mmp_i64 p, double limit) {
    if (limit < 0) return {limit, -1.0f, -1.0f};
    const MmpScreen screen = mmp_screen(span, p);
    const double radius = sqrt(limit);
    // An infinite square is no pair of two points (see mmp_leave_out_own), so no cut may count it as surely within.
    const float surely = mmp_surely(screen, radius), most = 3.4028234663852886e38f;
    return {limit, surely < most ? surely : most, mmp_possibly(screen, radius)};
}
MMP_DEVICE MmpCut mmp_cut(const MmpStack& stack, int set, double limit) {
    return mmp_cut(stack.spans[set], stack.p, limit);
}

// Pairs of a lane as bits: row r with column h has the bit 2 r + h.
MMP_DEVICE unsigned mmp_bit(int r, int h) { return 1u << (2 * r + h); }

// Those of the pairs `doubt` of a lane that are not within the limit or are no pair of two points. `own` has the places
// of the warp's rows.
MMP_OUTLINED unsigned mmp_beyond(const double* points, const mmp_i32* order, mmp_i64 p, int n, const int* own,
                                 int column, double limit, unsigned doubt) {
    unsigned beyond = 0;
    for (; doubt; doubt &= doubt - 1) {
        const int place = __ffs((int)doubt) - 1, one = own[place / 2], other = column + place % 2;
        const bool within =
            one >= 0 && other < n && one != other && mmp_square_of_places(points, order, p, one, other) <= limit;
        beyond |= within ? 0u : 1u << place;
    }
    return beyond;
}
MMP_DEVICE unsigned mmp_beyond(const MmpBlock& block, int tile, double limit, unsigned doubt) {
    return mmp_beyond(block.exact, block.order, block.p, block.n, block.rows->own + mmp_row_of_block(0),
                      mmp_column(tile), limit, doubt);
}

// Rough squares above `possibly` are beyond the cut. NaN is not above it, so float64 decides.
MMP_DEVICE bool mmp_near(const MmpCut& cut, float square) { return !(square > cut.possibly); }
MMP_DEVICE bool mmp_in_doubt(const MmpCut& cut, float square) {
    return mmp_near(cut, square) && !(square <= cut.surely);
}

// Whether any rough square of the warp is at most `possibly`, the bound of a cut. In most tiles none is. fminf ignores
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

// Those pairs of a lane that the screen leaves in doubt and float64 finds beyond the cut. Few tiles have any, so all
// comparisons are made again: to keep their results would cost every tile more than the count itself.
MMP_DEVICE unsigned mmp_found_beyond(const MmpBlock& block, const MmpCut& cut, int tile, const MmpSquares& squares) {
    const MmpCut same{cut.limit, mmp_anew(cut.surely), mmp_anew(cut.possibly)};
    const unsigned doubt = mmp_pairs_that(squares, [&](float square) { return mmp_in_doubt(same, square); });
    return mmp_beyond(block, tile, cut.limit, doubt);
}

// The pairs of a lane within the cut.
MMP_DEVICE unsigned mmp_within(const MmpBlock& block, const MmpCut& cut, int tile, const MmpSquares& squares) {
    const unsigned near = mmp_pairs_that(squares, [&](float square) { return mmp_near(cut, square); });
    const unsigned sure = mmp_pairs_that(squares, [&](float square) { return square <= cut.surely; });
    if (!__any_sync(MMP_WARP, near != sure)) return near;
    return near & ~mmp_found_beyond(block, cut, tile, squares);
}

// Numbers of pairs of this lane within a cut, row by row.
typedef int MmpCounts[mmp_warp_rows];

// Adds the pairs of a tile within the cut to the counts of their rows. If `for_columns`, it also adds those of every
// column to `of_set`, which has one number for every point of the set.
MMP_DEVICE void mmp_count(const MmpBlock& block, const MmpCut& cut, int tile, const MmpSquares& squares,
                          bool for_columns, MmpCounts& counts, mmp_u64* of_set) {
    int beside[2] = {}, sure = 0;
#pragma unroll
    for (int r = 0; r < mmp_warp_rows; ++r)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            counts[r] += mmp_near(cut, squares[r][h]);
            beside[h] += mmp_near(cut, squares[r][h]);
            sure += squares[r][h] <= cut.surely;
        }
    if (__any_sync(MMP_WARP, sure != beside[0] + beside[1])) {
        const unsigned beyond = mmp_found_beyond(block, cut, tile, squares);
#pragma unroll
        for (int r = 0; r < mmp_warp_rows; ++r) counts[r] -= __popc(beyond >> (2 * r) & 3u);
        beside[0] -= __popc(beyond & 0x5555u), beside[1] -= __popc(beyond & 0xaaaau);
    }
    if (!for_columns) return;
#pragma unroll
    for (int h = 0; h < 2; ++h)
        if (beside[h] > 0) atomicAdd(of_set + mmp_column(tile) + h, (mmp_u64)beside[h]);
}

// Adds the counts of all lanes to those of the rows in `of_set`.
MMP_DEVICE void mmp_add_counts(const MmpBlock& block, const MmpCounts& counts, mmp_u64* of_set) {
#pragma unroll
    for (int r = 0; r < mmp_warp_rows; ++r) {
        const int own = block.rows->own[mmp_row_of_block(r)], total = mmp_warp_sum(counts[r]);
        if (mmp_lane() == 0 && own >= 0) atomicAdd(of_set + own, (mmp_u64)total);
    }
}

// Makes the square of every row with itself infinite.
MMP_DEVICE void mmp_leave_out_own(const MmpBlock& block, int tile, MmpSquares& squares) {
    if (block.last_own < tile * mmp_tile || block.first_own >= (tile + 1) * mmp_tile) return;
    const int column = mmp_column(tile);
#pragma unroll
    for (int r = 0; r < mmp_warp_rows; ++r) {
        const int own = block.rows->own[mmp_row_of_block(r)];
#pragma unroll
        for (int h = 0; h < 2; ++h)
            if (own == column + h) squares[r][h] = mmp_infinity();
    }
}

// ---------------------------------------------------------------- the rows of a block

// Where the features of a pass begin for the point at `place`.
template <int P> MMP_DEVICE const float* mmp_rough_of(const MmpBlock& block, int place, int pass) {
    const float* const tile = block.tiles + (mmp_i64)(place / mmp_tile) * (block.passes * P * mmp_tile);
    return tile + pass * (P * mmp_tile) + place % mmp_tile;
}

// Loads the features of the rows for one pass; 0 where there is no row.
template <int P> MMP_DEVICE void mmp_load_rows(const MmpBlock& block, int pass, float* rough) {
    const int row = (int)threadIdx.x % mmp_tile, own = block.rows->own[row];
    const float* const from = mmp_rough_of<P>(block, own < 0 ? 0 : own, pass);
#pragma unroll 1
    for (int f = (int)threadIdx.x / mmp_tile; f < P; f += mmp_threads / mmp_tile)
        rough[f * mmp_tile + row] = own < 0 ? 0.0f : from[f * mmp_tile];
}

// Makes the box around the rows; each warp takes one feature at a time.
template <int P> MMP_DEVICE void mmp_enclose_rows(const MmpBlock& block) {
    const int n_features = block.passes * P < mmp_box_features ? block.passes * P : mmp_box_features;
    for (int f = mmp_warp_of_block(); f < n_features; f += mmp_warps) {
        float low = mmp_infinity(), high = low;  // the latter of the negative
        for (int row = mmp_lane(); row < mmp_tile; row += 32) {
            const int own = block.rows->own[row];
            if (own < 0) continue;
            const float x = mmp_rough_of<P>(block, own, 0)[f * mmp_tile];
            low = x < low ? x : low;
            high = -x < high ? -x : high;
        }
        low = mmp_warp_least(low), high = mmp_warp_least(high);
        if (mmp_lane() == 0) block.rows->low[f] = low, block.rows->high[f] = -high;
    }
}

// Whether the rows stay in shared memory: their launch then asks for (passes + 2) P mmp_tile floats, else for 4 P
// mmp_tile.
template <int P> MMP_DEVICE bool mmp_rows_stay(int passes) {
    // Features of mmp_tile points that shared memory has room for: 27 KiB beside the 20.5 of kth_neighbor_distance.
    constexpr int mmp_resident = 108;
    return (passes + 2) * P <= mmp_resident;
}

// A block with the rows at the places place_of(0) .. place_of(mmp_tile - 1) of a set; -1 stands for no row.
template <int P, class PlaceOf>
MMP_DEVICE MmpBlock mmp_block(MmpRows& rows, float* rough, const MmpStack& stack, int set, PlaceOf place_of) {
    const int n_tiles = mmp_tiles_of(stack.n), width = stack.passes * P;
    MmpBlock block;
    block.rows = &rows, block.rough = rough, block.p = stack.p, block.set = set, block.n = (int)stack.n;
    block.n_tiles = n_tiles, block.passes = stack.passes;
    block.tiles = stack.rough + (mmp_i64)set * n_tiles * (width * mmp_tile);
    block.boxes = stack.boxes + (mmp_i64)set * 2 * (width < mmp_box_features ? width : mmp_box_features) * n_tiles;
    block.exact = stack.exact + set * stack.n * stack.p;
    block.order = stack.order ? stack.order + set * stack.n : nullptr;
    if (threadIdx.x < mmp_tile) rows.own[threadIdx.x] = place_of((int)threadIdx.x);
    __syncthreads();
    block.first_own = block.n, block.last_own = -1;
    for (int r = 0; r < mmp_warp_rows; ++r) {
        const int own = rows.own[mmp_row_of_block(r)];
        if (own < 0) continue;
        block.first_own = own < block.first_own ? own : block.first_own;
        block.last_own = own > block.last_own ? own : block.last_own;
    }
    mmp_enclose_rows<P>(block);
    if (mmp_rows_stay<P>(block.passes))
        for (int pass = 0; pass < block.passes; ++pass) mmp_load_rows<P>(block, pass, rough + pass * (P * mmp_tile));
    return block;
}

// ---------------------------------------------------------------- tiles

// The rough square between the box of the rows and that of a tile.
template <int P> MMP_DEVICE float mmp_box_square(const MmpBlock& block, int tile) {
    const int n_features = block.passes * P < mmp_box_features ? block.passes * P : mmp_box_features;
    const float *low = block.boxes + tile, *high = low + n_features * block.n_tiles;
    float square = 0;
    for (int f = 0; f < n_features; ++f, low += block.n_tiles, high += block.n_tiles) {
        const float above = *low - block.rows->high[f], below = block.rows->low[f] - *high;
        const float gap = above > below ? above : below;
        square = gap > 0 ? mmp_fused(gap, gap, square) : square;
    }
    return square;
}

// Lists those of the mmp_threads tiles from `first` on that come within `reach`, a rough square. Returns their number.
template <int P> MMP_DEVICE int mmp_list_tiles(const MmpBlock& block, int first, float reach) {
    __syncthreads();  // the list before has been read, and the box is written
    const int tile = first + (int)threadIdx.x;
    const bool visited = tile < block.n_tiles && !(mmp_box_square<P>(block, tile) > reach);
    const unsigned marks = __ballot_sync(MMP_WARP, visited);
    if (mmp_lane() == 0) block.rows->marks[mmp_warp_of_block()] = marks;
    __syncthreads();
    int before = 0, all = 0;
    for (int w = 0; w < mmp_warps; ++w) {
        if (w == mmp_warp_of_block()) before = all;
        all += __popc(block.rows->marks[w]);
    }
    if (visited) block.rows->visits[before + mmp_rank(marks)] = tile;
    __syncthreads();
    return all;
}

// The buffer with the rows of a pass.
template <int P> MMP_DEVICE float* mmp_row_buffer(const MmpBlock& block, int pass, int buffer) {
    return block.rough + (mmp_rows_stay<P>(block.passes) ? pass : buffer) * (P * mmp_tile);
}
// One of the two buffers for columns.
template <int P> MMP_DEVICE float* mmp_column_buffer(const MmpBlock& block, int buffer) {
    return block.rough + ((mmp_rows_stay<P>(block.passes) ? block.passes : 2) + buffer) * (P * mmp_tile);
}

// Begins to copy the columns of a tile, and the rows too if they do not stay.
template <int P> MMP_DEVICE void mmp_begin_copy(const MmpBlock& block, int tile, int pass, int buffer) {
    const float* const from = block.tiles + ((mmp_i64)tile * block.passes + pass) * (P * mmp_tile);
    float* const to = mmp_column_buffer<P>(block, buffer);
#pragma unroll
    for (int e = 0; e < P * mmp_tile; e += 4 * mmp_threads) {
        const int at = e + 4 * (int)threadIdx.x;
        if (at < P * mmp_tile) mmp_copy_four(to + at, from + at);
    }
    if (!mmp_rows_stay<P>(block.passes)) mmp_load_rows<P>(block, pass, mmp_row_buffer<P>(block, pass, buffer));
}

template <int P> MMP_DEVICE void mmp_add_squares(const float* rows, const float* columns, MmpSquares& squares) {
    rows += mmp_row_of_block(0), columns += 2 * mmp_lane();
#pragma unroll
    for (int f = 0; f < P; ++f) {
        const MmpTwo column = *reinterpret_cast<const MmpTwo*>(columns + f * mmp_tile);
#pragma unroll
        for (int four = 0; four < mmp_warp_rows / 4; ++four) {
            const MmpFour own = *reinterpret_cast<const MmpFour*>(rows + f * mmp_tile + 4 * four);
#pragma unroll
            for (int a = 0; a < 4; ++a)
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    const float d = own.of[a] - column.of[h];
                    squares[4 * four + a][h] = mmp_fused(d, d, squares[4 * four + a][h]);
                }
        }
    }
}

// Calls visit(tile, squares) for every tile from `first` on within `reach` of the rows, a rough square. Tiles come in
// ascending order, and all lanes of a warp call together. A warp that wants no tile only helps to copy.
template <int P, class Visit>
MMP_DEVICE void mmp_walk(const MmpBlock& block, int first, float reach, bool wants, Visit visit) {
    for (; first < block.n_tiles; first += mmp_threads) {
        const int n_visits = mmp_list_tiles<P>(block, first, reach);
        if (n_visits > 0) mmp_begin_copy<P>(block, block.rows->visits[0], 0, 0);
        int buffer = 0;
        for (int v = 0; v < n_visits; ++v) {
            const int tile = block.rows->visits[v];
            MmpSquares squares = {};
            for (int pass = 0; pass < block.passes; ++pass, buffer ^= 1) {
                mmp_end_copies();
                __syncthreads();  // this buffer is full, and the other has been read
                if (pass + 1 < block.passes)
                    mmp_begin_copy<P>(block, tile, pass + 1, buffer ^ 1);
                else if (v + 1 < n_visits)
                    mmp_begin_copy<P>(block, block.rows->visits[v + 1], 0, buffer ^ 1);
                if (wants)
                    mmp_add_squares<P>(mmp_row_buffer<P>(block, pass, buffer), mmp_column_buffer<P>(block, buffer),
                                       squares);
            }
            if (wants) visit(tile, squares);
        }
    }
}
