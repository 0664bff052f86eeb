// One SMACOF sweep: the stress at the points and their update together. Each pair is computed once for both its points.
#include "simd.h"
#include <algorithm>
#include <vector>

namespace MMP_ISA {

// Row blocks are divided into a fixed number of groups. Each group has its own column sums, which are added in order at
// the end, so the bits do not depend on the number of threads. Up to this many threads work at once.
constexpr int groups = 16;
// How many rows are computed together. Their sums stay in registers.
template <int C> constexpr int block_rows = C <= 4 ? 4 : 2;

// The weight of a pair in the Guttman transform: D_ij / d_ij, or 0 if the points lie `together`.
inline double ratio_of(double wanted, double between, double together) {
    return between > together ? wanted / between : 0.0;
}

// The pairs of rows i0 .. i0+R-1 with the columns from i0 on. Pairs of two of these rows come last, one by one.
template <class T, int C, int R>
void block_sweep(const T* distances, const T* points, std::int64_t n, std::int64_t padded, std::int64_t i0, T together,
                 double* row_sums, T* column_sums, double& raw) {
    constexpr int W = lanes<T>;
    typedef Vec<T> V;
    V row_points[R][C], sums[R][C], squares = V{};
    for (int r = 0; r < R; ++r)
        for (int c = 0; c < C; ++c) {
            row_points[r][c] = splat<T>(points[c * padded + i0 + r]);
            sums[r][c] = V{};
        }
    const V least = splat<T>(together);
    const std::int64_t first = i0 + R;
    auto pairs = [&](int r, V wanted, const V* x, V* columns) {
        V apart[C], squared = V{};
        for (int c = 0; c < C; ++c) {
            apart[c] = x[c] - row_points[r][c];
            squared = fused(apart[c], apart[c], squared);
        }
        const V between = square_root(squared);
        const V residual = wanted - between;
        squares = fused(residual, residual, squares);
        const V quotient = wanted / between;
        const V ratio = between > least ? quotient : V{};
        for (int c = 0; c < C; ++c) {
            sums[r][c] = fused(ratio, apart[c], sums[r][c]);
            columns[c] = fused(ratio, apart[c], columns[c]);
        }
    };
    // The next rows are prefetched meanwhile, because a row is too short for the prefetcher of the processor.
    const std::int64_t next = std::min(i0 + groups * R, n - R);
    std::int64_t j = first;
    for (; j + W <= n; j += W) {
        V x[C], columns[C];
        for (int c = 0; c < C; ++c) {
            x[c] = load<T>(points + c * padded + j);
            columns[c] = load<T>(column_sums + c * padded + j);
        }
        for (int r = 0; r < R; ++r) {
            __builtin_prefetch(distances + (next + r) * n + j);
            pairs(r, load<T>(distances + (i0 + r) * n + j), x, columns);
        }
        for (int c = 0; c < C; ++c) store<T>(column_sums + c * padded + j, columns[c]);
    }
    if (j < n) {  // the last columns; further lanes repeat the point of the row, whose distance and `wanted` are 0
        V x[C], columns[C];
        for (int c = 0; c < C; ++c) columns[c] = load<T>(column_sums + c * padded + j);
        for (int r = 0; r < R; ++r) {
            V wanted = V{};
            for (int c = 0; c < C; ++c) x[c] = row_points[r][c];
            for (int l = 0; j + l < n; ++l) {
                wanted[l] = distances[(i0 + r) * n + j + l];
                for (int c = 0; c < C; ++c) x[c][l] = points[c * padded + j + l];
            }
            pairs(r, wanted, x, columns);
        }
        for (int c = 0; c < C; ++c) store<T>(column_sums + c * padded + j, columns[c]);
    }
    const double both_ends = sum_of_lanes(squares);
    for (int r = 0; r < R; ++r)
        for (int c = 0; c < C; ++c) row_sums[(i0 + r) * C + c] = -sum_of_lanes(sums[r][c]);
    double inside = 0;
    for (int r = 0; r < R; ++r)
        for (int s = r + 1; s < R; ++s) {
            const std::int64_t a = i0 + r, b = i0 + s;
            double apart[C], squared = 0;
            for (int c = 0; c < C; ++c) {
                apart[c] = (double)points[c * padded + b] - (double)points[c * padded + a];
                squared += apart[c] * apart[c];
            }
            const double between = std::sqrt(squared), wanted = (double)distances[a * n + b];
            inside += (wanted - between) * (wanted - between);
            const double ratio = ratio_of(wanted, between, (double)together);
            for (int c = 0; c < C; ++c) {
                row_sums[a * C + c] -= ratio * apart[c];
                row_sums[b * C + c] += ratio * apart[c];
            }
        }
    raw += 2 * (both_ends + inside);
}

template <class T, int C>
void sweep(const T* distances, const double* points, double* moved, double* raw, std::int64_t n, double together,
           int threads) {
    constexpr std::int64_t W = lanes<T>;
    const std::int64_t padded = ceil_to(n, W) + W, blocks = n / block_rows<C>, left = blocks * block_rows<C>;
    std::vector<T> by_axis((C)*padded, T(0));
    for (std::int64_t i = 0; i < n; ++i)
        for (int c = 0; c < C; ++c) by_axis[c * padded + i] = (T)points[i * C + c];
    std::vector<double> row_sums(n * C, 0.0), group_raw(groups + 1, 0.0);
    std::vector<T> column_sums((std::size_t)groups * C * padded, T(0));
    const T* x = by_axis.data();
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int g = 0; g < groups; ++g) {
        T* columns = column_sums.data() + (std::size_t)g * C * padded;
        for (std::int64_t b = g; b < blocks; b += groups)
            block_sweep<T, C, block_rows<C>>(distances, x, n, padded, b * block_rows<C>, (T)together, row_sums.data(),
                                             columns, group_raw[g]);
    }
    for (std::int64_t i = left; i < n; ++i)
        block_sweep<T, C, 1>(distances, x, n, padded, i, (T)together, row_sums.data(), column_sums.data(),
                             group_raw[groups]);
#pragma omp parallel for num_threads(threads)
    for (std::int64_t i = 0; i < n; ++i)
        for (int c = 0; c < C; ++c) {
            double sum = row_sums[i * C + c];
            for (int g = 0; g < groups; ++g) sum += (double)column_sums[((std::size_t)g * C + c) * padded + i];
            moved[i * C + c] = sum / (double)n;
        }
    *raw = 0;
    for (int g = 0; g <= groups; ++g) *raw += group_raw[g];
}

