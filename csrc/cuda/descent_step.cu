// One step of a descent by majorisation, sped up by L-BFGS: the twin of mmphate_gpu/ops/descent_step.py.
//
// Three kernels, one after the other: what is kept and its inner products, the decision, the places. None of them asks
// the host. Compiled with MMP_DEPTH (past steps that are kept) defined.
#include "device.h"

constexpr int descent_depth = MMP_DEPTH;
constexpr int descent_rows = 2 * descent_depth;
constexpr int descent_threads = 256;
// Of every row that is kept with the step, with the fall and with the residual; of the trial's step with the residual
// where it starts.
constexpr int descent_products_of = 3;
constexpr int descent_sums = descent_products_of * descent_rows + 1;

namespace {

// Places in `state`, as in the portable version.
enum { at_done, at_n_iter, at_plain, at_refused, at_near, at_best, at_n_kept, at_order };
constexpr int at_gram = at_order + descent_depth;

// What the decision asks of the places: a sum of these.
enum { descent_take = 1, descent_plain = 2, descent_long = 4, descent_short = 8 };

struct Sums {
    double parts[descent_threads / 32][descent_sums];
};

struct Decision {
    double sums[descent_sums], state[at_gram + descent_rows * descent_rows], weights[descent_rows];
};

// Where the next step is kept: in place of the oldest, or in the first slot that is free.
MMP_DEVICE int next_slot(const double* state) {
    const int n_kept = (int)state[at_n_kept];
    if (n_kept == descent_depth) return (int)state[at_order];
    int slot = 0;
    for (int i = 0; i < n_kept; ++i)
        if ((int)state[at_order + i] == slot) ++slot, i = -1;
    return slot;
}

// Of row `i` with the vector that is `scale` times the residual plus the rows by their weights.
MMP_DEVICE double product_of(const Decision& now, int i, double scale) {
    double found = 0;
    for (int j = 0; j < descent_rows; ++j) found += now.weights[j] * now.state[at_gram + i * descent_rows + j];
    return scale * now.sums[descent_products_of * i + 2] + found;
}

MMP_DEVICE double gram(const Decision& now, int i, int j) { return now.state[at_gram + i * descent_rows + j]; }

// The quasi-Newton step by the two loops: weights of the rows; returns that of the residual.
MMP_DEVICE double weights_of(Decision& now) {
    const int n_kept = (int)now.state[at_n_kept];
    double shares[descent_depth];
    for (int j = 0; j < descent_rows; ++j) now.weights[j] = 0;
    for (int place = n_kept - 1; place >= 0; --place) {
        const int slot = (int)now.state[at_order + place], other = descent_depth + slot;
        shares[place] = product_of(now, slot, 1.0) / gram(now, slot, other);
        now.weights[other] -= shares[place];
    }
    const int newest = (int)now.state[at_order + n_kept - 1], fall = descent_depth + newest;
    const double found = gram(now, newest, fall) / gram(now, fall, fall);
    const double scale = found > 1.0 ? found : 1.0;
    for (int j = 0; j < descent_rows; ++j) now.weights[j] *= scale;
    for (int place = 0; place < n_kept; ++place) {
        const int slot = (int)now.state[at_order + place], other = descent_depth + slot;
        now.weights[slot] += shares[place] - product_of(now, other, scale) / gram(now, slot, other);
    }
    return scale;
}

// Takes the inner products of the step that was kept in `slot`, and the slot itself if there is curvature along it.
MMP_DEVICE void learn(Decision& now, int slot, double least_curvature) {
    const int other = descent_depth + slot;
    for (int i = 0; i < descent_rows; ++i) {
        const double* found = now.sums + descent_products_of * i;
        double* all = now.state + at_gram;
        all[i * descent_rows + slot] = all[slot * descent_rows + i] = found[0];
        all[i * descent_rows + other] = all[other * descent_rows + i] = found[1];
    }
    double* order = now.state + at_order;
    int n_kept = 0;
    for (int place = 0; place < (int)now.state[at_n_kept]; ++place)
        if ((int)order[place] != slot) order[n_kept++] = order[place];
    if (gram(now, slot, other) > least_curvature * gram(now, slot, slot)) order[n_kept++] = slot;
    now.state[at_n_kept] = n_kept;
}

// Where the parabola through the stress of n points at both ends of a step, and its slope, has its minimum.
MMP_DEVICE double share_of(double n, double along, double gain) {
    const double slope = -4 * n * along, bend = -gain - slope;
    const double share = bend > 0 ? -slope / (2 * bend) : 0.0;
    const double least = 0.1 > share ? 0.1 : share;
    return 0.5 < least ? 0.5 : least;
}

}  // namespace

