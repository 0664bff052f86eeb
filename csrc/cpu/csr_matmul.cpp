// A sparse matrix by rows times a thin dense one.
#include "simd.h"
#include <algorithm>
#include <vector>

namespace MMP_ISA {

constexpr std::int64_t block_rows = 64;
constexpr int tile = 8;  // vectors of accumulators held in registers

// Columns c .. c + V vectors of one row: out += sum of values[a] * rows[a][c ..].
template <int V, class T, class S>
inline void accumulate(const T* values, const S* const* rows, std::int64_t k, std::int64_t c, std::int64_t width, S* out) {
    Vec<S> sums[V];
    for (int v = 0; v < V; ++v) sums[v] = Vec<S>{};
    const std::int64_t lanes_left = width - c;
    if (lanes_left >= V * lanes<S>) {
        for (int v = 0; v < V; ++v) sums[v] = load<S>(out + c + v * lanes<S>);
    } else {
        for (std::int64_t l = 0; l < lanes_left; ++l) sums[l / lanes<S>][l % lanes<S>] = out[c + l];
    }
    for (std::int64_t a = 0; a < k; ++a) {
        const Vec<S> value = splat<S>((S)values[a]);
        for (int v = 0; v < V; ++v) sums[v] = fused(value, load<S>(rows[a] + c + v * lanes<S>), sums[v]);
    }
    if (lanes_left >= V * lanes<S>) {
        for (int v = 0; v < V; ++v) store<S>(out + c + v * lanes<S>, sums[v]);
    } else {
        for (std::int64_t l = 0; l < lanes_left; ++l) out[c + l] = sums[l / lanes<S>][l % lanes<S>];
    }
}

template <class T, class S>
inline void accumulate_row(const T* values, const S* const* rows, std::int64_t k, std::int64_t width, S* out) {
    std::int64_t c = 0;
    for (; width - c > (tile - 1) * lanes<S>; c += tile * lanes<S>) accumulate<tile>(values, rows, k, c, width, out);
    switch ((width - c + lanes<S> - 1) / lanes<S>) {
        case 1: return accumulate<1>(values, rows, k, c, width, out);
        case 2: return accumulate<2>(values, rows, k, c, width, out);
        case 3: return accumulate<3>(values, rows, k, c, width, out);
        case 4: return accumulate<4>(values, rows, k, c, width, out);
        case 5: return accumulate<5>(values, rows, k, c, width, out);
        case 6: return accumulate<6>(values, rows, k, c, width, out);
        case 7: return accumulate<7>(values, rows, k, c, width, out);
    }
}

// Rows that share a residue modulo `interleave` reach for the same columns: they go together, block by block, and walk
// over the columns band by band, so that the part of `block` in use stays in the second-level cache.
template <class I, class T, class S>
void matmul(const I* indptr, const I* indices, const T* values, const S* block, S* out, std::int64_t n_rows,
            std::int64_t n_columns, std::int64_t width, std::int64_t interleave, int threads) {
    const std::int64_t per_class = (n_rows + interleave - 1) / interleave;
    const std::int64_t blocks = (per_class + block_rows - 1) / block_rows;
    const std::int64_t band_rows = std::max<std::int64_t>(64, (1 << 19) / (std::int64_t)(width * sizeof(S) + 1));
    const std::int64_t band = band_rows * interleave;
    // Vectors at the end of a row reach past it; past the last row there is nothing to read.
    const std::int64_t overhang = tile * lanes<S>;
    const std::int64_t guarded_from = std::max<std::int64_t>(0, n_columns - overhang / std::max<std::int64_t>(1, width) - 2);
    std::vector<S> tail((n_columns - guarded_from) * width + overhang, S(0));
    std::copy(block + guarded_from * width, block + n_columns * width, tail.begin());
    auto row_block = [&](std::int64_t task, std::vector<const S*>& rows) {
        const std::int64_t first = task % blocks * block_rows, residue = task / blocks;
        const std::int64_t last = std::min(first + block_rows, per_class);
        auto row_of = [&](std::int64_t q) { return q * interleave + residue; };
        std::int64_t cursor[block_rows];
        for (std::int64_t q = first; q < last && row_of(q) < n_rows; ++q) {
            cursor[q - first] = indptr[row_of(q)];
            std::fill_n(out + row_of(q) * width, width, S(0));
        }
        for (std::int64_t stop = band; stop < n_columns + band; stop += band)
            for (std::int64_t q = first; q < last && row_of(q) < n_rows; ++q) {
                const std::int64_t from = cursor[q - first], end = indptr[row_of(q) + 1];
                std::int64_t to = from;
                rows.clear();
                for (; to < end && indices[to] < stop; ++to) {
                    const std::int64_t j = indices[to];
                    rows.push_back(j < guarded_from ? block + j * width : tail.data() + (j - guarded_from) * width);
                }
                cursor[q - first] = to;
                if (to > from) accumulate_row(values + from, rows.data(), to - from, width, out + row_of(q) * width);
            }
    };
    Guard guard;
#pragma omp parallel num_threads(threads)
    {
        std::vector<const S*> rows;
#pragma omp for schedule(dynamic, 1)
        for (std::int64_t task = 0; task < interleave * blocks; ++task) guard([&] { row_block(task, rows); });
    }
    guard.rethrow();
}

}  // namespace MMP_ISA

// out (n_rows, width) = matrix @ block; the indices of a row ascend; sums run along the row in the type of `block`.
// `interleave`: rows r and r + interleave have neighbouring columns (1: all rows alike). It changes no bit.
MMP_API int MMP_EXPORT(csr_matmul)(const void* indptr, const void* indices, int wide, const void* values, int is_float,
                                   const void* block, void* out, int block_is_float, std::int64_t n_rows,
                                   std::int64_t n_columns, std::int64_t width, std::int64_t interleave, int threads) {
    using namespace MMP_ISA;
    auto run = [&](auto* i, auto* v, auto* b) {
        typedef std::remove_const_t<std::remove_pointer_t<decltype(i)>> I;
        typedef std::remove_const_t<std::remove_pointer_t<decltype(b)>> S;
        matmul(i, static_cast<const I*>(indices), v, b, static_cast<S*>(out), n_rows, n_columns, width, interleave,
               threads);
        return 0;
    };
    auto by_block = [&](auto* i, auto* v) {
        return block_is_float ? run(i, v, static_cast<const float*>(block)) : run(i, v, static_cast<const double*>(block));
    };
    auto by_values = [&](auto* i) {
        return is_float ? by_block(i, static_cast<const float*>(values)) : by_block(i, static_cast<const double*>(values));
    };
    return guarded([&] {
        return wide ? by_values(static_cast<const std::int64_t*>(indptr)) : by_values(static_cast<const std::int32_t*>(indptr));
    });
}
