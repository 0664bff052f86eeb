// Rough squares of points that lack features, which are NaN: the sum over the features that both points of a pair have,
// times p over their number.
//
// Words have a bit for each feature of a pass (see pair_presence). A feature that all points of two tiles have takes the
// two operations of points without a mask, a feature that none of a tile has takes none, and any other feature takes
// three, since fmaxf(|NaN|, 0) is 0. If all pairs of two tiles have the same features, they share one factor. Tiles in
// the order of their patterns of presence have few other pairs.
//
// The factor is off by up to 3 * 2^-24 of its value, as common/screen.h requires: the reciprocal by two of these, and
// its product with p by one.
#pragma once
#include "pair_block.h"

// The number of common features and the features that some pairs of two tiles share and others do not.
struct MmpCommon {
    int count;
    unsigned mixed;
};

// Begins to copy the words of a tile for one pass.
MMP_DEVICE void mmp_begin_copy_of_words(const MmpBlock& block, int tile, int pass, int buffer) {
    if (threadIdx.x != 0) return;
    const mmp_i32* const words = mmp_words_of(block, tile, pass) + mmp_tile;
    mmp_copy_four(block.masks->tiles[buffer], reinterpret_cast<const float*>(words));
}

// The words of a tile in a buffer together with those of the rows.
MMP_DEVICE MmpWords mmp_words_with_rows(const MmpBlock& block, int pass, int buffer) {
    const float* const tile = block.masks->tiles[buffer];
    const MmpWords rows = pass < MmpMasks::passes ? block.masks->rows[pass] : MmpWords{0u, ~0u};
    return {rows.all & (unsigned)mmp_bits_of(tile[0]), rows.any & (unsigned)mmp_bits_of(tile[1])};
}

// The factor of a square over `count` features.
MMP_DEVICE float mmp_to_all(const MmpBlock& block, int count) { return (float)block.p * mmp_inverse((float)count); }

// Scales the squares of a tile to all features. Those of pairs without a common feature become infinite.
MMP_DEVICE void mmp_scale_alike(const MmpBlock& block, int count, MmpSquares& squares) {
    const float factor = mmp_to_all(block, count);
#pragma unroll
    for (int r = 0; r < mmp_warp_rows; ++r)
#pragma unroll
        for (int h = 0; h < 2; ++h) squares[r][h] = count > 0 ? squares[r][h] * factor : mmp_infinity();
}

// The same where pairs differ in their number of common features.
MMP_DEVICE void mmp_scale_each(const MmpBlock& block, int tile, MmpSquares& squares) {
    int counts[mmp_warp_rows][2] = {};
#pragma unroll 1
    for (int pass = 0; pass < block.passes; ++pass) {
        const mmp_i32* const words = mmp_words_of(block, tile, pass) + 2 * mmp_lane();
        const unsigned columns[2] = {(unsigned)words[0], (unsigned)words[1]};
#pragma unroll
        for (int r = 0; r < mmp_warp_rows; ++r) {
            const unsigned row = mmp_word_of(block, block.rows->places[mmp_row_of_block(r)], pass);
#pragma unroll
            for (int h = 0; h < 2; ++h) counts[r][h] += __popc(row & columns[h]);
        }
    }
#pragma unroll
    for (int r = 0; r < mmp_warp_rows; ++r)
#pragma unroll
        for (int h = 0; h < 2; ++h)
            squares[r][h] = counts[r][h] > 0 ? squares[r][h] * mmp_to_all(block, counts[r][h]) : mmp_infinity();
}

MMP_DEVICE void mmp_scale_to_all(const MmpBlock& block, int tile, const MmpCommon& common, MmpSquares& squares) {
    if (common.mixed)
        mmp_scale_each(block, tile, squares);
    else
        mmp_scale_alike(block, common.count, squares);
}
