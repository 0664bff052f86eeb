// Affinities above a threshold within each set of a stack of points: count, then fill in place. The twin of
// csrc/cpu/radius_affinity.cpp: the same pairs, the same bits.
//
// Compiled with MMP_INDEX (the type of the indices) and MMP_VALUE (of the values) defined.
#include "../common/affinity.h"
#include "../common/pair_tiles.h"
#include "../common/screen.h"

// One block per 64 points of the stack, one warp per 8 of them, two columns a lane; a lane counts, the warp adds up.
//
// counts (n_sets, n): other points of the same set within `reach` of each point of points (n_sets, n, p).
MMP_KERNEL void __launch_bounds__(mmp_threads)
    radius_count(const double* points, mmp_i64 n_sets, mmp_i64 n, mmp_i64 p, double reach, mmp_i64* counts) {
    MMP_SHARED(MmpPairTiles, tiles);
    mmp_locate(tiles, n_sets * n, [&](mmp_i64 row, mmp_i64& set, mmp_i64& own) { set = row / n, own = row % n; });
    const double limit = mmp_squared_reach(reach);
    int found[mmp_warp_rows] = {};
    mmp_walk(tiles, points, n, p, [&](const MmpPairs& pairs) {
#pragma unroll
        for (int r = 0; r < mmp_warp_rows; ++r) {
            if (r < pairs.first || r >= pairs.last) continue;
            const mmp_i64 own = tiles.own[mmp_row_of_block(r)];
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const mmp_i64 column = pairs.column + 32 * h;
                found[r] += column < n && column != own && pairs.squares[r][h] <= limit;
            }
        }
    });
#pragma unroll
    for (int r = 0; r < mmp_warp_rows; ++r) {
        const int total = mmp_warp_sum(found[r]);
        if (mmp_lane() == 0 && mmp_row_of_launch(r) < n_sets * n) counts[mmp_row_of_launch(r)] = total;
    }
}
