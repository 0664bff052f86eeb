// Distance to the k-th nearest other point of the same set: of every point, or the median over a set.
#include "screen.h"

namespace MMP_ISA {

constexpr int rows_at_once = 8;

struct Buffers {
    std::vector<std::int32_t> list;
    std::vector<double> squares;
    std::vector<float> rough;
    void fit(const Screen& set) { list.resize(set.padded), squares.resize(set.padded), rough.resize(2 * set.padded); }
};

// k-th smallest (from 1) of k entries or more.
inline double kth_smallest(double* values, std::int64_t n, std::int64_t k) {
    std::nth_element(values, values + (k - 1), values + n);
    return values[k - 1];
}

// Squared distance of point i to its k-th nearest other point, given a list that holds these k and i itself.
inline double kth_of_list(const Screen& set, std::int64_t i, const std::int32_t* list, std::int64_t found,
                          std::int64_t k, double* squares) {
    exact_squares(set, i, list, found, squares);
    for (std::int64_t a = 0; a < found; ++a)
        if (list[a] == i) squares[a] = -1;  // the point itself comes first, whatever its duplicates
    return kth_smallest(squares, found, k + 1);
}

// Of all points: the rough squares give a radius that surely holds k others, and the exact ones of those inside decide.
inline double kth_of_row(const Screen& set, std::int64_t i, std::int64_t k, Buffers& buffers) {
    buffers.fit(set);
    float* rough = buffers.rough.data();
    for (std::int64_t j = 0; j < set.n; j += lanes<float>) {
        Vec<float> squares[1];
        rough_squares<1>(set, i, j, squares);
        store<float>(rough + set.padded + j, squares[0]);
    }
    float* all = rough + set.padded;
    all[i] = 0;  // rough distances carry the same rounding on both sides, so the own one is 0 anyway
    std::copy(all, all + set.n, rough);
    std::nth_element(rough, rough + k, rough + set.n);
    // The k-th rough distance is off by at most the screen's error, and so is every other.
    const double radius = std::sqrt((double)rough[k]) * (1 + 2 * set.relative) + set.error;
    const float most = set.possibly(radius * (1 + 1e-6) / set.scale);
    std::int32_t* list = buffers.list.data();
    std::int64_t found = 0;
    for (std::int64_t j = 0; j < set.n; ++j) {
        list[found] = (std::int32_t)j;
        found += all[j] <= most;
    }
    return kth_of_list(set, i, list, found, k, buffers.squares.data());
}

void kth_of_set(const Screen& set, std::int64_t k, const std::int64_t* rows, std::int64_t n_rows, double* distances,
                int threads) {
    Guard guard;
#pragma omp parallel num_threads(threads)
    {
        Buffers buffers;
#pragma omp for schedule(dynamic, 16)
        for (std::int64_t a = 0; a < n_rows; ++a)
            guard([&] { distances[a] = std::sqrt(kth_of_row(set, rows ? rows[a] : a, k, buffers)); });
    }
    guard.rethrow();
}

// Sets too small to be worth a screen.
void kth_of_few(const double* points, std::int64_t n, std::int64_t p, std::int64_t k, double* distances) {
    double squares[screened_from];
    for (std::int64_t i = 0; i < n; ++i) {
        for (std::int64_t j = 0; j < n; ++j) squares[j] = mmp_squared_distance(points + i * p, 1, points + j * p, 1, p);
        squares[i] = -1;
        distances[i] = std::sqrt(kth_smallest(squares, n, k + 1));
    }
}

void kth(const double* points, std::int64_t n_sets, std::int64_t n, std::int64_t p, std::int64_t k, double* distances,
         int threads) {
    if (n < screened_from) {
#pragma omp parallel for num_threads(threads) schedule(static)
        for (std::int64_t s = 0; s < n_sets; ++s) kth_of_few(points + s * n * p, n, p, k, distances + s * n);
        return;
    }
    each_set(points, n_sets, n, p, threads, [&](const Screen& set, std::int64_t s, int own_threads) {
        kth_of_set(set, k, nullptr, n, distances + s * n, own_threads);
    });
}

// How many points surely lie nearer than `low`, and how many may lie within `high`, of rows i0 .. i0+R-1 and, each pair
// once, of all later points.
template <int R>
void bracket_rows(const Screen& set, std::int64_t i0, float low, float high, std::int32_t* below,
                  std::int32_t* within) {
    typedef Vec<std::int32_t> Int;
    const Vec<float> least = splat<float>(low), most = splat<float>(high);
    Int own_below[R], own_within[R];
    for (int r = 0; r < R; ++r) own_below[r] = own_within[r] = Int{};
    for (std::int64_t j = i0 / lanes<float> * lanes<float>; j < set.n; j += lanes<float>) {
        Vec<float> squares[R];
        rough_squares<R>(set, i0, j, squares);
        Int column_below = load<std::int32_t>(below + j), column_within = load<std::int32_t>(within + j);
        const bool edge = j < i0 + R || j + lanes<float> > set.n;
        for (int r = 0; r < R; ++r) {
            Int near = (Int)(squares[r] <= least), may = (Int)(squares[r] <= most);
            if (edge)  // pairs with later points of the set only
                for (int l = 0; l < lanes<float>; ++l)
                    if (j + l <= i0 + r || j + l >= set.n) near[l] = may[l] = 0;
            own_below[r] -= near, column_below -= near;
            own_within[r] -= may, column_within -= may;
        }
        store<std::int32_t>(below + j, column_below);
        store<std::int32_t>(within + j, column_within);
    }
    for (int r = 0; r < R; ++r)
        for (int l = 0; l < lanes<float>; ++l) below[i0 + r] += own_below[r][l], within[i0 + r] += own_within[r][l];
}

void bracket_set(const Screen& set, double low, double high, std::int64_t* below, std::int64_t* within, int threads) {
    const float least = set.surely(std::nextafter(low, 0.0)), most = set.possibly(high);
    const std::int64_t blocks = (set.n + rows_at_once - 1) / rows_at_once;
    Guard guard;
#pragma omp parallel num_threads(threads)
    {
        std::vector<std::int32_t> mine;
        guard([&] { mine.assign(2 * set.padded, 0); });
        std::int32_t *mine_below = mine.data(), *mine_within = mine_below + set.padded;
#pragma omp for schedule(dynamic, 4)
        for (std::int64_t b = 0; b < blocks; ++b)
            guard([&] {
                const std::int64_t i0 = b * rows_at_once, stop = std::min(set.n, i0 + rows_at_once);
                if (stop - i0 == rows_at_once)
                    return bracket_rows<rows_at_once>(set, i0, least, most, mine_below, mine_within);
                for (std::int64_t i = i0; i < stop; ++i) bracket_rows<1>(set, i, least, most, mine_below, mine_within);
            });
        guard([&] {
#pragma omp critical(mmphate_bracket)
            for (std::int64_t i = 0; i < set.n; ++i) below[i] += mine_below[i], within[i] += mine_within[i];
        });
    }
    guard.rethrow();
}

// The k-th distances of the rows named, each known to be at most `high`.
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
                std::int64_t found = 0;
                candidates<1>(set, rows[a], 0, set.n, most, &list, &found);
                distances[a] = std::sqrt(kth_of_list(set, rows[a], list, found, k, buffers.squares.data()));
            });
    }
    guard.rethrow();
}

