// All pairs of some points with every point of their sets, tile by tile, by their rough squared distances: what the
// kernels over pairs share. One block serves mmp_tile rows, each of its warps mmp_warp_rows of them; a tile has
// mmp_tile columns, of which every lane holds two. Features pass through shared memory mmp_tile_features at a time, so
// there may be any number.
//
// A pair of points with p features takes 2 p + 2 operations in float32. Without the screen it took 3 p + 1 in float64,
// each as long as 2 of float32 on the devices that are good at it and as 32 to 64 on the others: so the screen serves
// all. With four features of a row in one read a warp reads shared memory 4 times for 32 operations, half of what it
// could. A pair in doubt is decided where it occurs, by the lanes that have one while the others of the warp wait. That
// takes as long as the tile of a warp, 512 pairs, or so; with one in a million in doubt a queue would cost more than it
// saves. Where many are, as between duplicates at the cut, they are neighbours, and their lanes decide together.
#pragma once
#include "device.h"
#include "screen.h"

constexpr int mmp_warps = 8;
constexpr int mmp_warp_rows = 8;
constexpr int mmp_threads = 32 * mmp_warps;
constexpr int mmp_tile = mmp_warps * mmp_warp_rows;
constexpr int mmp_tile_features = 32;

// Points of n_sets sets of n < 2^31 each: (n_sets, n, p) as they are and as the screen has them (see pair_screen.cu).
struct MmpStack {
    const double* exact;
    const float* rough;
    const double* spans;  // (n_sets,)
    mmp_i64 n, p;
};

MMP_DEVICE MmpScreen mmp_screen_of(const MmpStack& stack, mmp_i64 set) { return mmp_screen(stack.spans[set], stack.p); }

// Read at once.
struct alignas(16) MmpFour {
    float of[4];
};

struct MmpPairTiles {
    // More than the tile has, so that neighbouring features of one point fall into different banks.
    MmpFour rows[mmp_tile_features][mmp_tile / 4 + 1];
    float columns[mmp_tile_features][mmp_tile + 1];
    mmp_i64 set[mmp_tile];  // of every row; -1 past the last
    int own[mmp_tile];      // its point within the set
};

// The rows of a warp with the columns j0 + lane and j0 + 32 + lane.
struct MmpPairs {
    float squares[mmp_warp_rows][2];  // rough
    mmp_i64 set;      // the set of rows and columns
    int column;       // j0 + lane
    int first, last;  // the rows of the warp that are of this set
    bool begins;      // the first columns of the set
};

// One of them.
struct MmpPair {
    mmp_i64 set;
    int r, h;         // which row of the warp, which of the two columns
    int own, column;  // their points
    bool there;       // the column is
    float square;     // rough
};

MMP_DEVICE bool mmp_other(const MmpPair& pair) { return pair.there && pair.column != pair.own; }

MMP_DEVICE int mmp_warp_of_block() { return (int)(threadIdx.x / 32); }
// Row r of this warp, counted within the block.
MMP_DEVICE int mmp_row_of_block(int r) { return mmp_warp_of_block() * mmp_warp_rows + r; }
// And over all rows of the launch.
MMP_DEVICE mmp_i64 mmp_row_of_launch(int r) { return (mmp_i64)blockIdx.x * mmp_tile + mmp_row_of_block(r); }

// The squared distance of two of these points that decides, the same bits in all twins.
MMP_OUTLINED double mmp_exact_square(const double* points, mmp_i64 p, int one, int other) {
    return mmp_squared_distance(points + one * p, 1, points + other * p, 1, p);
}
MMP_DEVICE double mmp_exact_square(const MmpStack& stack, mmp_i64 set, int one, int other) {
    return mmp_exact_square(stack.exact + set * stack.n * stack.p, stack.p, one, other);
}

// A squared distance to compare others with.
struct MmpCut {
    double limit;
    float surely, possibly;
};

// As a set of this span has it.
MMP_OUTLINED MmpCut mmp_cut(double span, mmp_i64 p, double limit) {
    if (limit < 0) return {limit, -1.0f, -1.0f};
    const MmpScreen screen = mmp_screen(span, p);
    const double radius = sqrt(limit);
    return {limit, mmp_surely(screen, radius), mmp_possibly(screen, radius)};
}
MMP_DEVICE MmpCut mmp_cut(const MmpStack& stack, mmp_i64 set, double limit) {
    return mmp_cut(stack.spans[set], stack.p, limit);
}

MMP_DEVICE bool mmp_within(const MmpStack& stack, const MmpCut& cut, const MmpPair& pair) {
    if (pair.square <= cut.surely) return true;
    if (pair.square > cut.possibly) return false;
    return mmp_exact_square(stack, pair.set, pair.own, pair.column) <= cut.limit;
}

