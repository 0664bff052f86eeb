// K @ onehot(labels), row by row: the sum of the entries of each label.
#include "simd.h"
#include <algorithm>
#include <vector>

namespace MMP_ISA {

struct LabelSums {
    std::vector<double> sums;
    std::vector<std::int64_t> row_of;  // the last row in which a label occurred
    std::vector<std::int32_t> seen;
    void fit(std::int64_t n_labels) {
        if ((std::int64_t)sums.size() != n_labels) sums.resize(n_labels), row_of.assign(n_labels, -1);
    }

    // Sums the entries of row i by label. `seen` becomes the labels that have a sum, ascending.
    template <class I, class T>
    void gather(std::int64_t i, const I* indices, const T* values, std::int64_t k, const std::int32_t* labels) {
        seen.clear();
        for (std::int64_t a = 0; a < k; ++a) {
            const std::int32_t label = labels[indices[a]];
            if (row_of[label] != i) row_of[label] = i, sums[label] = 0, seen.push_back(label);
            sums[label] += (double)values[a];
        }
        // A sum of 0 is no entry, as in a dense product.
        seen.erase(std::remove_if(seen.begin(), seen.end(), [&](std::int32_t label) { return sums[label] == 0; }),
                   seen.end());
        std::sort(seen.begin(), seen.end());
    }
};

template <class I, class T>
void aggregate(const I* indptr, const I* indices, const T* values, const std::int32_t* labels, std::int64_t n_rows,
               std::int64_t n_labels, const std::int64_t* out_indptr, std::int64_t* counts, std::int32_t* out_indices,
               T* out_values, int threads) {
    Guard guard;
#pragma omp parallel num_threads(threads)
    {
        LabelSums row;
#pragma omp for schedule(dynamic, 64)
        for (std::int64_t i = 0; i < n_rows; ++i)
            guard([&] {
                row.fit(n_labels);
                row.gather(i, indices + indptr[i], values + indptr[i], (std::int64_t)(indptr[i + 1] - indptr[i]),
                           labels);
                if (counts) counts[i] = (std::int64_t)row.seen.size();
                if (out_indptr)
                    for (std::size_t a = 0; a < row.seen.size(); ++a) {
                        out_indices[out_indptr[i] + a] = row.seen[a];
                        out_values[out_indptr[i] + a] = (T)row.sums[row.seen[a]];
                    }
            });
    }
    guard.rethrow();
}

}  // namespace MMP_ISA

// Each column of the CSR matrix has one of the labels 0 .. n_labels-1. If counts is not null, it becomes how many
// labels of each row have a sum other than 0. If out_indptr is not null, these labels and sums are written, ascending.
MMP_API int MMP_EXPORT(landmark_aggregate)(const void* indptr, const void* indices, int wide, const void* values,
                                           int is_float, const std::int32_t* labels, std::int64_t n_rows,
                                           std::int64_t n_labels, const std::int64_t* out_indptr, std::int64_t* counts,
                                           std::int32_t* out_indices, void* out_values, int threads) {
    using namespace MMP_ISA;
    auto run = [&](auto* i, auto* v) {
        typedef std::remove_const_t<std::remove_pointer_t<decltype(i)>> I;
        typedef std::remove_const_t<std::remove_pointer_t<decltype(v)>> T;
        aggregate(i, static_cast<const I*>(indices), v, labels, n_rows, n_labels, out_indptr, counts, out_indices,
                  static_cast<T*>(out_values), threads);
        return 0;
    };
    auto by_values = [&](auto* i) {
        return is_float ? run(i, static_cast<const float*>(values)) : run(i, static_cast<const double*>(values));
    };
    return guarded([&] {
        return wide ? by_values(static_cast<const std::int64_t*>(indptr))
                    : by_values(static_cast<const std::int32_t*>(indptr));
    });
}
