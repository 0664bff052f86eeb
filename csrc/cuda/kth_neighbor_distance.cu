// Distance to the k-th nearest other point of the same set, exactly, by counting: the twin of
// csrc/cpu/kth_neighbor_distance.cpp.
//
// Squared distances are from 0 on, so the integers of their bits are in the same order. A row keeps a bracket
// (low, high] of such integers that holds its k-th. Each pass over the columns counts the distances in eight parts of
// the bracket and keeps one; where 32 or fewer are left, one more pass collects and ranks them. No list of k entries.
#include "../common/pair_tiles.h"
#include "../common/screen.h"

namespace {

constexpr int few = 32;    // one a lane
constexpr int parts = 8;   // of a bracket; their counters share a 64-bit register
constexpr int inner = parts - 1;
constexpr int tiles_a_flush = 127;  // a lane adds two a tile to counters of 8 bits
constexpr mmp_i64 bits_of_infinity = 0x7ff0000000000000LL;

struct Brackets {
    mmp_i64 low[mmp_tile], high[mmp_tile];      // bits of squared distances: above low, up to high
    mmp_i64 below[mmp_tile], inside[mmp_tile];  // how many others lie up to low, and how many in the bracket
    double limits[mmp_tile][inner];             // between the parts, ascending
    int counts[mmp_tile][parts];
    double collected[mmp_tile][few];
};

MMP_DEVICE bool is_open(const Brackets& all, int row) {
    return all.inside[row] > few && all.high[row] - all.low[row] > 1;
}
// A bracket of one integer has its answer, and one without rows has none to find.
MMP_DEVICE bool is_listed(const Brackets& all, int row) {
    return all.inside[row] > 0 && all.inside[row] <= few && all.high[row] - all.low[row] > 1;
}

// Whether any row of this warp is open (listed).
template <class Has> MMP_DEVICE bool any_row(Has has) {
    bool any = false;
    for (int r = 0; r < mmp_warp_rows; ++r) any = any || has(mmp_row_of_block(r));
    return any;
}

// The first part holds the smallest integer of the bracket alone: that settles ties at the least distance at once.
MMP_DEVICE void divide(Brackets& all, int row) {
    const mmp_i64 width = all.high[row] - all.low[row] - 1;
    for (int m = 0; m < inner; ++m) {
        const mmp_i64 step = width / inner * m + width % inner * m / inner;
        all.limits[row][m] = __longlong_as_double(all.low[row] + 1 + step);
    }
    for (int m = 0; m < parts; ++m) all.counts[row][m] = 0;
}

// Keeps the part with the k-th of `others`. The first and the last count hold what lies outside the bracket too.
MMP_DEVICE void narrow(Brackets& all, int row, mmp_i64 k, mmp_i64 others) {
    all.counts[row][0] -= (int)all.below[row];
    all.counts[row][inner] -= (int)(others - all.below[row] - all.inside[row]);
    int m = 0;
    for (; m < inner && all.below[row] + all.counts[row][m] < k; ++m) all.below[row] += all.counts[row][m];
    if (m < inner) all.high[row] = __double_as_longlong(all.limits[row][m]);
    if (m > 0) all.low[row] = __double_as_longlong(all.limits[row][m - 1]);
    all.inside[row] = all.counts[row][m];
}

// Adds the counters of all lanes to those of the row. Sums of 32 lanes fit 16 bits: even and odd ones apart.
MMP_DEVICE void flush(Brackets& all, int row, mmp_u64 packed) {
    const mmp_u64 every_other = 0x00ff00ff00ff00ffULL;
    const mmp_u64 even = mmp_warp_sum(packed & every_other), odd = mmp_warp_sum((packed >> 8) & every_other);
    const int lane = mmp_lane();
    if (lane < parts) all.counts[row][lane] += (int)(((lane % 2 ? odd : even) >> (lane / 2 * 16)) & 0xffff);
}

// A bracket around all distances of each row.
MMP_DEVICE void find_range(MmpPairTiles& tiles, Brackets& all, const double* points, mmp_i64 n, mmp_i64 p) {
    double least[mmp_warp_rows], most[mmp_warp_rows];
#pragma unroll
    for (int r = 0; r < mmp_warp_rows; ++r) least[r] = __longlong_as_double(bits_of_infinity), most[r] = 0;
    mmp_walk(tiles, points, n, p, true, [&](const MmpPairs& pairs) {
#pragma unroll
        for (int r = 0; r < mmp_warp_rows; ++r) {
            if (r < pairs.first || r >= pairs.last) continue;
            const mmp_i64 own = tiles.own[mmp_row_of_block(r)];
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const mmp_i64 column = pairs.column + 32 * h;
                const double square = pairs.squares[r][h];
                const bool other = column < n && column != own;
                least[r] = other && square < least[r] ? square : least[r];
                most[r] = other && square > most[r] ? square : most[r];
            }
        }
    });
#pragma unroll
    for (int r = 0; r < mmp_warp_rows; ++r) {
        for (int step = 16; step > 0; step /= 2) {
            const double a = __shfl_xor_sync(MMP_WARP, least[r], step), b = __shfl_xor_sync(MMP_WARP, most[r], step);
            least[r] = a < least[r] ? a : least[r];
            most[r] = b > most[r] ? b : most[r];
        }
        const int row = mmp_row_of_block(r);
        if (mmp_lane() == 0 && tiles.set[row] >= 0) {
            all.low[row] = __double_as_longlong(least[r]) - 1;
            all.high[row] = __double_as_longlong(most[r]);
        }
    }
}