// One thread a coordinate, and every so many further ones; then a fixed tree over a block.
//
// trial_moved, points, moved, trial, step (n,); kept (2 DEPTH, n), of which the rows of the next slot are written;
// -> sums (blocks, 6 DEPTH + 1).
MMP_KERNEL void __launch_bounds__(descent_threads)
    descent_products(const double* trial_moved, const double* points, const double* moved, const double* trial,
                     const double* step, double* kept, mmp_i64 n, const double* state, double* sums) {
    MMP_SHARED(Sums, shared);
    if (state[at_done] != 0) return;
    const int slot = next_slot(state);
    double own[descent_sums];
#pragma unroll
    for (int q = 0; q < descent_sums; ++q) own[q] = 0;
    const mmp_i64 stride = (mmp_i64)gridDim.x * descent_threads;
    for (mmp_i64 i = (mmp_i64)blockIdx.x * descent_threads + threadIdx.x; i < n; i += stride) {
        const double before = moved[i] - points[i], residual = trial_moved[i] - trial[i];
        const double taken = trial[i] - points[i], fall = before - residual;
        kept[slot * n + i] = taken;
        kept[(descent_depth + slot) * n + i] = fall;
#pragma unroll
        for (int row = 0; row < descent_rows; ++row) {
            const double value = kept[row * n + i];
            own[descent_products_of * row] += value * taken;
            own[descent_products_of * row + 1] += value * fall;
            own[descent_products_of * row + 2] += value * residual;
        }
        own[descent_sums - 1] += before * step[i];
    }
#pragma unroll
    for (int q = 0; q < descent_sums; ++q) {
        const double part = mmp_warp_sum(own[q]);
        if (mmp_lane() == 0) shared.parts[threadIdx.x / 32][q] = part;
    }
    __syncthreads();
    for (int q = threadIdx.x; q < descent_sums; q += descent_threads) {
        double total = 0;
        for (int w = 0; w < descent_threads / 32; ++w) total += shared.parts[w][q];
        sums[(mmp_i64)blockIdx.x * descent_sums + q] = total;
    }
}

// One warp adds up the sums, its first thread decides.
//
// sums (n_blocks, 6 DEPTH + 1); raw (): the stress at the trial; n_points: L; state, changed in place
// -> weights (2 DEPTH + 1,): of the rows kept, and of the residual or of the step; action ().
MMP_KERNEL void __launch_bounds__(32)
    descent_decision(const double* sums, mmp_i64 n_blocks, const double* raw, mmp_i64 n_points, double* state,
                     double eps, mmp_i64 max_iter, double near, double least_curvature, mmp_i64 shortened,
                     double* weights, mmp_i64* action) {
    MMP_SHARED(Decision, now);
    const bool ended = state[at_done] != 0;
    if (!ended) {
        for (int q = threadIdx.x; q < descent_sums; q += 32) {
            double total = 0;
            for (mmp_i64 b = 0; b < n_blocks; ++b) total += sums[b * descent_sums + q];
            now.sums[q] = total;
        }
        for (int q = threadIdx.x; q < at_gram + descent_rows * descent_rows; q += 32) now.state[q] = state[q];
    }
    __syncthreads();
    if (threadIdx.x != 0) return;
    *action = 0;
    if (ended) return;
    const double gain = now.state[at_best] - *raw;
    const bool last = ++now.state[at_n_iter] >= (double)max_iter, plain = now.state[at_plain] != 0;
    if (plain || gain > 0) {
        const bool small = gain < eps * now.state[at_best];
        now.state[at_best] -= 0.0 > gain ? 0.0 : gain;
        now.state[at_refused] = 0;
        now.state[at_done] = (small && plain) || last || !(now.state[at_best] > 0);
        *action = descent_take;
        if (now.state[at_done] == 0) {
            learn(now, next_slot(now.state), least_curvature);
            if (small) now.state[at_n_kept] = 0;
            if (gain < near * now.state[at_best] && now.state[at_n_iter] > descent_depth) now.state[at_near] = 1;
            now.state[at_plain] = now.state[at_near] == 0 || now.state[at_n_kept] == 0;
            *action = descent_take | (now.state[at_plain] != 0 ? descent_plain : descent_long);
            if (now.state[at_plain] == 0) {
                weights[descent_rows] = weights_of(now);
                for (int j = 0; j < descent_rows; ++j) weights[j] = now.weights[j];
            }
        }
    } else {
        now.state[at_done] = last;
        ++now.state[at_refused];
        if (!last && now.state[at_refused] <= (double)shortened) {
            weights[descent_rows] = share_of((double)n_points, now.sums[descent_sums - 1], gain);
            *action = descent_short;
        } else if (!last) {
            now.state[at_plain] = 1;
            *action = descent_plain;
        }
    }
    for (int q = 0; q < at_gram + descent_rows * descent_rows; ++q) state[q] = now.state[q];
}

// One thread a coordinate.
//
// trial_moved (n,), kept (2 DEPTH, n), weights and action of the decision -> points, moved, trial, step (n,).
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
        for (int row = 0; row < descent_rows; ++row) sum += weights[row] * kept[row * n + i];
        step[i] = weights[descent_rows] * (moved[i] - points[i]) + sum;
    }
    if (what & descent_short) step[i] *= weights[descent_rows];
    if (what & (descent_long | descent_short)) trial[i] = points[i] + step[i];
    if (what & descent_plain) trial[i] = moved[i];
}
