// Affinities within each set of a stack of points (B, n, p): radius_count counts the pairs within reach, radius_fill
// writes their affinities, and symmetrized_affinity has a bandwidth for each point.
#include "screen.h"

namespace MMP_ISA {

// Adds the pairs of two rows of the block to the counts of both.
inline void count_inside(const Screen& set, std::int64_t i0, std::int64_t rows, double limit, std::int32_t* counts) {
    for (std::int64_t a = i0; a < i0 + rows; ++a)
        for (std::int64_t b = a + 1; b < i0 + rows; ++b)
            if (set.squared(a, b) <= limit) ++counts[a], ++counts[b];
}

// Adds the pairs of rows i0 .. i0+R-1 with the places first .. last-1 to the counts of both.
template <int R, class Metric>
inline void count_part(Metric metric, std::int64_t i0, std::int64_t first, std::int64_t last, float surely,
                       float possibly, double limit, std::int32_t* counts) {
    typedef Vec<std::int32_t> Int;
    const Vec<float> least = splat<float>(surely), most = splat<float>(possibly);
    Int rows[R];
    for (int r = 0; r < R; ++r) rows[r] = Int{};
    for (std::int64_t j = first; j < last; j += lanes<float>) {
        Vec<float> squares[R];
        metric.template rough<R>(i0, j, squares);
        Int column = load<std::int32_t>(counts + j);
        Int inside = Int{} - 1;
        if (j + lanes<float> > last)
            for (int l = (int)(last - j); l < lanes<float>; ++l) inside[l] = 0;
        for (int r = 0; r < R; ++r) {
            Int near = (Int)(squares[r] <= least) & inside;
            unsigned doubt = bits_of(((Int)(squares[r] <= most) & inside) ^ near);
            for (; __builtin_expect(doubt != 0, 0); doubt &= doubt - 1) {
                const int l = __builtin_ctz(doubt);
                if (metric.set.squared(i0 + r, j + l) <= limit) near[l] = -1;
            }
            rows[r] -= near;
            column -= near;
        }
        store<std::int32_t>(counts + j, column);
    }
    for (int r = 0; r < R; ++r)
        for (int l = 0; l < lanes<float>; ++l) counts[i0 + r] += rows[r][l];
}

// Adds the pairs of rows i0 .. i0+R-1 with each other and with all later places to the counts of both.
template <int R>
void count_rows(const Screen& set, std::int64_t i0, float surely, float possibly, double limit, std::int32_t* counts) {
    count_inside(set, i0, R, limit, counts);
    each_part(set, i0, i0 + R, [&](auto metric, std::int64_t first, std::int64_t last) {
        count_part<R>(metric, i0, first, last, surely, possibly, limit, counts);
    });
}

inline void count_block(const Screen& set, std::int64_t block, float surely, float possibly, double limit,
                        std::int32_t* counts) {
    const std::int64_t i0 = block * rows_at_once;
    if (i0 + rows_at_once <= set.places) return count_rows<rows_at_once>(set, i0, surely, possibly, limit, counts);
    for (std::int64_t i = i0; i < set.places; ++i) count_rows<1>(set, i, surely, possibly, limit, counts);
}

// Adds the pairs of a set to counts[0 .. n-1]. Each thread has counts of its own, with room for whole registers.
void count_set(const Screen& set, double reach, std::int64_t* counts, int threads) {
    const double limit = mmp_squared_reach(reach);
    const float surely = set.surely(reach), possibly = set.possibly(reach);
    const std::int64_t blocks = (set.places + rows_at_once - 1) / rows_at_once;
    Guard guard;
#pragma omp parallel num_threads(threads)
    {
        std::vector<std::int32_t> mine;
        guard([&] { mine.assign(set.padded, 0); });
#pragma omp for schedule(dynamic, 4)
        for (std::int64_t b = 0; b < blocks; ++b)
            guard([&] { count_block(set, b, surely, possibly, limit, mine.data()); });
        guard([&] {
#pragma omp critical(mmphate_counts)
            for (std::int64_t i = 0; i < set.n; ++i) counts[i] += mine[set.place(i)];
        });
    }
    guard.rethrow();
}

void count(const Points& points, double reach, std::int64_t* counts, int threads) {
    std::fill(counts, counts + points.n_sets * points.n, 0);
    each_set(points, threads, [&](const Screen& set, std::int64_t s, int set_threads) {
        count_set(set, reach, counts + s * points.n, set_threads);
    });
}

// The affinity exp(-(distance / bandwidth)^decay), which is 0 beyond `reach`.
struct Kernel {
    double reach, bandwidth, decay;
};

// Where the entries of the points first .. last-1 of every set go. Rows and columns interleave the sets.
template <class I, class T> struct Target {
    std::int64_t n_sets, first, last;
    const std::int64_t* indptr;  // the first entry of every row, and the end of the last row
    const std::int64_t* gap;     // how many entries stay free between the columns before and after the point of the row
    std::int64_t* gap_at;        // output: the first of these entries
    I* indices;
    T* values;

    std::int64_t row(std::int64_t s, std::int64_t i) const { return (i - first) * n_sets + s; }
    I column(std::int64_t s, std::int64_t j) const { return (I)(j * n_sets + s); }
};

struct Scratch {
    std::vector<std::int32_t> list;
    std::vector<double> squares;
    PointOrder in_point_order;
    void fit(std::int64_t n) { list.resize((std::size_t)rows_at_once * n), squares.resize(n); }
};

// Replaces squared distances by affinities, with the bits of mmp_kernel. The loop over the bits of the decay is outside
// the loops over values, so that these vectorize. The values come in parts whose buffers fit the first-level cache.
inline void kernels(double* values, std::int64_t n, double bandwidth, double decay) {
    constexpr std::int64_t at_once = 256;
    double power[at_once], square[at_once];
    const int whole = mmp_whole_decay(decay);
    for (std::int64_t begin = 0; begin < n; begin += at_once, values += at_once) {
        const std::int64_t k = std::min(at_once, n - begin);
#pragma omp simd
        for (std::int64_t a = 0; a < k; ++a) square[a] = std::sqrt(values[a]) / bandwidth, power[a] = 1;
        if (whole == 0)
            for (std::int64_t a = 0; a < k; ++a) power[a] = mmp_decay_power(square[a], decay);
        for (int left = whole; left; left /= 2) {
            if (left % 2)
#pragma omp simd
                for (std::int64_t a = 0; a < k; ++a) power[a] = power[a] * square[a];
#pragma omp simd
            for (std::int64_t a = 0; a < k; ++a) square[a] = square[a] * square[a];
        }
#pragma omp simd
        for (std::int64_t a = 0; a < k; ++a) values[a] = mmp_exp_nonpositive(-power[a]);
    }
}

// The affinities of place i with the listed places. It removes the places beyond the limit and place i from the list,
// and returns how many remain.
inline std::int64_t affinities(const Screen& set, std::int64_t i, std::int32_t* list, std::int64_t k, double limit,
                               const Kernel& kernel, double* values) {
    exact_squares(set, i, list, k, values);
    const std::int64_t self = std::lower_bound(list, list + k, i) - list;
    std::int64_t beyond = 0, kept = 0;
#pragma omp simd reduction(+ : beyond)
    for (std::int64_t a = 0; a < k; ++a) beyond += !(values[a] <= limit);
    // This is the usual case, because the screen leaves about one pair in a million in doubt.
    if (beyond == 0 && self < k && list[self] == i) {
        std::copy(list + self + 1, list + k, list + self);
        std::copy(values + self + 1, values + k, values + self);
        kept = k - 1;
    } else {
        for (std::int64_t a = 0; a < k; ++a) {
            list[kept] = list[a];
            values[kept] = values[a];
            kept += values[a] <= limit && list[a] != i;
        }
    }
    kernels(values, kept, kernel.bandwidth, kernel.decay);
    return kept;
}

// Writes the row of point i of set s from a list of points. False if the row has no room for exactly k entries and its
// gap.
template <class I, class T>
bool write_row(const Target<I, T>& target, std::int64_t s, std::int64_t i, const std::int32_t* list, std::int64_t k,
               const double* values) {
    const std::int64_t row = target.row(s, i), gap = target.gap[row];
    std::int64_t at = target.indptr[row], a = 0;
    if (target.indptr[row + 1] - at != k + gap) return false;
    for (; a < k && list[a] < i; ++a, ++at) {
        target.indices[at] = target.column(s, list[a]);
        target.values[at] = (T)values[a];
    }
    target.gap_at[row] = at;
    for (at += gap; a < k; ++a, ++at) {
        target.indices[at] = target.column(s, list[a]);
        target.values[at] = (T)values[a];
    }
    return true;
}

// Fills the rows of the places i0 .. i0+R-1 of set s. False if one of them has no room for exactly its entries.
template <int R, class I, class T>
bool fill_rows(const Screen& set, std::int64_t s, std::int64_t i0, double limit, const Kernel& kernel,
               const Target<I, T>& target, Scratch& scratch) {
    std::int32_t* lists[R];
    std::int64_t sizes[R];
    for (int r = 0; r < R; ++r) lists[r] = scratch.list.data() + (std::size_t)r * set.padded, sizes[r] = 0;
    candidates<R>(set, i0, set.possibly(kernel.reach), lists, sizes);
    bool agreed = true;
    for (int r = 0; r < R; ++r) {
        double* values = scratch.squares.data();
        const std::int64_t kept = affinities(set, i0 + r, lists[r], sizes[r], limit, kernel, values);
        scratch.in_point_order(set, lists[r], kept, values);
        agreed &= write_row(target, s, set.point(i0 + r), lists[r], kept, values);
    }
    return agreed;
}

// Fills the rows of a block.
template <class I, class T>
bool fill_block(const Screen& set, std::int64_t s, Block block, double limit, const Kernel& kernel,
                const Target<I, T>& target, Scratch& scratch) {
    scratch.fit(set.padded);
    if (block.last - block.first == rows_at_once)
        return fill_rows<rows_at_once>(set, s, block.first, limit, kernel, target, scratch);
    bool agreed = true;
    for (std::int64_t i = block.first; i < block.last; ++i)
        agreed &= fill_rows<1>(set, s, i, limit, kernel, target, scratch);
    return agreed;
}

// 3 if a row does not have the entries it was counted to have, else 0.
template <class I, class T>
int fill(const Points& points, const Kernel& kernel, const Target<I, T>& target, int threads) {
    const double limit = mmp_squared_reach(kernel.reach);
    std::atomic<int> status{0};
    Guard guard;
    auto fill_one = [&](const Screen& set, std::int64_t s, Block block, Scratch& scratch) {
        if (!fill_block(set, s, block, limit, kernel, target, scratch)) status = 3;
    };
    if (points.n >= shared_from) {
        Screen set;
        for (std::int64_t s = 0; s < target.n_sets; ++s) {
            points.fill(set, s);
            const std::vector<Block> blocks = blocks_of(set, target.first, target.last);
#pragma omp parallel num_threads(threads)
            {
                Scratch scratch;
#pragma omp for schedule(dynamic, 4)
                for (std::size_t b = 0; b < blocks.size(); ++b) guard([&] { fill_one(set, s, blocks[b], scratch); });
            }
            guard.rethrow();
        }
        return status;
    }
    // This is no call of each_set, because the small sets of a thread share one Scratch.
#pragma omp parallel num_threads(threads)
    {
        Screen set;
        Scratch scratch;
#pragma omp for schedule(static)
        for (std::int64_t s = 0; s < target.n_sets; ++s)
            guard([&] {
                points.fill(set, s);
                for (Block block : blocks_of(set, target.first, target.last)) fill_one(set, s, block, scratch);
            });
    }
    guard.rethrow();
    return status;
}

// The symmetrized affinity of two points; 0 if they have no entry.
inline double symmetrized_value(double square, double bandwidth_i, double bandwidth_j, double decay, double thresh,
                                double smallest, double cut) {
    const double distance = std::sqrt(square);
    if (distance > cut * std::max(bandwidth_i, bandwidth_j)) return 0;
    return mmp_symmetrized_kernel(distance, bandwidth_i, bandwidth_j, decay, thresh, smallest);
}

// Calls take(i, j, value) for all entries of one set with a bandwidth for each point, row by row, the diagonal
// included.
template <class Take>
void symmetrized_set(const Screen& set, const double* bandwidth, double decay, double thresh, double smallest,
                     double cut, Scratch& scratch, Take take) {
    const float possibly = set.possibly(cut * *std::max_element(bandwidth, bandwidth + set.n));
    double* squares = scratch.squares.data();
    for (std::int64_t i = 0; i < set.n; ++i) {
        std::int32_t* list = scratch.list.data();
        std::int64_t size = 0;
        candidates<1>(set, set.place(i), possibly, &list, &size);
        exact_squares(set, set.place(i), list, size, squares);
        scratch.in_point_order(set, list, size, squares);
        for (std::int64_t a = 0; a < size; ++a) {
            const double width = bandwidth[list[a]];
            const double value = symmetrized_value(squares[a], bandwidth[i], width, decay, thresh, smallest, cut);
            if (value > 0) take(i, list[a], value);
        }
    }
}

// The same for a set that is too small for a screen.
template <class Take>
void symmetrized_few(const Points& points, std::int64_t s, const double* bandwidth, double decay, double thresh,
                     double smallest, double cut, Take take) {
    points.with_squares(s, [=, n = points.n](auto squared) {
        for (std::int64_t i = 0; i < n; ++i)
            for (std::int64_t j = 0; j < n; ++j) {
                const double square = squared(i, j);
                const double value =
                    symmetrized_value(square, bandwidth[i], bandwidth[j], decay, thresh, smallest, cut);
                if (value > 0) take(i, j, value);
            }
    });
}

template <class I, class T>
void symmetrized(const Points& points, const double* bandwidth, double decay, double thresh, double smallest,
                 double cut, const std::int64_t* indptr, std::int64_t* counts, I* indices, T* values, int threads) {
    const std::int64_t n = points.n;
    Guard guard;
#pragma omp parallel num_threads(threads)
    {
        Screen set;
        Scratch scratch;
        std::vector<std::int64_t> at;
#pragma omp for schedule(dynamic, 16)
        for (std::int64_t s = 0; s < points.n_sets; ++s)
            guard([&] {
                auto take = [&](std::int64_t i, std::int64_t j, double value) {
                    if (indptr) indices[at[i]] = (I)j, values[at[i]] = (T)value;
                    ++at[i];
                };
                at.resize(n);
                for (std::int64_t i = 0; i < n; ++i) at[i] = indptr ? indptr[s * n + i] : 0;
                const double* widths = bandwidth + s * n;
                if (n < screened_from) {
                    symmetrized_few(points, s, widths, decay, thresh, smallest, cut, take);
                } else {
                    points.fill(set, s);
                    scratch.fit(set.padded);
                    symmetrized_set(set, widths, decay, thresh, smallest, cut, scratch, take);
                }
                for (std::int64_t i = 0; counts && i < n; ++i) counts[s * n + i] = at[i];
            });
    }
    guard.rethrow();
}

// Calls run(indices, values) with pointers of the right types.
template <class Run> int by_storage(void* indices, int wide, void* values, int is_float, Run run) {
    auto by_values = [&](auto* i) {
        return is_float ? run(i, static_cast<float*>(values)) : run(i, static_cast<double*>(values));
    };
    return wide ? by_values(static_cast<std::int64_t*>(indices)) : by_values(static_cast<std::int32_t*>(indices));
}

}  // namespace MMP_ISA

