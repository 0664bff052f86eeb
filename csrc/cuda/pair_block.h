// The kernels over pairs visit the pairs of some points with all points of their set. This header has their data: the
// points in tiles, and the rows of a block.
//
// A block of threads works on mmp_tile rows of one set, and each of its warps on mmp_warp_rows of these. A tile has
// mmp_tile columns, two neighboring ones for each lane.
//
// The float32 features of a tile lie together, feature by feature (see pair_screen.cu), so a copy of a tile needs no
// division. A tile may have room for points after the last one of its set. These are infinitely far from all points, so
// no test for them is needed. Features pass through shared memory P at a time. P is a template parameter, so the
// compiler unrolls the loop over features. The launcher chooses P so that a whole number of passes covers all features
// with little room left. The features after the last one are 0.
//
// If the launcher defines MMP_MASKED, points may lack features, which are NaN (see pair_masks.h).
#pragma once
#include "../common/screen.h"
#include "device.h"

constexpr int mmp_warps = 8;
constexpr int mmp_warp_rows = 8;
constexpr int mmp_threads = 32 * mmp_warps;
constexpr int mmp_tile = mmp_warps * mmp_warp_rows;
// A box has at most this many features, the first ones. A sum over fewer features is a lower bound as well.
constexpr int mmp_box_features = 64;

#if defined(MMP_MASKED)
constexpr bool mmp_masked = true;
#else
constexpr bool mmp_masked = false;
#endif
// Numbers that tell which points of a tile have which features of a pass, a bit for each: one for each point, one with
// the features of all these points, one with those of any, and two that fill 16 bytes.
constexpr int mmp_words = mmp_tile + 4;

// B sets of n < 2^31 points each: in float64 as the caller has them, and in tiles as pair_screen made them. The number
// of a point in the order of the tiles is its place.
struct MmpStack {
    const double* exact;   // (B, n, p)
    const float* rough;    // (B, tiles, passes * P, mmp_tile)
    const float* boxes;    // (B, 2, up to mmp_box_features, tiles): least and largest features
    const double* spans;   // (B,)
    const mmp_i32* order;  // (B, n): the point at each place; null if point i has place i
    mmp_i64 n, p;
    int passes;               // over the features, P at a time
    const mmp_i32* presence;  // (B, tiles, passes, mmp_words), or null where no point lacks a feature
};

MMP_DEVICE int mmp_tiles_of(mmp_i64 n) { return (int)((n + mmp_tile - 1) / mmp_tile); }

// Numbers that one instruction reads.
struct alignas(16) MmpFour {
    float of[4];
};
struct alignas(8) MmpTwo {
    float of[2];
};

// The features of a pass that all points of a tile or of the rows of a block have, and those that any of them has.
struct MmpWords {
    unsigned all, any;
};

// The words of the rows and those of the tiles in the two buffers, in shared memory.
struct MmpMasks {
    // The words of later passes are not kept: their features count as those of some rows only.
    static constexpr int passes = 16;
    alignas(16) float tiles[2][4];  // the bits of `all`, of `any` and of two more numbers
    MmpWords rows[passes];
};

// The rows of a block and the tiles that it will visit, in shared memory.
struct MmpRows {
    int places[mmp_tile];  // the place of every row within its set; -1 if there is no such row
    float low[mmp_box_features], high[mmp_box_features];
    int visits[mmp_threads];
    unsigned marks[mmp_warps];
};

// The data that a block reads.
struct MmpBlock {
    MmpRows* rows;
    float* rough;        // shared memory: the rows, then two buffers of columns
    const float* tiles;  // of the set
    const float* boxes;
    const double* exact;
    const mmp_i32* order;
    const mmp_i32* presence;
    MmpMasks* masks;
    mmp_i64 p;
    int set, n, n_tiles, passes;
    int first_place, last_place;  // the least and the largest place of the rows of this warp; -1 if it has none
};

// The rough squares of a lane: the squared distances in float32 of its two columns from each row of its warp.
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

// The words of all lanes together.
MMP_DEVICE MmpWords mmp_warp_words(MmpWords words) {
    for (int step = 16; step > 0; step /= 2) {
        words.all &= __shfl_xor_sync(MMP_WARP, words.all, step);
        words.any |= __shfl_xor_sync(MMP_WARP, words.any, step);
    }
    return words;
}

// The words of a tile for one pass.
MMP_DEVICE const mmp_i32* mmp_words_of(const MmpBlock& block, int tile, int pass) {
    return block.presence + ((mmp_i64)tile * block.passes + pass) * mmp_words;
}

