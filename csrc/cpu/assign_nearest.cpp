// The nearest of many centers to every point: a matrix product whose rows are reduced while they are in registers.
//
// Shapes: B sets of n points and k centers in p dimensions.
#include "simd.h"
#include <algorithm>
#include <limits>
#include <type_traits>
#include <vector>

namespace MMP_ISA {

// A panel has this many vectors of centers, and a tile this many points. Their sums fill the registers, except those
// for a column of the panel and for one coordinate.
constexpr int panel_vectors = 3;
constexpr int tile_points = MMP_BYTES == 64 ? 8 : 4;
// Points of a block. Panels come from beyond the second-level cache. With this many points the work on a panel takes
// longer than loading the next one.
constexpr std::int64_t block_points = 128;
template <class T> constexpr int panel_width = panel_vectors * lanes<T>;

// The centers of one set, feature by feature within a panel, and their squared norms, which are infinite after the
// last.
template <class T> struct Panels {
    std::int64_t n = 0, p = 0;
    std::vector<T> centers, norms;

    Panels(const T* from, std::int64_t k, std::int64_t n_features)
        : n(ceil_to(k, panel_width<T>) / panel_width<T>), p(n_features) {
        centers.assign(n * p * panel_width<T>, T(0));
        norms.assign(n * panel_width<T>, std::numeric_limits<T>::infinity());
        for (std::int64_t c = 0; c < k; ++c) {
            const std::int64_t panel = c / panel_width<T>, lane = c % panel_width<T>;
            double norm = 0;
            for (std::int64_t f = 0; f < p; ++f) {
                const T x = from[c * p + f];
                centers[(panel * p + f) * panel_width<T> + lane] = x;
                norm += (double)x * (double)x;
            }
            norms[c] = (T)norm;
        }
    }
};

// For every lane the least |c|^2 - 2 x.c so far, and the number of the vector of centers that it came from.
template <class T> struct Least {
    typedef decltype(Vec<T>{} < Vec<T>{}) Mask;
    Vec<T> value;
    Mask vector;

    static Mask numbered(std::int64_t v) { return Mask{} + (typename std::decay<decltype(Mask{}[0])>::type)v; }
};

// Compares R points with the centers of a panel.
template <class T, int R> void compare(const T* points, const Panels<T>& panels, std::int64_t panel, Least<T>* least) {
    constexpr int W = lanes<T>;
    typedef Vec<T> V;
    const std::int64_t p = panels.p;
    const T* centers = panels.centers.data() + panel * p * panel_width<T>;
    V inner[R][panel_vectors];
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < panel_vectors; ++v) inner[r][v] = V{};
    for (std::int64_t f = 0; f < p; ++f) {
        V column[panel_vectors];
        for (int v = 0; v < panel_vectors; ++v) column[v] = load<T>(centers + f * panel_width<T> + v * W);
        for (int r = 0; r < R; ++r) {
            const V x = splat<T>(points[r * p + f]);
            for (int v = 0; v < panel_vectors; ++v) inner[r][v] = fused(x, column[v], inner[r][v]);
        }
    }
    const T* norms = panels.norms.data() + panel * panel_width<T>;
    for (int v = 0; v < panel_vectors; ++v) {
        const V norm = load<T>(norms + v * W);
        const auto here = Least<T>::numbered(panel * panel_vectors + v);
        for (int r = 0; r < R; ++r) {
            const V value = fused(inner[r][v], splat<T>(-2), norm);
            const auto nearer = value < least[r].value;
            least[r].value = nearer ? value : least[r].value;
            least[r].vector = nearer ? here : least[r].vector;
        }
    }
}

template <class T>
void assign_block(const T* points, std::int64_t n, const Panels<T>& panels, std::int64_t* labels, T* squared) {
    constexpr int W = lanes<T>;
    Least<T> least[block_points];
    std::fill_n(least, n, Least<T>{splat<T>(std::numeric_limits<T>::infinity()), typename Least<T>::Mask{}});
    for (std::int64_t panel = 0; panel < panels.n; ++panel) {
        std::int64_t i = 0;
        for (; i + tile_points <= n; i += tile_points)
            compare<T, tile_points>(points + i * panels.p, panels, panel, least + i);
        for (; i < n; ++i) compare<T, 1>(points + i * panels.p, panels, panel, least + i);
    }
    for (std::int64_t i = 0; i < n; ++i) {
        T best = least[i].value[0];
        std::int64_t label = (std::int64_t)least[i].vector[0] * W;
        for (int l = 1; l < W; ++l) {
            const std::int64_t center = (std::int64_t)least[i].vector[l] * W + l;
            if (least[i].value[l] < best || (least[i].value[l] == best && center < label)) {
                best = least[i].value[l];
                label = center;
            }
        }
        double norm = 0;
        const T* point = points + i * panels.p;
        for (std::int64_t f = 0; f < panels.p; ++f) norm += (double)point[f] * (double)point[f];
        labels[i] = label;
        squared[i] = std::max((T)((double)best + norm), T(0));
    }
}

template <class T>
void assign_set(const T* points, const T* centers, std::int64_t n, std::int64_t k, std::int64_t p, std::int64_t* labels,
                T* squared, int threads) {
    const Panels<T> panels(centers, k, p);
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (std::int64_t first = 0; first < n; first += block_points)
        assign_block<T>(points + first * p, std::min(block_points, n - first), panels, labels + first, squared + first);
}

// If every thread can have a set of its own, each set runs on one thread, because a small set has too few blocks for
// all threads. Else the threads share each set.
template <class T>
int assign(const T* points, const T* centers, std::int64_t n_sets, std::int64_t n, std::int64_t k, std::int64_t p,
           std::int64_t* labels, T* squared, int threads) {
    const int side_by_side = n_sets < threads ? 1 : threads, within = n_sets < threads ? threads : 1;
    Guard guard;
#pragma omp parallel for num_threads(side_by_side) schedule(dynamic, 1)
    for (std::int64_t s = 0; s < n_sets; ++s)
        guard([&] {
            assign_set(points + s * n * p, centers + s * k * p, n, k, p, labels + s * n, squared + s * n, within);
        });
    guard.rethrow();
    return 0;
}

}  // namespace MMP_ISA

// points (B, n, p), centers (B, k, p) float32 or float64 -> labels (B, n), squared (B, n): the nearest center of the
// same set, the first of several equally near ones, and the squared distance to it.
MMP_API int MMP_EXPORT(assign_nearest)(const void* points, int is_float, const void* centers, std::int64_t n_sets,
                                       std::int64_t n, std::int64_t k, std::int64_t n_features, std::int64_t* labels,
                                       void* squared, int threads) {
    using namespace MMP_ISA;
    return guarded([&] {
        auto run = [&](auto* typed_points) {
            typedef std::remove_const_t<std::remove_pointer_t<decltype(typed_points)>> T;
            return assign<T>(typed_points, static_cast<const T*>(centers), n_sets, n, k, n_features, labels,
                             static_cast<T*>(squared), threads);
        };
        return is_float ? run(static_cast<const float*>(points)) : run(static_cast<const double*>(points));
    });
}
