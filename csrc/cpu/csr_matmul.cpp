// A CSR matrix times a dense block of few columns.
#include "simd.h"
#include <algorithm>
#include <vector>

namespace MMP_ISA {

constexpr std::int64_t block_rows = 64;
constexpr int tile = 8;  // vectors of sums in registers
// Neighboring rows have most columns in common. So this many rows are multiplied together, and fetch each row of
// `block` once.
constexpr int together = MMP_BYTES == 64 ? 8 : 4;
constexpr int narrow_tile = 3;  // vectors of sums in registers for each of these rows
// Rows that are multiplied together also multiply entries that are 0 in some of them. This pays from a certain share of
// entries that are not 0. Narrow registers raise this share: the multiplications take longer, and the fetch of a row of
// `block` does not. More vectors in a row lower it: they save more, and gathering the entries costs the same.
inline double full_enough(std::int64_t vectors) {
    return (MMP_BYTES == 64 ? 0.2 : MMP_BYTES == 32 ? 0.6 : 0.85) + 1.0 / (double)vectors;
}
// A band has at most this many columns. Every thread has memory for all their entries in `together` rows, twice.
constexpr std::int64_t widest_band = 1 << 16;
// If a row has at most this many vectors, gathering the entries costs more than it saves.
constexpr int widest_alone = 2;

// Adds to V vectors of R rows, from column c on: sums[r * stride + c ..] += sum over a of values[a * R + r] *
// rows[a][c ..].
template <int V, int R, class T, class S>
inline void accumulate(const T* values, const S* const* rows, std::int64_t k, std::int64_t c, S* sums,
                       std::int64_t stride) {
    Vec<S> accumulators[R][V];
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v) accumulators[r][v] = load<S>(sums + r * stride + c + v * lanes<S>);
    for (std::int64_t a = 0; a < k; ++a) {
        const S* row = rows[a] + c;
        const T* entries = values + a * R;
        for (int v = 0; v < V; ++v) {
            const Vec<S> column = load<S>(row + v * lanes<S>);
            for (int r = 0; r < R; ++r) accumulators[r][v] = fused(splat<S>((S)entries[r]), column, accumulators[r][v]);
        }
    }
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v) store<S>(sums + r * stride + c + v * lanes<S>, accumulators[r][v]);
}

// The same with as many vectors as remain, at most V.
template <int V, int R, class T, class S>
inline void accumulate_rest(const T* values, const S* const* rows, std::int64_t k, std::int64_t c, S* sums,
                            std::int64_t stride) {
    if constexpr (V > 0) {
        if ((stride - c) / lanes<S> == V) return accumulate<V, R>(values, rows, k, c, sums, stride);
        accumulate_rest<V - 1, R>(values, rows, k, c, sums, stride);
    }
}

// The same for all columns. `stride` is their number, rounded up to whole vectors.
template <int R, class T, class S>
inline void accumulate_rows(const T* values, const S* const* rows, std::int64_t k, S* sums, std::int64_t stride) {
    constexpr int V = R == 1 ? tile : narrow_tile;
    std::int64_t c = 0;
    for (; stride - c >= V * lanes<S>; c += V * lanes<S>) accumulate<V, R>(values, rows, k, c, sums, stride);
    accumulate_rest<V - 1, R>(values, rows, k, c, sums, stride);
}

