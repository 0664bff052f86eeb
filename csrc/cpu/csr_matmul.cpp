// A sparse matrix by rows times a thin dense one.
#include "simd.h"
#include <algorithm>
#include <vector>

namespace MMP_ISA {

constexpr std::int64_t block_rows = 64;
constexpr int tile = 8;  // vectors of sums held in registers
// Rows that go together where most of their columns are the same: each row of `block` is fetched once for all of them.
constexpr int together = MMP_BYTES == 64 ? 8 : 4;
constexpr int narrow_tile = 3;  // vectors of the sums of each of them
// Share of their entries that is there, from which it pays to multiply the others by 0 as well: fetching a row of
// `block` takes as long whatever the width of a register, multiplying it the longer the narrower they are; and what is
// saved grows with the vectors of a row, while gathering the entries costs the same whatever their number.
inline double full_enough(std::int64_t vectors) {
    return (MMP_BYTES == 64 ? 0.2 : MMP_BYTES == 32 ? 0.6 : 0.85) + 1.0 / (double)vectors;
}
// Columns of a band at most: every thread has room for all their entries in `together` rows, twice.
constexpr std::int64_t widest_band = 1 << 16;
// Up to so many vectors a row, gathering the entries costs more than it saves.
constexpr int widest_alone = 2;

// Columns c .. c + V vectors of R rows: sums[r * stride + c ..] += sum over a of values[a * R + r] * rows[a][c ..].
template <int V, int R, class T, class S>
inline void accumulate(const T* values, const S* const* rows, std::int64_t k, std::int64_t c, S* sums,
                       std::int64_t stride) {
    Vec<S> own[R][V];
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v) own[r][v] = load<S>(sums + r * stride + c + v * lanes<S>);
    for (std::int64_t a = 0; a < k; ++a) {
        const S* row = rows[a] + c;
        const T* entries = values + a * R;
        for (int v = 0; v < V; ++v) {
            const Vec<S> column = load<S>(row + v * lanes<S>);
            for (int r = 0; r < R; ++r) own[r][v] = fused(splat<S>((S)entries[r]), column, own[r][v]);
        }
    }
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v) store<S>(sums + r * stride + c + v * lanes<S>, own[r][v]);
}

template <int V, int R, class T, class S>
inline void accumulate_rest(const T* values, const S* const* rows, std::int64_t k, std::int64_t c, S* sums,
                            std::int64_t stride) {
    if constexpr (V > 0) {
        if ((stride - c) / lanes<S> == V) return accumulate<V, R>(values, rows, k, c, sums, stride);
        accumulate_rest<V - 1, R>(values, rows, k, c, sums, stride);
    }
}

// All columns; `stride` is their number up to whole vectors.
template <int R, class T, class S>
inline void accumulate_rows(const T* values, const S* const* rows, std::int64_t k, S* sums, std::int64_t stride) {
    constexpr int V = R == 1 ? tile : narrow_tile;
    std::int64_t c = 0;
    for (; stride - c >= V * lanes<S>; c += V * lanes<S>) accumulate<V, R>(values, rows, k, c, sums, stride);
    accumulate_rest<V - 1, R>(values, rows, k, c, sums, stride);
}

// The entries of `together` rows within a band of columns, put side by side.
template <class S> class Gathered {
    std::vector<S> by_column;          // (band, together)
    std::vector<std::uint64_t> taken;  // a bit a column
    std::int64_t entries = 0;

  public:
    std::vector<S> values;              // (n, together)
    std::vector<std::int64_t> columns;  // n of them are taken, in ascending order, from the start of the band on
    std::int64_t n = 0;

    void reserve(std::int64_t band) {
        by_column.assign(band * together, S(0));
        taken.assign((band + 63) / 64, 0);
        values.resize(band * together);
        columns.resize(band);
    }
    // The entries of a row from `at` on that lie before column `stop`; where the others begin.
    template <class I, class T>
    std::int64_t add(int row, const I* indices, const T* from, std::int64_t at, std::int64_t end, std::int64_t start,
                     std::int64_t stop) {
        const std::int64_t first = at;
        S* own = by_column.data() + row;
        while (at < end && indices[at] < stop) {
            // Bits of one word are collected in a register: through memory each would wait for the one before.
            const std::int64_t word = (indices[at] - start) / 64, beyond = std::min(start + (word + 1) * 64, stop);
            std::uint64_t bits = 0;
            do {
                const std::int64_t column = indices[at] - start;
                own[column * together] += (S)from[at];
                bits |= (std::uint64_t)1 << (column & 63);
            } while (++at < end && indices[at] < beyond);
            taken[word] |= bits;
        }
        entries += at - first;
        return at;
    }
    // What was added, in order, and everything ready for the next rows; the share of the entries that is there.
    double gather() {
        n = 0;
        for (std::size_t word = 0; word < taken.size(); ++word) {
            if (!taken[word]) continue;
            for (std::uint64_t bits = taken[word]; bits; bits &= bits - 1) {
                const std::int64_t column = (std::int64_t)word * 64 + __builtin_ctzll(bits);
                S* own = by_column.data() + column * together;
                columns[n] = column;
                for (int r = 0; r < together; ++r) {
                    values[n * together + r] = own[r];
                    own[r] = 0;
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

// Rows that share a residue modulo `interleave` reach for the same columns: they go together, block by block, and walk
// over the columns band by band, so that the part of `block` in use stays in the second-level cache.
template <class I, class T, class S>
void matmul(const I* indptr, const I* indices, const T* values, const S* block, S* out, std::int64_t n_rows,
            std::int64_t n_columns, std::int64_t width, std::int64_t interleave, int threads) {
    const std::int64_t per_class = (n_rows + interleave - 1) / interleave;
    const std::int64_t blocks = (per_class + block_rows - 1) / block_rows;
    const std::int64_t band_rows = std::max<std::int64_t>(64, (1 << 19) / (std::int64_t)(width * sizeof(S) + 1));
    const std::int64_t band = std::min({band_rows * interleave, widest_band, std::max<std::int64_t>(1, n_columns)});
    const bool may_share = width > widest_alone * lanes<S>;
    // Vectors at the end of a row reach past it; past the last row there is nothing to read.
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
        // The entries of row q from `from` to where it stands.
        auto alone = [&](std::int64_t q, std::int64_t from) {
            const std::int64_t k = cursor[q - first] - from;
            if (k > (std::int64_t)rows.size()) rows.resize(k);  // a column named twice
            for (std::int64_t a = 0; a < k; ++a) rows[a] = row_of_block(indices[from + a]);
            if (k) accumulate_rows<1>(values + from, rows.data(), k, sums.data() + (q - first) * stride, stride);
        };
        auto multiply = [&](bool sharing) {
            for (std::int64_t q = first; q < last; ++q) cursor[q - first] = indptr[row_of(q)];
            sums.assign(block_rows * stride, S(0));
            for (std::int64_t start = 0; start < n_columns; start += band) {
                const std::int64_t stop = start + band;
                std::int64_t q = first;
                // Rows beside each other are alike: where some share too little, the next ones are not tried.
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
        // 0 times infinity or NaN is NaN and stays it: then every row is multiplied by what it has and nothing else.
        // Looked for in the sums, for `block` may be all the columns while the rows are those of a few slices.
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

// out (n_rows, width) = matrix @ block; the indices of a row must ascend; sums run along the row in the type of `block`.
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
