// One step of a descent by majorization, accelerated by L-BFGS: the twin of mmphate_gpu/ops/descent_step.py.
//
// The first kernel stores the step and its inner products, and its last block decides what follows. The second kernel
// moves the points. Neither waits for the host. The launcher defines MMP_DEPTH (how many past steps are kept).
#include "device.h"

constexpr int descent_depth = MMP_DEPTH;
constexpr int descent_rows = 2 * descent_depth;
constexpr int descent_threads = 256;
// Every kept row has three inner products: with the step, with the fall of the residual, and with the residual. One
// more inner product is that of the trial's step with the residual where the step starts.
constexpr int descent_products_of = 3;
constexpr int descent_sums = descent_products_of * descent_rows + 1;

namespace {

// Indices into `state`, as in the portable version.
enum { at_done, at_n_iter, at_plain, at_refused, at_near, at_best, at_n_kept, at_arrived, at_order };
constexpr int at_gram = at_order + descent_depth;
constexpr int descent_state = at_gram + descent_rows * descent_rows;

// The actions that the decision asks of descent_places; a sum of these.
enum { descent_take = 1, descent_plain = 2, descent_long = 4, descent_short = 8 };

static_assert(descent_rows <= 32, "one warp decides, with one row for each lane");

struct Decision {
    double parts[descent_threads / 32][descent_sums];
    double sums[descent_sums], state[descent_state];
    mmp_i32 is_last;
};

// The slot of the next step: that of the oldest step, or the first free one.
MMP_DEVICE int next_slot(const double* state) {
    const int n_kept = (int)state[at_n_kept];
    if (n_kept == descent_depth) return (int)state[at_order];
    int slot = 0;
    for (int i = 0; i < n_kept; ++i)
        if ((int)state[at_order + i] == slot) ++slot, i = -1;
    return slot;
}

MMP_DEVICE double gram(const Decision& now, int i, int j) { return now.state[at_gram + i * descent_rows + j]; }

// The quasi-Newton step by the two loops of L-BFGS, as a weighted sum of the kept rows and the residual. Every lane
// returns the weight of its row, and `scale` becomes the weight of the residual. `product` of a lane is the inner
// product of its row with the sum so far.
MMP_DEVICE double weights_of(const Decision& now, double& scale) {
    const int lane = mmp_lane(), row = lane < descent_rows ? lane : 0, n_kept = (int)now.state[at_n_kept];
    double weight = 0, product = now.sums[descent_products_of * row + 2];
    double share = 0;  // what the first loop took along the kept step whose position is the number of this lane
    for (int place = n_kept - 1; place >= 0; --place) {
        const int slot = (int)now.state[at_order + place], other = descent_depth + slot;
        const double taken = __shfl_sync(MMP_WARP, product, slot) / gram(now, slot, other);
        product -= taken * gram(now, row, other);
        if (lane == other) weight -= taken;
        if (lane == place) share = taken;
    }
    const int newest = (int)now.state[at_order + n_kept - 1], fall = descent_depth + newest;
    const double longer = gram(now, newest, fall) / gram(now, fall, fall);
    scale = longer > 1.0 ? longer : 1.0;
    weight *= scale;
    product *= scale;
    for (int place = 0; place < n_kept; ++place) {
        const int slot = (int)now.state[at_order + place], other = descent_depth + slot;
        const double back = __shfl_sync(MMP_WARP, product, other) / gram(now, slot, other);
        const double taken = __shfl_sync(MMP_WARP, share, place) - back;
        product += taken * gram(now, row, slot);
        if (lane == slot) weight += taken;
    }
    return weight;
}

// A warp stores the inner products of the step in `slot`.
MMP_DEVICE void learn(Decision& now, int slot) {
    const int lane = mmp_lane(), other = descent_depth + slot;
    const double* products = now.sums + descent_products_of * lane;
    double* all = now.state + at_gram;
    if (lane < descent_rows) {
        all[lane * descent_rows + slot] = products[0];
        all[lane * descent_rows + other] = products[1];
    }
    __syncwarp();
    if (lane < descent_rows) {
        all[slot * descent_rows + lane] = products[0];
        all[other * descent_rows + lane] = products[1];
    }
    __syncwarp();
}

// Keeps the step in `slot` as the newest one if the curvature along it is large enough.
MMP_DEVICE void keep(Decision& now, int slot, double least_curvature) {
    double* order = now.state + at_order;
    int n_kept = 0;
    for (int place = 0; place < (int)now.state[at_n_kept]; ++place)
        if ((int)order[place] != slot) order[n_kept++] = order[place];
    if (gram(now, slot, descent_depth + slot) > least_curvature * gram(now, slot, slot)) order[n_kept++] = slot;
    now.state[at_n_kept] = n_kept;
}

// A parabola has the stress of n points at both ends of a step, and its slope at the start. This is the share of the
// step at which the parabola is least, kept within 0.1 and 0.5.
MMP_DEVICE double share_of(double n, double along, double gain) {
    const double slope = -4 * n * along, bend = -gain - slope;
    const double share = bend > 0 ? -slope / (2 * bend) : 0.0;
    const double least = 0.1 > share ? 0.1 : share;
    return 0.5 < least ? 0.5 : least;
}

// The decision that follows from the trial. Every lane returns the action. `factor` becomes the factor of the residual
// or of the step, and `weight` the weight of the lane's row. The first lane of the warp writes the state.
MMP_DEVICE mmp_i64 decide(Decision& now, double raw, mmp_i64 n_points, double eps, mmp_i64 max_iter, double near,
                          double least_curvature, mmp_i64 shortened, double& weight, double& factor) {
    const bool first = mmp_lane() == 0, plain = now.state[at_plain] != 0;
    const double best = now.state[at_best], gain = best - raw, n_iter = now.state[at_n_iter] + 1;
    const bool last = n_iter >= (double)max_iter, small = gain < eps * best;
    const double refused = now.state[at_refused] + 1;
    __syncwarp();  // the state has been read
    if (first) now.state[at_n_iter] = n_iter;
    if (!plain && !(gain > 0)) {
        if (first) {
            now.state[at_done] = last;
            now.state[at_refused] = refused;
            if (!last && refused > (double)shortened) now.state[at_plain] = 1;
        }
        if (last) return 0;
        factor = share_of((double)n_points, now.sums[descent_sums - 1], gain);
        return refused <= (double)shortened ? descent_short : descent_plain;
    }
    const double now_best = best - (0.0 > gain ? 0.0 : gain);
    const bool done = (small && plain) || last || !(now_best > 0);
    if (first) {
        now.state[at_best] = now_best;
        now.state[at_refused] = 0;
        now.state[at_done] = done;
    }
    if (done) return descent_take;
    const int slot = next_slot(now.state);
    learn(now, slot);
    if (first) {
        keep(now, slot, least_curvature);
        if (small) now.state[at_n_kept] = 0;
        if (gain < near * now_best && n_iter > descent_depth) now.state[at_near] = 1;
        now.state[at_plain] = now.state[at_near] == 0 || now.state[at_n_kept] == 0;
    }
    __syncwarp();
    if (now.state[at_plain] != 0) return descent_take | descent_plain;
    weight = weights_of(now, factor);
    return descent_take | descent_long;
}

}  // namespace