MMP_DEVICE void count_parts(MmpPairTiles& tiles, Brackets& all, const double* points, mmp_i64 n, mmp_i64 p) {
    mmp_u64 packed[mmp_warp_rows] = {};
    int passed = 0;
    const bool wants = any_row([&](int row) { return is_open(all, row); });
    mmp_walk(tiles, points, n, p, wants, [&](const MmpPairs& pairs) {
#pragma unroll
        for (int r = 0; r < mmp_warp_rows; ++r) {
            const int row = mmp_row_of_block(r);
            if (r < pairs.first || r >= pairs.last || !is_open(all, row)) continue;
            const mmp_i64 own = tiles.own[row];
            int part[2] = {0, 0};
#pragma unroll
            for (int m = 0; m < inner; ++m) {
                const double limit = all.limits[row][m];
                part[0] += pairs.squares[r][0] > limit;
                part[1] += pairs.squares[r][1] > limit;
            }
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const mmp_i64 column = pairs.column + 32 * h;
                packed[r] += (mmp_u64)(column < n && column != own) << (8 * part[h]);
            }
        }
        if (++passed == tiles_a_flush) {
            passed = 0;
#pragma unroll
            for (int r = 0; r < mmp_warp_rows; ++r) flush(all, mmp_row_of_block(r), packed[r]), packed[r] = 0;
        }
    });
#pragma unroll
    for (int r = 0; r < mmp_warp_rows; ++r) flush(all, mmp_row_of_block(r), packed[r]);
}

MMP_DEVICE void collect(MmpPairTiles& tiles, Brackets& all, const double* points, mmp_i64 n, mmp_i64 p) {
    int found[mmp_warp_rows] = {};
    const bool wants = any_row([&](int row) { return is_listed(all, row); });
    mmp_walk(tiles, points, n, p, wants, [&](const MmpPairs& pairs) {
#pragma unroll
        for (int r = 0; r < mmp_warp_rows; ++r) {
            const int row = mmp_row_of_block(r);
            if (r < pairs.first || r >= pairs.last || !is_listed(all, row)) continue;
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const mmp_i64 column = pairs.column + 32 * h, bits = __double_as_longlong(pairs.squares[r][h]);
                const bool other = column < n && column != tiles.own[row];
                const bool taken = other && bits > all.low[row] && bits <= all.high[row];
                const unsigned lanes = __ballot_sync(MMP_WARP, taken);
                if (taken && found[r] + mmp_rank(lanes) < few)
                    all.collected[row][found[r] + mmp_rank(lanes)] = pairs.squares[r][h];
                found[r] += __popc(lanes);
            }
        }
    });
    __syncwarp();
}

// The entry of rank `rank` (from 0) of a row's list: the lane that holds it writes it.
MMP_DEVICE void write_ranked(const double* list, int n, mmp_i64 rank, double* out) {
    const int lane = mmp_lane();
    if (lane >= n) return;
    int mine = 0;
    for (int l = 0; l < n; ++l) mine += list[l] < list[lane] || (list[l] == list[lane] && l < lane);
    if (mine == rank) *out = sqrt(list[lane]);
}

}  // namespace

