// The float32 screen of a point set: which pairs surely lie within a radius, and which may. Float64 decides the others.
#pragma once
#include "../common/screen.h"
#include "simd.h"
#include <algorithm>
#include <limits>
#include <vector>

namespace MMP_ISA {

// Sets of fewer points are compared pair by pair in float64 alone.
constexpr std::int64_t screened_from = 32;

// A point set, feature by feature: in float64, and in float32, where it is centered and scaled to about 1.
struct Screen : MmpScreen {
    std::int64_t n = 0, p = 0, padded = 0;
    std::vector<double> exact;  // [p][padded]
    std::vector<float> rough;   // [p][padded]

    void fill(const double* points, std::int64_t n_points, std::int64_t n_features) {
        n = n_points, p = n_features, padded = ceil_to(n, lanes<float>) + lanes<float>;
        exact.assign(p * padded, 0.0);
        rough.assign(p * padded, 0.0f);
        double span = 0;
        std::vector<double> center(p, 0.0);
        for (std::int64_t f = 0; f < p; ++f) {
            double* x = exact.data() + f * padded;
            double least = std::numeric_limits<double>::infinity(), most = -least;
            for (std::int64_t i = 0; i < n; ++i) {
                x[i] = points[i * p + f];
                least = std::min(least, x[i]), most = std::max(most, x[i]);
            }
            center[f] = least / 2 + most / 2;
            span = std::max({span, center[f] - least, most - center[f]});
        }
        MmpScreen::operator=(mmp_screen(span, p));
        for (std::int64_t f = 0; f < p; ++f)
            for (std::int64_t i = 0; i < n; ++i)
                rough[f * padded + i] = (float)((exact[f * padded + i] - center[f]) * scale);
    }
    // Rough squares up to this are surely within `radius`. It is -1 if there is no such square.
    float surely(double radius) const { return mmp_surely(*this, radius); }
    // Rough squares above this are surely beyond `radius`.
    float possibly(double radius) const { return mmp_possibly(*this, radius); }
    double squared(std::int64_t i, std::int64_t j) const {
        return mmp_squared_distance(exact.data() + i, padded, exact.data() + j, padded, p);
    }
};

// The rough squares, which are squared distances in float32, of rows i0 .. i0+R-1 with the points j .. j+lanes-1.
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

// Lists, for each of R rows, the points first .. last-1 whose rough square is at most `limit` (see Screen::possibly),
// in ascending order. A list has room for Screen::padded numbers, since `append` may write one register too much.
template <int R>
inline void candidates(const Screen& set, std::int64_t i0, std::int64_t first, std::int64_t last, float limit,
                       std::int32_t* const* lists, std::int64_t* sizes) {
    const Vec<float> most = splat<float>(limit);
    for (std::int64_t j = first; j < last; j += lanes<float>) {
        Vec<float> squares[R];
        rough_squares<R>(set, i0, j, squares);
        const unsigned inside = last - j < lanes<float> ? (1u << (last - j)) - 1 : ~0u;
        for (int r = 0; r < R; ++r) {
            const unsigned bits = bits_of((Vec<std::int32_t>)(squares[r] <= most)) & inside;
            if (bits) sizes[r] = append(lists[r], sizes[r], bits, j);
        }
    }
}

// Exact squared distances from point i to the points of an ascending list, with the bits of Screen::squared. A point of
// a trajectory is near for many steps in a row. Such points are neighbors in memory and are loaded without a gather.
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

// Sets of fewer points are not shared between threads.
constexpr std::int64_t shared_from = 512;

// Calls per_set(screen, s, threads) for every set s of the stack (B, n, p). Large sets come one after the other, each
// with all threads. Small sets run side by side, each on one thread.
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
