// How a block visits the tiles of its set: it computes the rough squares of its rows with the columns of each tile.
//
// A tile is copied to shared memory while the warps work on the tile before it. Tiles whose bounding box lies beyond
// reach are not visited. Boxes are compared by the same operations in the same order as pairs, and each operation is
// monotonic, so the rough square of a pair is never below that of the boxes. A box has no bounds along a feature that a
// point in it lacks; the squares over the other features only grow when they are scaled to all.
//
// A pair of points with p features takes 2 p operations in float32 and 4 to 6 more. Points that lack features take up to
// 3 p and 12 more.
#pragma once
#include "pair_masks.h"

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

// Lists those of the mmp_threads tiles from `first` on whose boxes come within `reach`, a rough square. It returns how
// many they are.
template <int P> MMP_DEVICE int mmp_list_tiles(const MmpBlock& block, int first, float reach) {
    __syncthreads();  // the former list has been read, and the box is written
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

// The buffer that has the rows of a pass.
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
    if constexpr (mmp_masked) mmp_begin_copy_of_words(block, tile, pass, buffer);
}

// Adds the squared differences of one feature. `all`: no point of the rows and of the columns lacks it.
template <bool all> MMP_DEVICE void mmp_add_feature(const float* rows, const float* columns, MmpSquares& squares) {
    const MmpTwo column = *reinterpret_cast<const MmpTwo*>(columns);
#pragma unroll
    for (int four = 0; four < mmp_warp_rows / 4; ++four) {
        const MmpFour row = *reinterpret_cast<const MmpFour*>(rows + 4 * four);
#pragma unroll
        for (int a = 0; a < 4; ++a)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const float difference = row.of[a] - column.of[h];
                const float d = all ? difference : fmaxf(fabsf(difference), 0.0f);
                squares[4 * four + a][h] = mmp_fused(d, d, squares[4 * four + a][h]);
            }
    }
}

template <int P> MMP_DEVICE void mmp_add_squares(const float* rows, const float* columns, MmpSquares& squares) {
    rows += mmp_row_of_block(0), columns += 2 * mmp_lane();
#pragma unroll
    for (int f = 0; f < P; ++f) mmp_add_feature<true>(rows + f * mmp_tile, columns + f * mmp_tile, squares);
}

// The same for points that lack features. `words` are those of the rows and the columns together; their bits after the
// last feature are 0. All three ways of every feature would fill the instruction cache, so a turn has eight features.
template <int P>
MMP_DEVICE void mmp_add_common(const float* rows, const float* columns, MmpWords words, MmpSquares& squares) {
    constexpr int turn = P < 8 ? P : 8;
    rows += mmp_row_of_block(0), columns += 2 * mmp_lane();
#pragma unroll 1
    for (; words.any; words.all >>= turn, words.any >>= turn, rows += turn * mmp_tile, columns += turn * mmp_tile)
#pragma unroll
        for (int f = 0; f < turn; ++f) {
            if (words.all >> f & 1u)
                mmp_add_feature<true>(rows + f * mmp_tile, columns + f * mmp_tile, squares);
            else if (words.any >> f & 1u)
                mmp_add_feature<false>(rows + f * mmp_tile, columns + f * mmp_tile, squares);
        }
}

// Calls visit(tile, squares) for every tile from `first` on whose box comes within `reach`, a rough square. Tiles come
// in ascending order, and all lanes of a warp call together. A warp whose `wants` is false only helps to copy.
template <int P, class Visit>
MMP_DEVICE void mmp_walk(const MmpBlock& block, int first, float reach, bool wants, Visit visit) {
    for (; first < block.n_tiles; first += mmp_threads) {
        const int n_visits = mmp_list_tiles<P>(block, first, reach);
        if (n_visits > 0) mmp_begin_copy<P>(block, block.rows->visits[0], 0, 0);
        int buffer = 0;
        for (int v = 0; v < n_visits; ++v) {
            const int tile = block.rows->visits[v];
            MmpSquares squares = {};
            MmpCommon common = {};
            for (int pass = 0; pass < block.passes; ++pass, buffer ^= 1) {
                mmp_end_copies();
                __syncthreads();  // this buffer is full, and the other has been read
                if (pass + 1 < block.passes)
                    mmp_begin_copy<P>(block, tile, pass + 1, buffer ^ 1);
                else if (v + 1 < n_visits)
                    mmp_begin_copy<P>(block, block.rows->visits[v + 1], 0, buffer ^ 1);
                if (!wants) continue;
                const float *rows = mmp_row_buffer<P>(block, pass, buffer),
                            *columns = mmp_column_buffer<P>(block, buffer);
                if constexpr (mmp_masked) {
                    const MmpWords words = mmp_words_with_rows(block, pass, buffer);
                    mmp_add_common<P>(rows, columns, words, squares);
                    common.count += __popc(words.all), common.mixed |= words.any & ~words.all;
                } else {
                    mmp_add_squares<P>(rows, columns, squares);
                }
            }
            if (mmp_masked && wants) mmp_scale_to_all(block, tile, common, squares);
            if (wants) visit(tile, squares);
        }
    }
}