// One block per 64 points named, one warp per 8 of them, two columns a lane, pass after pass until all are found.
//
// distances (n_rows,): of the points `rows` (counted over the stack; null: all) of points (n_sets, n, p) to their k-th
// nearest other point of the same set, 1 <= k < n.
MMP_KERNEL void __launch_bounds__(mmp_threads)
    kth_neighbor_distance(const double* points, mmp_i64 n, mmp_i64 p, mmp_i64 k, const mmp_i64* rows, mmp_i64 n_rows,
                          double* distances) {
    MMP_SHARED(MmpPairTiles, tiles);
    MMP_SHARED(Brackets, all);
    const int mine = (int)threadIdx.x;
    if (mine < mmp_tile) {
        const bool there = (mmp_i64)blockIdx.x * mmp_tile + mine < n_rows;
        all.low[mine] = -1, all.high[mine] = bits_of_infinity;
        all.below[mine] = 0, all.inside[mine] = there ? n - 1 : 0;
    }
    mmp_locate(tiles, n_rows, [&](mmp_i64 row, mmp_i64& set, mmp_i64& own) {
        const mmp_i64 point = rows ? rows[row] : row;
        set = point / n, own = point % n;
    });
    if (n - 1 > few) find_range(tiles, all, points, n, p);
    __syncthreads();
    while (__syncthreads_or(mine < mmp_tile && is_open(all, mine))) {
        if (mine < mmp_tile && is_open(all, mine)) divide(all, mine);
        __syncthreads();
        count_parts(tiles, all, points, n, p);
        __syncthreads();
        if (mine < mmp_tile && is_open(all, mine)) narrow(all, mine, k, n - 1);
        __syncthreads();
    }
    if (__syncthreads_or(mine < mmp_tile && is_listed(all, mine))) collect(tiles, all, points, n, p);
    for (int r = 0; r < mmp_warp_rows; ++r) {
        const int row = mmp_row_of_block(r);
        double* out = distances + mmp_row_of_launch(r);
        if (is_listed(all, row))
            write_ranked(all.collected[row], (int)all.inside[row], k - all.below[row] - 1, out);
        else if (tiles.set[row] >= 0 && mmp_lane() == 0)
            *out = sqrt(__longlong_as_double(all.high[row]));
    }
}

// One block per 64 points of the stack, one warp per 8 of them, two columns a lane; a lane counts, the warp adds up.
//
// For every point, how many others of its set lie nearer than low[set], and how many within high[set].
MMP_KERNEL void __launch_bounds__(mmp_threads)
    bracket_count(const double* points, mmp_i64 n_sets, mmp_i64 n, mmp_i64 p, const double* low, const double* high,
                  mmp_i64* below, mmp_i64* within) {
    MMP_SHARED(MmpPairTiles, tiles);
    mmp_locate(tiles, n_sets * n, [&](mmp_i64 row, mmp_i64& set, mmp_i64& own) { set = row / n, own = row % n; });
    int nearer[mmp_warp_rows] = {}, near[mmp_warp_rows] = {};
    mmp_i64 set = -1;  // whose limits these are
    double least = 0, most = 0;
    mmp_walk(tiles, points, n, p, true, [&](const MmpPairs& pairs) {
        if (pairs.set != set) {
            set = pairs.set;
            least = low[set] > 0 ? mmp_squared_reach(mmp_neighbouring(low[set], -1)) : -1;
            most = mmp_squared_reach(high[set]);
        }
#pragma unroll
        for (int r = 0; r < mmp_warp_rows; ++r) {
            if (r < pairs.first || r >= pairs.last) continue;
            const mmp_i64 own = tiles.own[mmp_row_of_block(r)];
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const mmp_i64 column = pairs.column + 32 * h;
                const bool other = column < n && column != own;
                nearer[r] += other && pairs.squares[r][h] <= least;
                near[r] += other && pairs.squares[r][h] <= most;
            }
        }
    });
#pragma unroll
    for (int r = 0; r < mmp_warp_rows; ++r) {
        const int a = mmp_warp_sum(nearer[r]), b = mmp_warp_sum(near[r]);
        if (mmp_lane() == 0 && mmp_row_of_launch(r) < n_sets * n)
            below[mmp_row_of_launch(r)] = a, within[mmp_row_of_launch(r)] = b;
    }
}