// points (B, n, p) -> counts (B, n): how many other points of its set lie within `reach` of each point. Points may lack
// features, which are NaN, if they are `masked`.
MMP_API int MMP_EXPORT(radius_count)(const double* points, std::int64_t n_sets, std::int64_t n, std::int64_t p,
                                     std::int64_t masked, double reach, std::int64_t* counts, int threads) {
    using namespace MMP_ISA;
    return guarded([&] { return count({points, n_sets, n, p, masked != 0}, reach, counts, threads), 0; });
}

// It writes the entries that radius_count counted, for the points first .. last-1 of every set.
//
// Sets are interleaved: point i of set s has the matrix row (i - first) * n_sets + s, and its pair with point j has the
// column j * n_sets + s. A row has the entries from indptr[row] up to indptr[row + 1]. gap[row] of them are left free
// after the columns below that of point i; gap_at[row] becomes the first of these. The status is 3 if a row has more or
// fewer pairs than its entries without the gap.
MMP_API int MMP_EXPORT(radius_fill)(const double* points, std::int64_t n_sets, std::int64_t n, std::int64_t p,
                                    std::int64_t masked, std::int64_t first, std::int64_t last, double reach,
                                    double bandwidth, double decay, const std::int64_t* indptr, const std::int64_t* gap,
                                    std::int64_t* gap_at, void* indices, int wide, void* values, int is_float,
                                    int threads) {
    using namespace MMP_ISA;
    auto run = [&](auto* i, auto* v) {
        typedef std::remove_pointer_t<decltype(i)> I;
        typedef std::remove_pointer_t<decltype(v)> T;
        const Target<I, T> target{n_sets, first, last, indptr, gap, gap_at, i, v};
        return fill({points, n_sets, n, p, masked != 0}, Kernel{reach, bandwidth, decay}, target, threads);
    };
    return guarded([&] { return by_storage(indices, wide, values, is_float, run); });
}

// bandwidth (B, n): each point has its own. The diagonal is included. A pair farther apart than `cut` times its larger
// bandwidth has no entry. If indptr is null, only counts are written; if counts is null, only indices and values.
MMP_API int MMP_EXPORT(symmetrized_affinity)(const double* points, const double* bandwidth, std::int64_t n_sets,
                                             std::int64_t n, std::int64_t p, std::int64_t masked, double decay,
                                             double thresh, double smallest, double cut, const std::int64_t* indptr,
                                             std::int64_t* counts, void* indices, int wide, void* values, int is_float,
                                             int threads) {
    using namespace MMP_ISA;
    auto run = [&](auto* i, auto* v) {
        const Points stack{points, n_sets, n, p, masked != 0};
        symmetrized(stack, bandwidth, decay, thresh, smallest, cut, indptr, counts, i, v, threads);
        return 0;
    };
    return guarded([&] { return by_storage(indices, wide, values, is_float, run); });
}
