// The float32 screen of a point set: which pairs surely lie within a radius, and which may. Float64 decides the others.
#pragma once
#include "../common/screen.h"
#include "presence.h"
#include <limits>

namespace MMP_ISA {

// Sets of fewer points are compared pair by pair in float64 alone.
constexpr std::int64_t screened_from = 32;

// A point set, feature by feature: in float64, and in float32, where it is centered and scaled to about 1. The place of
// a point is its number, unless the set is masked (see Presence). Places without a point are NaN, and so are features
// that a point lacks.
struct Screen : MmpScreen, Presence {
    std::int64_t n = 0, p = 0, places = 0, padded = 0;
    bool masked = false;
    std::vector<double> exact;  // [p][padded]
    std::vector<float> rough;   // [p][padded]

    void fill(const double* points, std::int64_t n_points, std::int64_t n_features, bool may_lack) {
        n = n_points, p = n_features, masked = may_lack;
        if (masked) arrange(points, n, p);
        places = masked ? runs.back().last : n, padded = ceil_to(places, lanes<float>) + lanes<float>;
        exact.assign(p * padded, masked ? std::numeric_limits<double>::quiet_NaN() : 0.0);
        rough.assign(p * padded, masked ? std::numeric_limits<float>::quiet_NaN() : 0.0f);
        double span = 0;
        std::vector<double> center(p, 0.0);
        for (std::int64_t f = 0; f < p; ++f) {
            double* x = exact.data() + f * padded;
            double least = std::numeric_limits<double>::infinity(), most = -least;
            for (std::int64_t i = 0; i < n; ++i) {
                const double value = points[i * p + f];
                x[place(i)] = value;
                least = std::min(least, value), most = std::max(most, value);  // NaN changes neither
            }
            center[f] = least / 2 + most / 2;
            span = std::max({span, center[f] - least, most - center[f]});
        }
        MmpScreen::operator=(mmp_screen(span, p));
        for (std::int64_t f = 0; f < p; ++f)
            for (std::int64_t i = 0; i < places; ++i)
                rough[f * padded + i] = (float)((exact[f * padded + i] - center[f]) * scale);
    }
    std::int64_t place(std::int64_t point) const { return masked ? place_of[point] : point; }
    // The point at a place; -1 if there is none.
    std::int64_t point(std::int64_t place) const { return masked ? point_at[place] : place; }
    // Rough squares up to this are surely within `radius`. It is -1 if there is no such square.
    float surely(double radius) const { return mmp_surely(*this, radius); }
    // Rough squares above this are surely beyond `radius`.
    float possibly(double radius) const { return mmp_possibly(*this, radius); }
    double squared(std::int64_t i, std::int64_t j) const {
        const double *x = exact.data() + i, *y = exact.data() + j;
        return masked ? mmp_masked_squared_distance(x, padded, y, padded, p)
                      : mmp_squared_distance(x, padded, y, padded, p);
    }
};

// A metric computes the squares of some rows with some columns. `rough` has the squares in float32 of rows i0 .. i0+R-1
// with the places j .. j+lanes-1. `exact` has those in float64 of row i with other points, one a lane, whose features
// `others` loads. It has the bits of Screen::squared.

// All points have all features.
struct AllFeatures {
    const Screen& set;

    template <int R> MMP_INLINE void rough(std::int64_t i0, std::int64_t j, Vec<float>* squares) const {
        for (int r = 0; r < R; ++r) squares[r] = Vec<float>{};
        const float *row = set.rough.data() + i0, *column = set.rough.data() + j;
        for (std::int64_t f = 0; f < set.p; ++f, row += set.padded, column += set.padded) {
            const Vec<float> x = load<float>(column);
            for (int r = 0; r < R; ++r) {
                const Vec<float> d = x - splat<float>(row[r]);
                squares[r] = fused(d, d, squares[r]);
            }
        }
    }
    template <class Others> MMP_INLINE Vec<double> exact(std::int64_t i, Others others) const {
        const double* feature = set.exact.data();
        Vec<double> sum{};
        for (std::int64_t f = 0; f < set.p; ++f, feature += set.padded) {
            const Vec<double> d = splat<double>(feature[i]) - others(feature);
            sum = sum + d * d;
        }
        return sum;
    }
};

// All rows have the same features, and all columns have the same.
struct CommonFeatures {
    const Screen& set;
    const Common common;

