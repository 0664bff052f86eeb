// All squared distances between some points and every point of their sets, tile by tile: what the kernels over pairs
// share. One block serves mmp_tile rows, each of its warps mmp_warp_rows of them; a tile has mmp_tile columns, of
// which every lane holds two. Features pass through shared memory mmp_tile_features at a time, so there may be any
// number; the sum over them runs in order, as in mmp_squared_distance, and has the same bits.
#pragma once
#include "device.h"

constexpr int mmp_warps = 8;
constexpr int mmp_warp_rows = 8;
constexpr int mmp_threads = 32 * mmp_warps;
constexpr int mmp_tile = mmp_warps * mmp_warp_rows;
constexpr int mmp_tile_features = 16;

struct MmpPairTiles {
    // One more than the tile, so that neighbouring features of one point fall into different banks.
    double rows[mmp_tile_features][mmp_tile + 1];
    double columns[mmp_tile_features][mmp_tile + 1];
    mmp_i64 set[mmp_tile];  // of every row; -1 past the last
    mmp_i64 own[mmp_tile];  // its point within the set
};

// Squared distances of the rows of a warp to the columns j0 + lane and j0 + 32 + lane.
struct MmpPairs {
    double squares[mmp_warp_rows][2];
    mmp_i64 set;       // the set of rows and columns
    mmp_i64 column;    // j0 + lane
    int first, last;   // the rows of the warp that are of this set
};

MMP_DEVICE int mmp_warp_of_block() { return (int)(threadIdx.x / 32); }
// Row r of this warp, counted within the block.
MMP_DEVICE int mmp_row_of_block(int r) { return mmp_warp_of_block() * mmp_warp_rows + r; }
// And over all rows of the launch.
MMP_DEVICE mmp_i64 mmp_row_of_launch(int r) { return (mmp_i64)blockIdx.x * mmp_tile + mmp_row_of_block(r); }

// Which points the rows of this block are: point_of(row, set, own) sets the latter two.
template <class PointOf> MMP_DEVICE void mmp_locate(MmpPairTiles& tiles, mmp_i64 n_rows, PointOf point_of) {
    if (threadIdx.x < mmp_tile) {
        const mmp_i64 row = (mmp_i64)blockIdx.x * mmp_tile + threadIdx.x;
        mmp_i64 set = -1, own = -1;
        if (row < n_rows) point_of(row, set, own);
        tiles.set[threadIdx.x] = set;
        tiles.own[threadIdx.x] = own;
    }
    __syncthreads();
}

// Features f0 .. of the rows of the block; zeros past the last row.
MMP_DEVICE void mmp_load_rows(MmpPairTiles& tiles, const double* points, mmp_i64 n, mmp_i64 p, mmp_i64 f0, int width) {
    for (int e = (int)threadIdx.x; e < mmp_tile * width; e += mmp_threads) {
        const int r = e / width, f = e % width;
        const mmp_i64 point = tiles.set[r] * n + tiles.own[r];
        tiles.rows[f][r] = tiles.set[r] >= 0 ? points[point * p + f0 + f] : 0.0;
    }
}

MMP_DEVICE void mmp_load_columns(MmpPairTiles& tiles, const double* points, mmp_i64 n, mmp_i64 p, mmp_i64 set,
                                 mmp_i64 j0, mmp_i64 f0, int width) {
    for (int e = (int)threadIdx.x; e < mmp_tile * width; e += mmp_threads) {
        const int j = e / width, f = e % width;
        tiles.columns[f][j] = j0 + j < n ? points[(set * n + j0 + j) * p + f0 + f] : 0.0;
    }
}

MMP_DEVICE void mmp_add_squares(const MmpPairTiles& tiles, int width, double (&squares)[mmp_warp_rows][2]) {
    const int lane = mmp_lane(), row = mmp_row_of_block(0);
    for (int f = 0; f < width; ++f) {
        const double near = tiles.columns[f][lane], far = tiles.columns[f][lane + 32];
#pragma unroll
        for (int r = 0; r < mmp_warp_rows; ++r) {
            const double own = tiles.rows[f][row + r];
            const double d = own - near, e = own - far;
            squares[r][0] = squares[r][0] + d * d;
            squares[r][1] = squares[r][1] + e * e;
        }
    }
}

// Calls visit(pairs) for every tile, in ascending order of the columns, with all lanes of a warp together. A block
// whose rows lie in several sets passes over them one after the other. A warp that wants nothing only helps to load.
template <class Visit>
MMP_DEVICE void mmp_walk(MmpPairTiles& tiles, const double* points, mmp_i64 n, mmp_i64 p, bool wants, Visit visit) {
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
            pairs.column = j0 + mmp_lane();
#pragma unroll
            for (int r = 0; r < mmp_warp_rows; ++r) pairs.squares[r][0] = pairs.squares[r][1] = 0;
            for (mmp_i64 f0 = 0; f0 < p; f0 += mmp_tile_features) {
                const int width = p - f0 < mmp_tile_features ? (int)(p - f0) : mmp_tile_features;
                __syncthreads();  // the tiles before these have been read
                if (f0 != loaded) mmp_load_rows(tiles, points, n, p, f0, width);
                loaded = f0;
                mmp_load_columns(tiles, points, n, p, pairs.set, j0, f0, width);
                __syncthreads();
                if (serves) mmp_add_squares(tiles, width, pairs.squares);
            }
            if (serves) visit(pairs);
        }
    }
}
