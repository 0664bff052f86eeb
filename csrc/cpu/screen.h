// A float32 screen in front of float64 decisions: which pairs surely lie within a radius, and which may.
#pragma once
#include "../common/screen.h"
#include "simd.h"
#include <algorithm>
#include <limits>
#include <vector>

namespace MMP_ISA {

// Sets of fewer points are compared pair by pair in float64 alone.
constexpr std::int64_t screened_from = 32;

// Pairs are decided by their squared distance.
inline double squared_reach(double reach) { return mmp_squared_reach(reach); }

// One point set, feature by feature: as it is in float64, and centred and scaled to at most about 1 in float32.
struct Screen : MmpScreen {
    std::int64_t n = 0, p = 0, padded = 0;
    std::vector<double> exact;  // [p][padded]
    std::vector<float> rough;   // [p][padded]

    void fill(const double* points, std::int64_t n_points, std::int64_t n_features) {
        n = n_points, p = n_features, padded = ceil_to(n, lanes<float>) + lanes<float>;
        exact.assign(p * padded, 0.0);
        rough.assign(p * padded, 0.0f);
        double span = 0;
        std::vector<double> centre(p, 0.0);
        for (std::int64_t f = 0; f < p; ++f) {
            double* x = exact.data() + f * padded;
            double least = std::numeric_limits<double>::infinity(), most = -least;
            for (std::int64_t i = 0; i < n; ++i) {
                x[i] = points[i * p + f];
                least = std::min(least, x[i]), most = std::max(most, x[i]);
            }
            centre[f] = least / 2 + most / 2;
            span = std::max({span, centre[f] - least, most - centre[f]});
        }
        MmpScreen::operator=(mmp_screen(span, p));
        for (std::int64_t f = 0; f < p; ++f)
            for (std::int64_t i = 0; i < n; ++i)
                rough[f * padded + i] = (float)((exact[f * padded + i] - centre[f]) * scale);
    }
    // Squared rough distances up to this are surely within `radius`; -1 if none is.
    float surely(double radius) const { return mmp_surely(*this, radius); }
    // Squared rough distances above this are surely beyond `radius`.
    float possibly(double radius) const { return mmp_possibly(*this, radius); }
    double squared(std::int64_t i, std::int64_t j) const {
        return mmp_squared_distance(exact.data() + i, padded, exact.data() + j, padded, p);
    }
};

// Squared rough distances of rows i0 .. i0+R-1 to the points j .. j+lanes-1.
template <int R> inline void rough_squares(const Screen& set, std::int64_t i0, std::int64_t j, Vec<float>* squares) {
    for (int r = 0; r < R; ++r) squares[r] = Vec<float>{};
    const float* feature = set.rough.data();
    for (std::int64_t f = 0; f < set.p; ++f, feature += set.padded) {
        const Vec<float> x = load<float>(feature + j);
        for (int r = 0; r < R; ++r) {
            const Vec<float> d = x - splat<float>(feature[i0 + r]);
            squares[r] = fused(d, d, squares[r]);
        }
    }
}

// The points that may lie within `limit` (see Screen::possibly) of each of R rows, ascending, among the columns
// first .. last-1; a list has room for Screen::padded, since `append` may run over by a register.
template <int R>
inline void candidates(const Screen& set, std::int64_t i0, std::int64_t first, std::int64_t last, float limit,
                       std::int32_t* const* lists, std::int64_t* found) {
    const Vec<float> most = splat<float>(limit);
    for (std::int64_t j = first; j < last; j += lanes<float>) {
        Vec<float> squares[R];
        rough_squares<R>(set, i0, j, squares);
        const unsigned inside = last - j < lanes<float> ? (1u << (last - j)) - 1 : ~0u;
        for (int r = 0; r < R; ++r) {
            const unsigned bits = bits_of((Vec<std::int32_t>)(squares[r] <= most)) & inside;
            if (bits) found[r] = append(lists[r], found[r], bits, j);
        }
    }
}

// Exact squared distances from point i to the points of an ascending list, with the bits of Screen::squared. Those of a
// trajectory are near for many steps in a row, and then need no gathering.
inline void exact_squares(const Screen& set, std::int64_t i, const std::int32_t* list, std::int64_t k,
                          double* squares) {
    constexpr int width = lanes<double>;
    std::int64_t a = 0;
    for (; a + width <= k; a += width) {
        const double* feature = set.exact.data();
        Vec<double> sum{};
        if (list[a + width - 1] - list[a] == width - 1) {
            for (std::int64_t f = 0; f < set.p; ++f, feature += set.padded) {
                const Vec<double> d = splat<double>(feature[i]) - load<double>(feature + list[a]);
                sum = sum + d * d;
            }
        } else {
            for (std::int64_t f = 0; f < set.p; ++f, feature += set.padded) {
                Vec<double> other;
                for (int l = 0; l < width; ++l) other[l] = feature[list[a + l]];
                const Vec<double> d = splat<double>(feature[i]) - other;
                sum = sum + d * d;
            }
        }
        store<double>(squares + a, sum);
    }
    for (; a < k; ++a) squares[a] = set.squared(i, list[a]);
}

// Sets smaller than this are dealt to the threads whole.
constexpr std::int64_t shared_from = 512;

// per_set(screen, s, threads) for every set s of the stack (n_sets, n, p): large sets one after the other with all
// threads, small ones side by side with one thread each.
template <class PerSet>
void each_set(const double* points, std::int64_t n_sets, std::int64_t n, std::int64_t p, int threads, PerSet per_set) {
    if (n >= shared_from) {
        Screen set;
        for (std::int64_t s = 0; s < n_sets; ++s) {
            set.fill(points + s * n * p, n, p);
            per_set(set, s, threads);
        }
        return;
    }
    Guard guard;
#pragma omp parallel num_threads(threads)
    {
        Screen set;
#pragma omp for schedule(static)
        for (std::int64_t s = 0; s < n_sets; ++s)
            guard([&] {
                set.fill(points + s * n * p, n, p);
                per_set(set, s, 1);
            });
    }
    guard.rethrow();
}

}  // namespace MMP_ISA
