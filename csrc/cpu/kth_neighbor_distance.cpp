// The distance of a point to its k-th nearest other point in its set: for every point, or the median over a set.
#include "screen.h"

namespace MMP_ISA {

constexpr double infinity = std::numeric_limits<double>::infinity();

struct Buffers {
    std::vector<std::int32_t> list;
    std::vector<double> squares;
    std::vector<float> rough;
    void fit(const Screen& set) { list.resize(set.padded), squares.resize(set.padded), rough.resize(2 * set.padded); }
};

// The k-th smallest (from 1) of n >= k numbers.
inline double kth_smallest(double* values, std::int64_t n, std::int64_t k) {
    std::nth_element(values, values + (k - 1), values + n);
    return values[k - 1];
}

// The squared distance of place i to its k-th nearest other place. The list has these k places and i itself.
inline double kth_of_list(const Screen& set, std::int64_t i, const std::int32_t* list, std::int64_t size,
                          std::int64_t k, double* squares) {
    exact_squares(set, i, list, size, squares);
    for (std::int64_t a = 0; a < size; ++a)
        if (list[a] == i) squares[a] = -1;  // so that the place itself comes before its duplicates
    return kth_smallest(squares, size, k + 1);
}

// The same from all places; infinite if fewer than k others share a feature with place i. The rough squares give a
// radius that surely holds k other places. The exact squares of the places within this radius decide.
inline double kth_of_row(const Screen& set, std::int64_t i, std::int64_t k, Buffers& buffers) {
    buffers.fit(set);
    float* rough = buffers.rough.data();
    float* all = rough + set.padded;
    each_part(set, i, 0, [&](auto metric, std::int64_t first, std::int64_t last) {
        for (std::int64_t j = first; j < last; j += lanes<float>) {
            Vec<float> squares[1];
            metric.template rough<1>(i, j, squares);
            store<float>(all + j, squares[0]);
        }
    });
    if (set.masked)  // nothing in common is infinitely far, so that all numbers have an order
        for (std::int64_t j = 0; j < set.places; ++j) all[j] = all[j] >= 0 ? all[j] : (float)infinity;
    all[i] = 0;  // it is 0 already unless the point has no feature, because a point and itself have the same rounding
    std::copy(all, all + set.places, rough);
    std::nth_element(rough, rough + k, rough + set.places);
    if (set.masked && rough[k] == (float)infinity) return infinity;
    // Every rough distance is off by at most the error of the screen.
    const double radius = std::sqrt((double)rough[k]) * (1 + 2 * set.relative) + set.error;
    // Finite rough squares are far below the largest float.
    const float most = std::min(set.possibly(radius * (1 + 1e-6) / set.scale), std::numeric_limits<float>::max());
    std::int32_t* list = buffers.list.data();
    std::int64_t size = 0;
    for (std::int64_t j = 0; j < set.places; ++j) {
        list[size] = (std::int32_t)j;
        size += all[j] <= most;
    }
    return kth_of_list(set, i, list, size, k, buffers.squares.data());
}

// The k-th distances of some rows, or of all if `rows` is null.
void kth_of_set(const Screen& set, std::int64_t k, const std::int64_t* rows, std::int64_t n_rows, double* distances,
                int threads) {
    Guard guard;
#pragma omp parallel num_threads(threads)
    {
        Buffers buffers;
#pragma omp for schedule(dynamic, 16)
        for (std::int64_t a = 0; a < n_rows; ++a)
            guard([&] { distances[a] = std::sqrt(kth_of_row(set, set.place(rows ? rows[a] : a), k, buffers)); });
    }
    guard.rethrow();
}

// The k-th distances of a set that is too small for a screen.
void kth_of_few(const Points& points, std::int64_t s, std::int64_t k, double* distances) {
    points.with_squares(s, [=, n = points.n](auto squared) {
        double squares[screened_from];
        for (std::int64_t i = 0; i < n; ++i) {
            for (std::int64_t j = 0; j < n; ++j) squares[j] = squared(i, j);
            squares[i] = -1;
            distances[i] = std::sqrt(kth_smallest(squares, n, k + 1));
        }
    });
}

void kth(const Points& points, std::int64_t k, double* distances, int threads) {
    const std::int64_t n = points.n;
    if (n < screened_from) {
#pragma omp parallel for num_threads(threads) schedule(static)
        for (std::int64_t s = 0; s < points.n_sets; ++s) kth_of_few(points, s, k, distances + s * n);
        return;
    }
    each_set(points, threads, [&](const Screen& set, std::int64_t s, int set_threads) {
        kth_of_set(set, k, nullptr, n, distances + s * n, set_threads);
    });
}

// Adds the pairs of rows i0 .. i0+R-1 with the later places up to last-1 to the counts of both places: `below` counts
// the places that surely lie nearer than `low`, and `within` those that may lie within `high`.
template <int R, class Metric>
inline void bracket_part(Metric metric, std::int64_t i0, std::int64_t first, std::int64_t last, float low, float high,
                         std::int32_t* below, std::int32_t* within) {
    typedef Vec<std::int32_t> Int;
    const Vec<float> least = splat<float>(low), most = splat<float>(high);
    Int row_below[R], row_within[R], lane;
    for (int l = 0; l < lanes<float>; ++l) lane[l] = l;
    for (int r = 0; r < R; ++r) row_below[r] = row_within[r] = Int{};
    for (std::int64_t j = first; j < last; j += lanes<float>) {
        Vec<float> squares[R];
        metric.template rough<R>(i0, j, squares);
        Int column_below = load<std::int32_t>(below + j), column_within = load<std::int32_t>(within + j);
        const bool edge = j < i0 + R || j + lanes<float> > last;
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            Int near = (Int)(squares[r] <= least), may = (Int)(squares[r] <= most);
            if (edge) {  // only pairs with later places of this part count
                const Int inside = (lane > (std::int32_t)(i0 + r - j)) & (lane < (std::int32_t)(last - j));
                near &= inside, may &= inside;
            }
            row_below[r] -= near, column_below -= near;
            row_within[r] -= may, column_within -= may;
        }
        store<std::int32_t>(below + j, column_below);
        store<std::int32_t>(within + j, column_within);
    }
    for (int r = 0; r < R; ++r)
        for (int l = 0; l < lanes<float>; ++l) below[i0 + r] += row_below[r][l], within[i0 + r] += row_within[r][l];
}