    template <int R> MMP_INLINE void rough(std::int64_t i0, std::int64_t j, Vec<float>* squares) const {
        for (int r = 0; r < R; ++r) squares[r] = Vec<float>{};
        const float *row = set.rough.data() + i0, *column = set.rough.data() + j;
        for (std::int64_t c = 0; c < common.size; ++c) {
            const std::int64_t at = common.features[c] * set.padded;
            const Vec<float> x = load<float>(column + at);
            for (int r = 0; r < R; ++r) {
                const Vec<float> d = x - splat<float>(row[at + r]);
                squares[r] = fused(d, d, squares[r]);
            }
        }
        const Vec<float> factor = splat<float>((float)common.factor);
        for (int r = 0; r < R; ++r) squares[r] *= factor;
    }
    template <class Others> MMP_INLINE Vec<double> exact(std::int64_t i, Others others) const {
        Vec<double> sum{};
        for (std::int64_t c = 0; c < common.size; ++c) {
            const double* feature = set.exact.data() + common.features[c] * set.padded;
            const Vec<double> d = splat<double>(feature[i]) - others(feature);
            sum = sum + d * d;
        }
        return sum * splat<double>(common.factor);
    }
};

// Every point may have other features.
struct AnyFeatures {
    const Screen& set;

    // The number, or 0 where `d` is NaN.
    template <class T> static MMP_INLINE Vec<T> unless_nan(Vec<T> d, Vec<T> number) {
        const auto known = d == d;
        return (Vec<T>)((decltype(d == d))number & known);
    }
    template <int R> MMP_INLINE void rough(std::int64_t i0, std::int64_t j, Vec<float>* squares) const {
        Vec<float> counts[R];
        for (int r = 0; r < R; ++r) squares[r] = counts[r] = Vec<float>{};
        const float *row = set.rough.data() + i0, *column = set.rough.data() + j;
        for (std::int64_t f = 0; f < set.p; ++f, row += set.padded, column += set.padded) {
            const Vec<float> x = load<float>(column);
            for (int r = 0; r < R; ++r) {
                const Vec<float> d = x - splat<float>(row[r]), known = unless_nan<float>(d, d);
                squares[r] = fused(known, known, squares[r]);
                counts[r] += unless_nan<float>(d, splat<float>(1));
            }
        }
        for (int r = 0; r < R; ++r) squares[r] *= splat<float>((float)set.p) / counts[r];
    }
    template <class Others> MMP_INLINE Vec<double> exact(std::int64_t i, Others others) const {
        const double* feature = set.exact.data();
        Vec<double> sum{}, count{};
        for (std::int64_t f = 0; f < set.p; ++f, feature += set.padded) {
            const Vec<double> d = splat<double>(feature[i]) - others(feature);
            sum = sum + unless_nan<double>(d, d * d);
            count = count + unless_nan<double>(d, splat<double>(1));
        }
        return sum * (splat<double>((double)set.p) / count);
    }
};

// Calls use(metric, first, last) for parts of the places from `from` on, in order: all rows of the block that begins at
// i0 have one metric with the places first .. last-1.
template <class Use> MMP_INLINE void each_part(const Screen& set, std::int64_t i0, std::int64_t from, Use use) {
    if (!set.masked) return use(AllFeatures{set}, from, set.places);
    const std::int64_t own = set.run_at[i0], n_runs = (std::int64_t)set.runs.size();
    for (std::int64_t r = from < set.places ? set.run_at[from] : n_runs; r < n_runs; ++r) {
        const Run& run = set.runs[r];
        const std::int64_t first = std::max(from, run.first);
        if (run.mixed || set.runs[own].mixed)
            use(AnyFeatures{set}, first, run.last);
        else
            use(CommonFeatures{set, set.common(own, r)}, first, run.last);
    }
}

// Places first .. last-1, of one run.
struct Block {
    std::int64_t first, last;
};

// The places of the points first .. last-1 in blocks of at most rows_at_once.
inline std::vector<Block> blocks_of(const Screen& set, std::int64_t first, std::int64_t last) {
    std::vector<Block> blocks;
    const auto add = [&](std::int64_t from, std::int64_t end) {
        for (; from < end; from += rows_at_once) blocks.push_back({from, std::min(from + rows_at_once, end)});
    };
    if (!set.masked) return add(first, last), blocks;
    const std::int32_t* at = set.point_at.data();
    for (const Run& run : set.runs)  // whose points ascend
        add(std::lower_bound(at + run.first, at + run.end, first) - at,
            std::lower_bound(at + run.first, at + run.end, last) - at);
    return blocks;
}

// Lists, for each of R rows, the places whose rough square is at most `limit` (see Screen::possibly), in ascending
// order. A list has room for Screen::padded numbers, since `append` may write one register too much.
template <int R>
inline void candidates(const Screen& set, std::int64_t i0, float limit, std::int32_t* const* lists,
                       std::int64_t* sizes) {
    const Vec<float> most = splat<float>(limit);
    each_part(set, i0, 0, [&](auto metric, std::int64_t first, std::int64_t last) {
        for (std::int64_t j = first; j < last; j += lanes<float>) {
            Vec<float> squares[R];
            metric.template rough<R>(i0, j, squares);
            const unsigned inside = last - j < lanes<float> ? (1u << (last - j)) - 1 : ~0u;
            for (int r = 0; r < R; ++r) {
                const unsigned bits = bits_of((Vec<std::int32_t>)(squares[r] <= most)) & inside;
                if (bits) sizes[r] = append(lists[r], sizes[r], bits, j);
            }
        }
    });
}

// Exact squared distances from place i to the places of an ascending list. A point of a trajectory is near for many
// steps in a row. Such points are neighbors in memory and are loaded without a gather.
template <class Metric>
inline void exact_part(Metric metric, std::int64_t i, const std::int32_t* list, std::int64_t k, double* squares) {
    constexpr int width = lanes<double>;
    const auto gathered = [](const double* feature, const std::int32_t* at) {
        Vec<double> other;
        for (int l = 0; l < width; ++l) other[l] = feature[at[l]];
        return other;
    };
    for (std::int64_t a = 0; k >= width && a < k; a += width) {
        a = std::min(a, k - width);  // the last register overlaps the one before it
        const std::int32_t* at = list + a;
        store<double>(squares + a, at[width - 1] - at[0] == width - 1
                                       ? metric.exact(i, [&](const double* f) { return load<double>(f + at[0]); })
                                       : metric.exact(i, [&](const double* f) { return gathered(f, at); }));
    }
    if (k >= width || k == 0) return;
    std::int32_t few[width];
    for (int l = 0; l < width; ++l) few[l] = list[std::min<std::int64_t>(l, k - 1)];
    const Vec<double> all = metric.exact(i, [&](const double* f) { return gathered(f, few); });
    for (int l = 0; l < k; ++l) squares[l] = all[l];
}

// The same for the whole list.
inline void exact_squares(const Screen& set, std::int64_t i, const std::int32_t* list, std::int64_t k,
                          double* squares) {
    std::int64_t a = 0;
    each_part(set, i, 0, [&](auto metric, std::int64_t, std::int64_t last) {
        const std::int64_t begin = a;
        a = last == set.places ? k : std::lower_bound(list + begin, list + k, last) - list;
        exact_part(metric, i, list + begin, a - begin, squares + begin);
    });
}

// Puts a list of places and a number for each into the order of the points, and makes it a list of points.
class PointOrder {
    std::vector<std::uint64_t> listed;  // a bit for each point
    std::vector<double> of_point;