// The features of the point at `place` for one pass; none if there is no such point.
MMP_DEVICE unsigned mmp_word_of(const MmpBlock& block, int place, int pass) {
    return place < 0 ? 0u : (unsigned)mmp_words_of(block, place / mmp_tile, pass)[place % mmp_tile];
}

// Notes the words of the rows of a block. Each warp takes one pass at a time.
MMP_DEVICE void mmp_note_rows(const MmpBlock& block) {
    const int passes = block.passes < MmpMasks::passes ? block.passes : MmpMasks::passes;
    for (int pass = mmp_warp_of_block(); pass < passes; pass += mmp_warps) {
        MmpWords words{~0u, 0u};
        for (int row = mmp_lane(); row < mmp_tile; row += 32) {
            const int place = block.rows->places[row];
            if (place < 0) continue;
            const unsigned word = mmp_word_of(block, place, pass);
            words.all &= word, words.any |= word;
        }
        words = mmp_warp_words(words);
        if (mmp_lane() == 0) block.masks->rows[pass] = words;
    }
}

// The address of the first feature of a pass for the point at `place`.
template <int P> MMP_DEVICE const float* mmp_rough_of(const MmpBlock& block, int place, int pass) {
    const float* const tile = block.tiles + (mmp_i64)(place / mmp_tile) * (block.passes * P * mmp_tile);
    return tile + pass * (P * mmp_tile) + place % mmp_tile;
}

// Loads the features of the rows for one pass; 0 where there is no row.
template <int P> MMP_DEVICE void mmp_load_rows(const MmpBlock& block, int pass, float* rough) {
    const int row = (int)threadIdx.x % mmp_tile, place = block.rows->places[row];
    const float* const from = mmp_rough_of<P>(block, place < 0 ? 0 : place, pass);
#pragma unroll 1
    for (int f = (int)threadIdx.x / mmp_tile; f < P; f += mmp_threads / mmp_tile)
        rough[f * mmp_tile + row] = place < 0 ? 0.0f : from[f * mmp_tile];
}

// Makes the bounding box of the rows. Each warp takes one feature at a time.
template <int P> MMP_DEVICE void mmp_enclose_rows(const MmpBlock& block) {
    const int n_features = block.passes * P < mmp_box_features ? block.passes * P : mmp_box_features;
    for (int f = mmp_warp_of_block(); f < n_features; f += mmp_warps) {
        float low = mmp_infinity(), minus_high = low;
        for (int row = mmp_lane(); row < mmp_tile; row += 32) {
            const int place = block.rows->places[row];
            if (place < 0) continue;
            const float x = mmp_rough_of<P>(block, place, 0)[f * mmp_tile];
            low = x < low ? x : low;
            minus_high = -x < minus_high ? -x : minus_high;
            if (mmp_masked && x != x) low = minus_high = -mmp_infinity();
        }
        low = mmp_warp_least(low), minus_high = mmp_warp_least(minus_high);
        if (mmp_lane() == 0) block.rows->low[f] = low, block.rows->high[f] = -minus_high;
    }
}

// Whether the rows stay in shared memory for all passes. If so, the launch asks for (passes + 2) P mmp_tile floats of
// shared memory, else for 4 P mmp_tile.
template <int P> MMP_DEVICE bool mmp_rows_stay(int passes) {
    // Features of mmp_tile points that fit into shared memory: 27 KiB beside the 20.5 KiB of kth_neighbor_distance.
    constexpr int mmp_resident = 108;
    return (passes + 2) * P <= mmp_resident;
}

// A block whose rows are at the places place_of(0) .. place_of(mmp_tile - 1) of a set. -1 means that there is no row.
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
    block.presence = mmp_masked ? stack.presence + (mmp_i64)set * n_tiles * (stack.passes * mmp_words) : nullptr;
    block.masks = nullptr;
    if (threadIdx.x < mmp_tile) rows.places[threadIdx.x] = place_of((int)threadIdx.x);
    __syncthreads();
    block.first_place = block.n, block.last_place = -1;
    for (int r = 0; r < mmp_warp_rows; ++r) {
        const int place = rows.places[mmp_row_of_block(r)];
        if (place < 0) continue;
        block.first_place = place < block.first_place ? place : block.first_place;
        block.last_place = place > block.last_place ? place : block.last_place;
    }
    mmp_enclose_rows<P>(block);
    if constexpr (mmp_masked) {
        MMP_SHARED(MmpMasks, masks);
        block.masks = &masks;
        mmp_note_rows(block);
    }
    if (mmp_rows_stay<P>(block.passes))
        for (int pass = 0; pass < block.passes; ++pass) mmp_load_rows<P>(block, pass, rough + pass * (P * mmp_tile));
    return block;
}