// The same for all later places.
template <int R>
void bracket_rows(const Screen& set, std::int64_t i0, float low, float high, std::int32_t* below,
                  std::int32_t* within) {
    const std::int64_t from = i0 / lanes<float> * lanes<float>;
    each_part(set, i0, from, [&](auto metric, std::int64_t first, std::int64_t last) {
        bracket_part<R>(metric, i0, first, last, low, high, below, within);
    });
}

// The same counts for all pairs of a set; those of a point are at the number of the point.
void bracket_set(const Screen& set, double low, double high, std::int64_t* below, std::int64_t* within, int threads) {
    const float least = set.surely(std::nextafter(low, 0.0)), most = set.possibly(high);
    const std::int64_t blocks = (set.places + rows_at_once - 1) / rows_at_once;
    Guard guard;
#pragma omp parallel num_threads(threads)
    {
        std::vector<std::int32_t> mine;
        guard([&] { mine.assign(2 * set.padded, 0); });
        std::int32_t *mine_below = mine.data(), *mine_within = mine_below + set.padded;
#pragma omp for schedule(dynamic, 4)
        for (std::int64_t b = 0; b < blocks; ++b)
            guard([&] {
                const std::int64_t i0 = b * rows_at_once, stop = std::min(set.places, i0 + rows_at_once);
                if (stop - i0 == rows_at_once)
                    return bracket_rows<rows_at_once>(set, i0, least, most, mine_below, mine_within);
                for (std::int64_t i = i0; i < stop; ++i) bracket_rows<1>(set, i, least, most, mine_below, mine_within);
            });
        guard([&] {
#pragma omp critical(mmphate_bracket)
            for (std::int64_t i = 0; i < set.n; ++i) {
                const std::int64_t place = set.place(i);
                below[i] += mine_below[place], within[i] += mine_within[place];
            }
        });
    }
    guard.rethrow();
}

// The k-th distances of some rows, all of which are at most `high`.
void kth_within(const Screen& set, std::int64_t k, double high, const std::vector<std::int64_t>& rows,
                double* distances, int threads) {
    const float most = set.possibly(high);
    Guard guard;
#pragma omp parallel num_threads(threads)
    {
        Buffers buffers;
#pragma omp for schedule(dynamic, 16)
        for (std::size_t a = 0; a < rows.size(); ++a)
            guard([&] {
                buffers.fit(set);
                std::int32_t* list = buffers.list.data();
                std::int64_t size = 0;
                const std::int64_t place = set.place(rows[a]);
                candidates<1>(set, place, most, &list, &size);
                distances[a] = std::sqrt(kth_of_list(set, place, list, size, k, buffers.squares.data()));
            });
    }
    guard.rethrow();
}

