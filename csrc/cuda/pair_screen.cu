// Converts the points of a stack to what the kernels over pairs read: float32, by tiles, with the bounding box of each
// tile (see pair_block.h and csrc/common/screen.h).
#include "pair_block.h"

namespace {

// The set and the tile of a block. `tile` counts within the set.
struct Tile {
    mmp_i64 set;
    int tile, n_tiles;
};

MMP_DEVICE Tile tile_of_block(mmp_i64 n) {
    const int n_tiles = mmp_tiles_of(n);
    return {blockIdx.x / n_tiles, (int)(blockIdx.x % n_tiles), n_tiles};
}

// A coordinate relative to the center of its set, which is the point n / 2. Any point is correct. The first points in
// the order of time lie far from the others. Features that this point lacks have the center 0.
MMP_DEVICE double from_center(const double* points, mmp_i64 n, mmp_i64 p, int point, int f) {
    if (mmp_masked && points[n / 2 * p + f] != points[n / 2 * p + f]) return points[point * p + f];
    return points[point * p + f] - points[n / 2 * p + f];
}

}  // namespace

// One block per tile of a set. A warp takes one feature at a time, and a lane two points.
//
// spans (B,), as in MmpStack, of points (B, n, p). The caller sets them to 0.
MMP_KERNEL void __launch_bounds__(mmp_threads) pair_span(const double* points, mmp_i64 n, mmp_i64 p, double* spans) {
    const Tile place = tile_of_block(n);
    const double* const set = points + place.set * n * p;
    // The bits of absolute values, read as integers, are in the same order, and those of NaN come last.
    mmp_i64 most = 0;
    for (int f = mmp_warp_of_block(); f < p; f += mmp_warps)
        for (int h = 0; h < 2; ++h) {
            const int point = place.tile * mmp_tile + mmp_lane() + 32 * h;
            if (point >= n) continue;
            const double x = from_center(set, n, p, point, f);
            if (mmp_masked && x != x) continue;
            const mmp_i64 bits = __double_as_longlong(fabs(x));
            most = bits > most ? bits : most;
        }
    for (int step = 16; step > 0; step /= 2) {
        const mmp_i64 other = __shfl_xor_sync(MMP_WARP, most, step);
        most = other > most ? other : most;
    }
    if (mmp_lane() == 0) atomicMax(reinterpret_cast<mmp_i64*>(spans) + place.set, most);
}

// One block per tile of a set. A warp takes one feature at a time, and a lane two points.
//
// rough (B, tiles, width, mmp_tile) and boxes (B, 2, up to mmp_box_features, tiles), as in MmpStack, of points
// (B, n, p) with their `order` (B, n) and `spans` (B,). Features after the last are 0, points after the last infinite.
MMP_KERNEL void __launch_bounds__(mmp_threads)
    pair_screen(const double* points, const mmp_i32* order, const double* spans, mmp_i64 n, mmp_i64 p, mmp_i64 width,
                float* rough, float* boxes) {
    const Tile place = tile_of_block(n);
    const double* const set = points + place.set * n * p;
    const double scale = mmp_screen(spans[place.set], p).scale;
    const mmp_i64 n_features = width < mmp_box_features ? width : mmp_box_features;
    float* const tile = rough + blockIdx.x * width * mmp_tile;
    float* const box = boxes + place.set * 2 * n_features * place.n_tiles + place.tile;
    for (int f = mmp_warp_of_block(); f < width; f += mmp_warps) {
        float low = mmp_infinity(), minus_high = low;
        for (int h = 0; h < 2; ++h) {
            const int at = mmp_lane() + 32 * h;
            const mmp_i64 slot = place.tile * mmp_tile + at;
            float x = mmp_infinity();
            if (slot < n) {
                const int point = order ? order[place.set * n + slot] : (int)slot;
                x = f < p ? (float)(from_center(set, n, p, point, f) * scale) : 0.0f;
                low = x < low ? x : low;
                minus_high = -x < minus_high ? -x : minus_high;
                if (mmp_masked && x != x) low = minus_high = -mmp_infinity();
            }
            tile[f * mmp_tile + at] = x;
        }
        low = mmp_warp_least(low), minus_high = mmp_warp_least(minus_high);
        if (mmp_lane() == 0 && f < n_features)
            box[f * place.n_tiles] = low, box[(n_features + f) * place.n_tiles] = -minus_high;
    }
}

// One block per tile of a set. A warp takes one pass over the features at a time, and a lane two points.
//
// presence (B, tiles, passes, mmp_words) of points (B, n, p) with their `order` (B, n). `part` features are in a pass. A
// bit is 1 where a point has the feature, which is then not NaN. Places after the last have no feature.
MMP_KERNEL void __launch_bounds__(mmp_threads)
    pair_presence(const double* points, const mmp_i32* order, mmp_i64 n, mmp_i64 p, mmp_i64 part, mmp_i64 passes,
                  mmp_i32* presence) {
    const Tile place = tile_of_block(n);
    const double* const set = points + place.set * n * p;
    for (int pass = mmp_warp_of_block(); pass < passes; pass += mmp_warps) {
        mmp_i32* const words = presence + (blockIdx.x * passes + pass) * mmp_words;
        const mmp_i64 first = pass * part, last = first + part < p ? first + part : p;
        MmpWords of_tile{~0u, 0u};
        for (int at = mmp_lane(); at < mmp_tile; at += 32) {
            const mmp_i64 slot = place.tile * mmp_tile + at;
            unsigned word = 0;
            if (slot < n) {
                const double* const point = set + (order ? order[place.set * n + slot] : slot) * p;
                for (mmp_i64 f = first; f < last; ++f) word |= (unsigned)(point[f] == point[f]) << (f - first);
                of_tile.all &= word, of_tile.any |= word;
            }
            words[at] = (mmp_i32)word;
        }
        of_tile = mmp_warp_words(of_tile);
        if (mmp_lane() < 4) words[mmp_tile + mmp_lane()] = (mmp_i32)(mmp_lane() == 0 ? of_tile.all : of_tile.any);
    }
}