// The entries of `together` rows within a band of columns, side by side.
template <class S> class Gathered {
    std::vector<S> by_column;          // (band, together)
    std::vector<std::uint64_t> taken;  // a bit for each column
    std::int64_t entries = 0;

  public:
    std::vector<S> values;  // (n, together)
    std::vector<std::int64_t>
        columns;  // (n,): the columns with an entry, ascending, counted from the start of the band
    std::int64_t n = 0;

    void reserve(std::int64_t band) {
        by_column.assign(band * together, S(0));
        taken.assign((band + 63) / 64, 0);
        values.resize(band * together);
        columns.resize(band);
    }
    // Adds the entries of a row from `at` on that lie before column `stop`. It returns the index of the next entry.
    template <class I, class T>
    std::int64_t add(int row, const I* indices, const T* from, std::int64_t at, std::int64_t end, std::int64_t start,
                     std::int64_t stop) {
        const std::int64_t first = at;
        S* row_entries = by_column.data() + row;
        while (at < end && indices[at] < stop) {
            // The bits of a word are collected in a register. In memory each would wait for the bit before it.
            const std::int64_t word = (indices[at] - start) / 64, beyond = std::min(start + (word + 1) * 64, stop);
            std::uint64_t bits = 0;
            do {
                const std::int64_t column = indices[at] - start;
                row_entries[column * together] += (S)from[at];
                bits |= (std::uint64_t)1 << (column & 63);
            } while (++at < end && indices[at] < beyond);
            taken[word] |= bits;
        }
        entries += at - first;
        return at;
    }
    // Moves the added entries to `columns` and `values`, in order, and clears the rest for the next rows. It returns
    // the share of these values that are entries.
    double gather() {
        n = 0;
        for (std::size_t word = 0; word < taken.size(); ++word) {
            if (!taken[word]) continue;
            for (std::uint64_t bits = taken[word]; bits; bits &= bits - 1) {
                const std::int64_t column = (std::int64_t)word * 64 + __builtin_ctzll(bits);
                S* row_entries = by_column.data() + column * together;
                columns[n] = column;
                for (int r = 0; r < together; ++r) {
                    values[n * together + r] = row_entries[r];
                    row_entries[r] = 0;
                }
                ++n;
            }
            taken[word] = 0;
        }
        const double share = n ? (double)entries / (double)(together * n) : 1.0;
        entries = 0;
        return share;
    }
};

template <class S> bool has_nan(const std::vector<S>& sums) {
    return std::any_of(sums.begin(), sums.end(), [](S x) { return x != x; });
}