// The two middle ones of `total` values, from the n values that have the ranks offset .. offset+n-1.
struct Middle {
    double low, high;
    Middle(double* values, std::int64_t n, std::int64_t offset, std::int64_t total) {
        std::sort(values, values + n);
        low = values[(total - 1) / 2 - offset], high = values[total / 2 - offset];
    }
    double mean() const { return (low + high) / 2; }
};

inline double median_of_all(const Screen& set, std::int64_t k, std::vector<double>& distances, int threads) {
    kth_of_set(set, k, nullptr, set.n, distances.data(), threads);
    return Middle(distances.data(), set.n, 0, set.n).mean();
}

// The median over a set of the k-th distances. A sample of the points gives a bracket around the median. One pass over
// all pairs then finds the points surely below the bracket and those surely above. Only the distances of the others are
// computed.
double median_of_set(const Screen& set, std::int64_t k, std::int64_t sampled, int threads) {
    const std::int64_t n = set.n;
    std::vector<double> distances(n);
    if (n <= 4 * sampled) return median_of_all(set, k, distances, threads);
    std::vector<std::int64_t> rows(sampled);
    for (std::int64_t a = 0; a < sampled; ++a) rows[a] = (2 * a + 1) * n / (2 * sampled);
    kth_of_set(set, k, rows.data(), sampled, distances.data(), threads);
    std::sort(distances.begin(), distances.begin() + sampled);
    // Three standard deviations of the rank of the median in the sample: 1.5 sqrt(sampled).
    const std::int64_t spread = std::min(sampled / 2 - 1, (std::int64_t)(1.5 * std::sqrt((double)sampled)) + 1);
    const double low = distances[sampled / 2 - spread], high = distances[sampled / 2 + spread];
    std::vector<std::int64_t> below(n, 0), within(n, 0);
    bracket_set(set, low, high, below.data(), within.data(), threads);
    rows.clear();
    std::int64_t n_below = 0;
    for (std::int64_t i = 0; i < n; ++i) {
        if (below[i] >= k)
            ++n_below;
        else if (within[i] >= k)
            rows.push_back(i);
    }
    const bool holds = n_below <= (n - 1) / 2 && n_below + (std::int64_t)rows.size() > n / 2;
    if (!holds) return median_of_all(set, k, distances, threads);  // the bracket of the sample misses the median
    // A row that may have k neighbors within `high` may have fewer, so the radius is a little larger.
    kth_within(set, k, high * (1 + 1e-3) + 4 * set.error / set.scale, rows, distances.data(), threads);
    const Middle middle(distances.data(), (std::int64_t)rows.size(), n_below, n);
    // Within the bracket the ranks are exact, because the distances of all other points lie outside.
    return low <= middle.low && middle.high <= high ? middle.mean() : median_of_all(set, k, distances, threads);
}

}  // namespace MMP_ISA

// points (B, n, p), 1 <= k < n -> distances (B, n): from every point to its k-th nearest other point. Points may lack
// features, which are NaN, if they are `masked`. A distance is infinite if fewer than k others share a feature.
MMP_API int MMP_EXPORT(kth_neighbor_distance)(const double* points, std::int64_t n_sets, std::int64_t n, std::int64_t p,
                                              std::int64_t masked, std::int64_t k, double* distances, int threads) {
    using namespace MMP_ISA;
    return guarded([&] { return kth({points, n_sets, n, p, masked != 0}, k, distances, threads), 0; });
}

// -> medians (B,) of these distances over the points of each set. If n is even, a median is the mean of the middle two.
// `sampled` points give a bracket. The result does not depend on them.
MMP_API int MMP_EXPORT(median_kth_neighbor_distance)(const double* points, std::int64_t n_sets, std::int64_t n,
                                                     std::int64_t p, std::int64_t masked, std::int64_t k,
                                                     std::int64_t sampled, double* medians, int threads) {
    using namespace MMP_ISA;
    return guarded([&] {
        Screen set;
        for (std::int64_t s = 0; s < n_sets; ++s) {
            set.fill(points + s * n * p, n, p, masked != 0);
            medians[s] = median_of_set(set, k, sampled, threads);
        }
        return 0;
    });
}