// The sweep for any number of components. Each row is computed by itself, over all columns.
template <class T>
void sweep_of_any(const T* distances, const double* points, double* moved, double* raw, std::int64_t n, std::int64_t C,
                  double together, int threads) {
    constexpr std::int64_t W = lanes<T>;
    const std::int64_t padded = ceil_to(n, W);
    std::vector<T> by_axis(C * padded, T(0));
    for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t c = 0; c < C; ++c) by_axis[c * padded + i] = (T)points[i * C + c];
    std::vector<double> squares(n, 0.0);
    const T* x = by_axis.data();
    Guard guard;
#pragma omp parallel num_threads(threads)
    {
        std::vector<Vec<T>> sums, apart;
#pragma omp for schedule(static)
        for (std::int64_t i = 0; i < n; ++i)
            guard([&] {
                sums.assign(C, Vec<T>{});
                apart.resize(C);
                Vec<T> row_squares = Vec<T>{};
                for (std::int64_t j = 0; j < n; j += W) {
                    Vec<T> wanted = Vec<T>{}, squared = Vec<T>{};
                    if (j + W <= n)
                        wanted = load<T>(distances + i * n + j);
                    else
                        for (std::int64_t l = 0; j + l < n; ++l) wanted[l] = distances[i * n + j + l];
                    for (std::int64_t c = 0; c < C; ++c) {
                        apart[c] = load<T>(x + c * padded + j) - splat<T>(x[c * padded + i]);
                        squared = fused(apart[c], apart[c], squared);
                    }
                    for (std::int64_t l = n - j; l < W; ++l)
                        squared[l] = 0;  // beyond the last column, where `wanted` is 0 too
                    const Vec<T> between = square_root(squared), residual = wanted - between;
                    row_squares = fused(residual, residual, row_squares);
                    const Vec<T> quotient = wanted / between;
                    const Vec<T> ratio = between > splat<T>((T)together) ? quotient : Vec<T>{};
                    for (std::int64_t c = 0; c < C; ++c) sums[c] = fused(ratio, apart[c], sums[c]);
                }
                squares[i] = sum_of_lanes(row_squares);
                for (std::int64_t c = 0; c < C; ++c) moved[i * C + c] = -sum_of_lanes(sums[c]) / (double)n;
            });
    }
    guard.rethrow();
    *raw = 0;
    for (std::int64_t i = 0; i < n; ++i) *raw += squares[i];
}

template <class T>
void by_dimension(std::int64_t n_components, const T* distances, const double* points, double* moved, double* raw,
                  std::int64_t n, double together, int threads) {
    switch (n_components) {
        case 1:
            return sweep<T, 1>(distances, points, moved, raw, n, together, threads);
        case 2:
            return sweep<T, 2>(distances, points, moved, raw, n, together, threads);
        case 3:
            return sweep<T, 3>(distances, points, moved, raw, n, together, threads);
        case 4:
            return sweep<T, 4>(distances, points, moved, raw, n, together, threads);
        case 5:
            return sweep<T, 5>(distances, points, moved, raw, n, together, threads);
        case 6:
            return sweep<T, 6>(distances, points, moved, raw, n, together, threads);
        case 7:
            return sweep<T, 7>(distances, points, moved, raw, n, together, threads);
        case 8:
            return sweep<T, 8>(distances, points, moved, raw, n, together, threads);
        case 9:
            return sweep<T, 9>(distances, points, moved, raw, n, together, threads);
        case 10:
            return sweep<T, 10>(distances, points, moved, raw, n, together, threads);
        default:
            return sweep_of_any<T>(distances, points, moved, raw, n, n_components, together, threads);
    }
}

}  // namespace MMP_ISA

// distances (n, n) float32 or float64, symmetric, of which the upper triangle is read; points (n, C) float64, centered.
// C = n_components. Points no farther apart than `together` do not pull each other.
// -> moved (n, C), raw: the sum over ordered pairs of (wanted - distance)^2 at `points`.
MMP_API int MMP_EXPORT(guttman_transform)(const void* distances, int is_float, const double* points, double* moved,
                                          double* raw, std::int64_t n, std::int64_t n_components, double together,
                                          int threads) {
    using namespace MMP_ISA;
    return guarded([&] {
        auto run = [&](auto* wanted) {
            by_dimension(n_components, wanted, points, moved, raw, n, together, threads);
            return 0;
        };
        return is_float ? run(static_cast<const float*>(distances)) : run(static_cast<const double*>(distances));
    });
}