// A thread takes coordinates at a fixed stride, and a fixed tree sums over a block. The last block to store its sums
// adds those of all blocks, in an order that does not depend on which block it is. Then its first warp decides.
//
// trial_moved, points, moved, trial, step (n,): n coordinates of n_points = L points; kept (2 DEPTH, n), of which the
// rows of the next slot are written; raw (): the stress at the trial; state, changed in place; by_block
// (blocks, 6 DEPTH + 1): scratch
// -> weights (2 DEPTH + 1,): of the kept rows, and of the residual or the step; action ().
MMP_KERNEL void __launch_bounds__(descent_threads)
    descent_decision(const double* trial_moved, const double* points, const double* moved, const double* trial,
                     const double* step, double* kept, mmp_i64 n, const double* raw, mmp_i64 n_points, double* state,
                     double eps, mmp_i64 max_iter, double near, double least_curvature, mmp_i64 shortened,
                     double* by_block, double* weights, mmp_i64* action) {
    MMP_SHARED(Decision, now);
    if (state[at_done] != 0) {
        if (blockIdx.x == 0 && threadIdx.x == 0) *action = 0;
        return;
    }
    const int slot = next_slot(state), warp = (int)threadIdx.x / 32, lane = mmp_lane();
    double sums[descent_sums];
#pragma unroll
    for (int q = 0; q < descent_sums; ++q) sums[q] = 0;
    const mmp_i64 stride = (mmp_i64)gridDim.x * descent_threads;
    for (mmp_i64 i = (mmp_i64)blockIdx.x * descent_threads + threadIdx.x; i < n; i += stride) {
        const double before = moved[i] - points[i], residual = trial_moved[i] - trial[i];
        const double taken = trial[i] - points[i], fall = before - residual;
        double rows[descent_rows];
#pragma unroll
        for (int row = 0; row < descent_rows; ++row) rows[row] = kept[row * n + i];
        kept[slot * n + i] = taken;
        kept[(descent_depth + slot) * n + i] = fall;
#pragma unroll
        for (int row = 0; row < descent_rows; ++row) {
            const double value = row == slot ? taken : row == descent_depth + slot ? fall : rows[row];
            sums[descent_products_of * row] += value * taken;
            sums[descent_products_of * row + 1] += value * fall;
            sums[descent_products_of * row + 2] += value * residual;
        }
        sums[descent_sums - 1] += before * step[i];
    }
#pragma unroll
    for (int q = 0; q < descent_sums; ++q) {
        const double part = mmp_warp_sum(sums[q]);
        if (lane == 0) now.parts[warp][q] = part;
    }
    __syncthreads();
    for (int q = threadIdx.x; q < descent_sums; q += descent_threads) {
        double total = 0;
        for (int w = 0; w < descent_threads / 32; ++w) total += now.parts[w][q];
        by_block[(mmp_i64)blockIdx.x * descent_sums + q] = total;
        __threadfence();  // the last block must see the sums before this one counts as done
    }
    __syncthreads();
    if (threadIdx.x == 0) now.is_last = atomicAdd(state + at_arrived, 1.0) == (double)gridDim.x - 1;
    __syncthreads();
    if (!now.is_last) return;
    __threadfence();
    const volatile double* const others = by_block;
    for (int q = warp; q < descent_sums; q += descent_threads / 32) {
        double total = 0;
        for (unsigned b = lane; b < gridDim.x; b += 32) total += others[b * descent_sums + q];
        total = mmp_warp_sum(total);
        if (lane == 0) now.sums[q] = total;
    }
    for (int q = threadIdx.x; q < descent_state; q += descent_threads) now.state[q] = state[q];
    __syncthreads();
    if (warp == 0) {
        double weight = 0, factor = 0;
        const mmp_i64 what =
            decide(now, *raw, n_points, eps, max_iter, near, least_curvature, shortened, weight, factor);
        if (lane < descent_rows) weights[lane] = weight;
        if (lane == 0) weights[descent_rows] = factor, *action = what;
    }
    __syncthreads();
    for (int q = threadIdx.x; q < descent_state; q += descent_threads) state[q] = q == at_arrived ? 0 : now.state[q];
}

// One thread for each coordinate.
//
// trial_moved (n,), kept (2 DEPTH, n), weights and action of descent_decision -> points, moved, trial, step (n,).
MMP_KERNEL void __launch_bounds__(descent_threads)
    descent_places(const double* trial_moved, double* points, double* moved, double* trial, double* step,
                   const double* kept, mmp_i64 n, const double* weights, const mmp_i64* action) {
    const mmp_i64 i = (mmp_i64)blockIdx.x * descent_threads + threadIdx.x, what = *action;
    if (i >= n || what == 0) return;
    if (what & descent_take) {
        points[i] = trial[i];
        moved[i] = trial_moved[i];
    }
    if (what & descent_long) {
        double sum = 0;
#pragma unroll
        for (int row = 0; row < descent_rows; ++row) sum += weights[row] * kept[row * n + i];
        step[i] = weights[descent_rows] * (moved[i] - points[i]) + sum;
    }
    if (what & descent_short) step[i] *= weights[descent_rows];
    if (what & (descent_long | descent_short)) trial[i] = points[i] + step[i];
    if (what & descent_plain) trial[i] = moved[i];
}