// Rows with the same residue modulo `interleave` have similar columns. They are multiplied block by block, and within a
// block band by band of the columns, so that the part of `block` in use stays in the second-level cache.
template <class I, class T, class S>
void matmul(const I* indptr, const I* indices, const T* values, const S* block, S* out, std::int64_t n_rows,
            std::int64_t n_columns, std::int64_t width, std::int64_t interleave, int threads) {
    const std::int64_t per_class = (n_rows + interleave - 1) / interleave;
    const std::int64_t blocks = (per_class + block_rows - 1) / block_rows;
    const std::int64_t band_rows = std::max<std::int64_t>(64, (1 << 19) / (std::int64_t)(width * sizeof(S) + 1));
    const std::int64_t band = std::min({band_rows * interleave, widest_band, std::max<std::int64_t>(1, n_columns)});
    const bool may_share = width > widest_alone * lanes<S>;
    // The last vector of a row of `block` extends into the next row. So the last rows are copied, with room after them.
    const std::int64_t overhang = tile * lanes<S>;
    const std::int64_t guarded_from =
        std::max<std::int64_t>(0, n_columns - overhang / std::max<std::int64_t>(1, width) - 2);
    std::vector<S> tail((n_columns - guarded_from) * width + overhang, S(0));
    std::copy(block + guarded_from * width, block + n_columns * width, tail.begin());
    auto row_of_block = [&](std::int64_t j) {
        return j < guarded_from ? block + j * width : tail.data() + (j - guarded_from) * width;
    };
    const std::int64_t stride = ceil_to(width, lanes<S>);
    const double least_share = full_enough(stride / lanes<S>);
    auto row_block = [&](std::int64_t task, std::vector<const S*>& rows, std::vector<S>& sums, Gathered<S>& shared) {
        const std::int64_t first = task % blocks * block_rows, residue = task / blocks;
        const std::int64_t last = std::min(first + block_rows, (n_rows - residue + interleave - 1) / interleave);
        auto row_of = [&](std::int64_t q) { return q * interleave + residue; };
        std::int64_t cursor[block_rows];
        // Multiplies the entries of row q from `from` up to its cursor.
        auto alone = [&](std::int64_t q, std::int64_t from) {
            const std::int64_t k = cursor[q - first] - from;
            if (k > (std::int64_t)rows.size()) rows.resize(k);  // if a row has the same column more than once
            for (std::int64_t a = 0; a < k; ++a) rows[a] = row_of_block(indices[from + a]);
            if (k) accumulate_rows<1>(values + from, rows.data(), k, sums.data() + (q - first) * stride, stride);
        };
        auto multiply = [&](bool sharing) {
            for (std::int64_t q = first; q < last; ++q) cursor[q - first] = indptr[row_of(q)];
            sums.assign(block_rows * stride, S(0));
            for (std::int64_t start = 0; start < n_columns; start += band) {
                const std::int64_t stop = start + band;
                std::int64_t q = first;
                // Neighboring rows are alike. So if some share too few columns, the next ones do not try to share.
                bool share = sharing;
                for (; share && q + together <= last; q += together) {
                    std::int64_t from[together];
                    for (int r = 0; r < together; ++r) {
                        std::int64_t& at = cursor[q + r - first];
                        from[r] = at;
                        at = shared.add(r, indices, values, at, indptr[row_of(q + r) + 1], start, stop);
                    }
                    share = shared.gather() >= least_share;
                    if (share) {
                        for (std::int64_t a = 0; a < shared.n; ++a) rows[a] = row_of_block(start + shared.columns[a]);
                        accumulate_rows<together>(shared.values.data(), rows.data(), shared.n,
                                                  sums.data() + (q - first) * stride, stride);
                    } else {
                        for (int r = 0; r < together; ++r) alone(q + r, from[r]);
                    }
                }
                for (; q < last; ++q) {
                    const std::int64_t from = cursor[q - first], end = indptr[row_of(q) + 1];
                    std::int64_t& at = cursor[q - first];
                    while (at < end && indices[at] < stop) ++at;
                    alone(q, from);
                }
            }
        };
        multiply(may_share);
        // Shared rows may multiply infinity or NaN by 0, which gives NaN. Then every row is multiplied again, by its
        // entries alone. The test reads the sums, because `block` may be much larger than they are.
        if (may_share && has_nan(sums)) multiply(false);
        for (std::int64_t q = first; q < last; ++q)
            std::copy_n(sums.data() + (q - first) * stride, width, out + row_of(q) * width);
    };
    Guard guard;
#pragma omp parallel num_threads(threads)
    {
        std::vector<const S*> rows;
        std::vector<S> sums;
        Gathered<S> shared;
        guard([&] {
            rows.resize(band);
            if (may_share) shared.reserve(band);
        });
#pragma omp for schedule(dynamic, 1)
        for (std::int64_t task = 0; task < interleave * blocks; ++task)
            guard([&] { row_block(task, rows, sums, shared); });
    }
    guard.rethrow();
}

}  // namespace MMP_ISA

// out (n_rows, C) = matrix @ block (n_columns, C), with C = width. The indices of a row must ascend. Sums run along the
// row in the type of `block`. Rows r and r + interleave have neighboring columns (1: all rows). This changes no bit.
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
        return block_is_float ? run(i, v, static_cast<const float*>(block))
                              : run(i, v, static_cast<const double*>(block));
    };
    auto by_values = [&](auto* i) {
        return is_float ? by_block(i, static_cast<const float*>(values))
                        : by_block(i, static_cast<const double*>(values));
    };
    return guarded([&] {
        return wide ? by_values(static_cast<const std::int64_t*>(indptr))
                    : by_values(static_cast<const std::int32_t*>(indptr));
    });
}