// Which points the rows of this block are: point_of(row, set, own) sets the latter two.
template <class PointOf> MMP_DEVICE void mmp_locate(MmpPairTiles& tiles, mmp_i64 n_rows, PointOf point_of) {
    if (threadIdx.x < mmp_tile) {
        const mmp_i64 row = (mmp_i64)blockIdx.x * mmp_tile + threadIdx.x;
        mmp_i64 set = -1, own = -1;
        if (row < n_rows) point_of(row, set, own);
        tiles.set[threadIdx.x] = set;
        tiles.own[threadIdx.x] = (int)own;
    }
    __syncthreads();
}

// Features f0 .. of the rows of the block; zeros past the last row.
MMP_DEVICE void mmp_load_rows(MmpPairTiles& tiles, const MmpStack& stack, mmp_i64 f0, int width) {
    for (int e = (int)threadIdx.x; e < mmp_tile * width; e += mmp_threads) {
        const int r = e / width, f = e % width;
        const mmp_i64 point = tiles.set[r] * stack.n + tiles.own[r];
        tiles.rows[f][r / 4].of[r % 4] = tiles.set[r] >= 0 ? stack.rough[point * stack.p + f0 + f] : 0.0f;
    }
}

MMP_DEVICE void mmp_load_columns(MmpPairTiles& tiles, const MmpStack& stack, mmp_i64 set, mmp_i64 j0, mmp_i64 f0,
                                 int width) {
    for (int e = (int)threadIdx.x; e < mmp_tile * width; e += mmp_threads) {
        const int j = e / width, f = e % width;
        const mmp_i64 point = set * stack.n + j0 + j;
        tiles.columns[f][j] = j0 + j < stack.n ? stack.rough[point * stack.p + f0 + f] : 0.0f;
    }
}

MMP_DEVICE void mmp_add_squares(const MmpPairTiles& tiles, int width, float (&squares)[mmp_warp_rows][2]) {
    const int lane = mmp_lane(), row = mmp_row_of_block(0);
    for (int f = 0; f < width; ++f) {
        const float near = tiles.columns[f][lane], far = tiles.columns[f][lane + 32];
#pragma unroll
        for (int four = 0; four < mmp_warp_rows / 4; ++four) {
            const MmpFour own = tiles.rows[f][row / 4 + four];
#pragma unroll
            for (int a = 0; a < 4; ++a) {
                const float d = own.of[a] - near, e = own.of[a] - far;
                float(&both)[2] = squares[4 * four + a];
                both[0] = mmp_fused(d, d, both[0]);
                both[1] = mmp_fused(e, e, both[1]);
            }
        }
    }
}

// Calls visit(pairs) for every tile, in ascending order of the columns, with all lanes of a warp together. A block
// whose rows lie in several sets passes over them one after the other. A warp that wants nothing only helps to load.
template <class Visit>
MMP_DEVICE void mmp_walk(MmpPairTiles& tiles, const MmpStack& stack, bool wants, Visit visit) {
    const mmp_i64 n = stack.n, p = stack.p;
    mmp_i64 loaded = -1;
    for (int from = 0, to; from < mmp_tile && tiles.set[from] >= 0; from = to) {
        MmpPairs pairs;
        pairs.set = tiles.set[from];
        for (to = from + 1; to < mmp_tile && tiles.set[to] == pairs.set; ++to) {
        }
        const int row = mmp_row_of_block(0);
        pairs.first = from > row ? from - row : 0;
        pairs.last = to - row < mmp_warp_rows ? to - row : mmp_warp_rows;
        const bool serves = wants && pairs.first < pairs.last;
        for (mmp_i64 j0 = 0; j0 < n; j0 += mmp_tile) {
            pairs.column = (int)j0 + mmp_lane();
            pairs.begins = j0 == 0;
#pragma unroll
            for (int r = 0; r < mmp_warp_rows; ++r) pairs.squares[r][0] = pairs.squares[r][1] = 0;
            for (mmp_i64 f0 = 0; f0 < p; f0 += mmp_tile_features) {
                const int width = p - f0 < mmp_tile_features ? (int)(p - f0) : mmp_tile_features;
                __syncthreads();  // the tiles before these have been read
                if (f0 != loaded) mmp_load_rows(tiles, stack, f0, width);
                loaded = f0;
                mmp_load_columns(tiles, stack, pairs.set, j0, f0, width);
                __syncthreads();
                if (serves) mmp_add_squares(tiles, width, pairs.squares);
            }
            if (serves) visit(pairs);
        }
    }
}

// Calls take(pair) for both columns of every row of a warp that is of their set, with all lanes together.
template <class Take>
MMP_DEVICE void mmp_each(const MmpPairTiles& tiles, const MmpStack& stack, const MmpPairs& pairs, Take take) {
#pragma unroll
    for (int r = 0; r < mmp_warp_rows; ++r) {
        if (r < pairs.first || r >= pairs.last) continue;
        const int own = tiles.own[mmp_row_of_block(r)];
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int column = pairs.column + 32 * h;
            take(MmpPair{pairs.set, r, h, own, column, column < stack.n, pairs.squares[r][h]});
        }
    }
}