  public:
    void operator()(const Screen& set, std::int32_t* list, std::int64_t k, double* numbers) {
        if (!set.masked || set.runs.size() == 1) return;  // places ascend with points
        listed.resize(set.n / 64 + 1), of_point.resize(set.n);
        for (std::int64_t a = 0; a < k;) {
            const std::int64_t word = set.point_at[list[a]] / 64;
            std::uint64_t bits = listed[word];
            for (; a < k && set.point_at[list[a]] / 64 == word; ++a) {
                const std::int64_t point = set.point_at[list[a]];
                bits |= (std::uint64_t)1 << point % 64, of_point[point] = numbers[a];
            }
            listed[word] = bits;
        }
        std::int64_t a = 0;
        for (std::size_t word = 0; word < listed.size(); ++word)
            for (std::uint64_t bits = std::exchange(listed[word], 0); bits; bits &= bits - 1, ++a) {
                list[a] = (std::int32_t)(64 * word + __builtin_ctzll(bits));
                numbers[a] = of_point[list[a]];
            }
    }
};

// Sets of fewer points are not shared between threads.
constexpr std::int64_t shared_from = 512;

// A stack of n_sets sets of n points with p features, which points of a `masked` stack may lack.
struct Points {
    const double* points;
    std::int64_t n_sets, n, p;
    bool masked;

    void fill(Screen& set, std::int64_t s) const { set.fill(points + s * n * p, n, p, masked); }
    // Calls use(squared), where squared(i, j) is the squared distance of two points of set s, without a screen. It is
    // infinite if they have no feature in common.
    template <class Use> MMP_INLINE void with_squares(std::int64_t s, Use use) const {
        const std::int64_t step = p;
        const double* x = points + s * n * step;
        if (masked)
            use([=](std::int64_t i, std::int64_t j) {
                const double square = mmp_masked_squared_distance(x + i * step, 1, x + j * step, 1, step);
                return square >= 0 ? square : std::numeric_limits<double>::infinity();
            });
        else
            use([=](std::int64_t i, std::int64_t j) {
                return mmp_squared_distance(x + i * step, 1, x + j * step, 1, step);
            });
    }
};

// Calls per_set(screen, s, threads) for every set s of the stack. Large sets come one after the other, each with all
// threads. Small sets run side by side, each on one thread.
template <class PerSet> void each_set(const Points& points, int threads, PerSet per_set) {
    if (points.n >= shared_from) {
        Screen set;
        for (std::int64_t s = 0; s < points.n_sets; ++s) {
            points.fill(set, s);
            per_set(set, s, threads);
        }
        return;
    }
    Guard guard;
#pragma omp parallel num_threads(threads)
    {
        Screen set;
#pragma omp for schedule(static)
        for (std::int64_t s = 0; s < points.n_sets; ++s)
            guard([&] {
                points.fill(set, s);
                per_set(set, s, 1);
            });
    }
    guard.rethrow();
}

}  // namespace MMP_ISA