// The middle two of `total` values, of which these n hold ranks offset .. offset+n-1.
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

// Median over a set of the k-th distances. A sample brackets it; one pass over all pairs tells the points surely below
// the bracket from those surely above; only those between are computed.
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
    if (!holds) return median_of_all(set, k, distances, threads);  // the sample misled
    // A row that may have k neighbours within `high` may also fall just short of it: look a little further.
    kth_within(set, k, high * (1 + 1e-3) + 4 * set.error / set.scale, rows, distances.data(), threads);
    const Middle found(distances.data(), (std::int64_t)rows.size(), n_below, n);
    // Within the bracket ranks are exact: all others lie outside it, on their side.
    return low <= found.low && found.high <= high ? found.mean() : median_of_all(set, k, distances, threads);
}

}  // namespace MMP_ISA

// distances (n_sets, n): of every point to its k-th nearest other point; points (n_sets, n, p), 1 <= k < n.
MMP_API int MMP_EXPORT(kth_neighbor_distance)(const double* points, std::int64_t n_sets, std::int64_t n, std::int64_t p,
                                              std::int64_t k, double* distances, int threads) {
    using namespace MMP_ISA;
    return guarded([&] { return kth(points, n_sets, n, p, k, distances, threads), 0; });
}

// medians (n_sets,): over the points of each set, of that distance; where n is even the mean of the middle two.
// `sampled` points bracket it; the result does not depend on them.
MMP_API int MMP_EXPORT(median_kth_neighbor_distance)(const double* points, std::int64_t n_sets, std::int64_t n,
                                                     std::int64_t p, std::int64_t k, std::int64_t sampled,
                                                     double* medians, int threads) {
    using namespace MMP_ISA;
    return guarded([&] {
        Screen set;
        for (std::int64_t s = 0; s < n_sets; ++s) {
            set.fill(points + s * n * p, n, p);
            medians[s] = median_of_set(set, k, sampled, threads);
        }
        return 0;
    });
}
