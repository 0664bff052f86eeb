// Runs every entry point of csrc/cpu on fixed inputs of two or three sizes and has callgrind count the instructions of
// each call: driver LIBRARY ISA [PREFIX], started by benchmarks/guard/guard.py under valgrind.
//
// A case is named "op, input"; a call dumps its counts under "op, input|size". Sizes double, so that the counts show
// how the work grows. Inputs come from a generator written here: they are the same with every standard library.
#include <valgrind/callgrind.h>
#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace {

constexpr int unavailable = 77, one_thread = 1;
using Int = std::int64_t;

void* library = nullptr;
std::string isa, wanted;

// The entry point of one op, in the signature that its file in csrc/cpu documents.
template <class Function> Function* entry_point(const char* op) {
    void* entry = dlsym(library, ("mmphate_" + std::string(op) + "_" + isa).c_str());
    if (!entry) std::fprintf(stderr, "the library has no %s of %s\n", op, isa.c_str()), std::exit(unavailable);
    return reinterpret_cast<Function*>(entry);
}

// Whether the cases of this name are asked for.
bool runs(const std::string& name) { return name.compare(0, wanted.size(), wanted) == 0; }

template <class Call> void counted(const std::string& name, Int size, Call call) {
    CALLGRIND_TOGGLE_COLLECT;
    const int status = call();
    CALLGRIND_TOGGLE_COLLECT;
    if (status) std::fprintf(stderr, "%s of size %ld: status %d\n", name.c_str(), (long)size, status), std::exit(1);
    const std::string label = name + "|" + std::to_string(size);
    CALLGRIND_DUMP_STATS_AT(label.c_str());
}

// SplitMix64.
struct Random {
    std::uint64_t state;
    double operator()() {
        std::uint64_t z = (state += 0x9e3779b97f4a7c15ull);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
        return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
    }
};

// n points along a closed curve in p dimensions with some noise: of more points a smaller step, but the same share of
// the pairs lies within a given distance, as when more slices of one recording are taken.
void curve(Int n, Int p, std::uint64_t seed, double* points) {
    Random random{seed};
    for (Int f = 0; f < p; ++f) {
        const double phase = 6.283185307179586 * random(), rounds = 1 + f % 3;
        for (Int i = 0; i < n; ++i)
            points[i * p + f] = std::cos(6.283185307179586 * rounds * (double)i / (double)n + phase) + 0.1 * random();
    }
}

std::vector<double> stack(Int n_sets, Int n, Int p) {
    std::vector<double> points(n_sets * n * p);
    for (Int s = 0; s < n_sets; ++s) curve(n, p, 1 + s, points.data() + s * n * p);
    return points;
}

// Sequences of four steps: feature f of a point lacks after its length, which is 2 to 4.
void shorten(Int n, Int p, double* points) {
    for (Int i = 0; i < n; ++i)
        for (Int f = 0; f < p; ++f)
            if (i % 4 >= 2 + f % 3) points[i * p + f] = std::nan("");
}

// The distance within which about one pair in ten lies.
constexpr double reach = 1.5;
constexpr Int p = 10;

typedef int RadiusCount(const double*, Int, Int, Int, Int, double, Int*, int);
typedef int RadiusFill(const double*, Int, Int, Int, Int, Int, Int, double, double, double, const Int*, const Int*,
                       Int*, void*, int, void*, int, int);

void radius_affinity(const std::string& unit, Int masked) {
    auto* count = entry_point<RadiusCount>("radius_count");
    auto* fill = entry_point<RadiusFill>("radius_fill");
    for (Int n : {400, 800, 1600}) {
        std::vector<double> points = stack(1, n, p);
        if (masked) shorten(n, p, points.data());
        std::vector<Int> counts(n), indptr(n + 1, 0), gap_at(n);
        auto call = [&] { return count(points.data(), 1, n, p, masked, reach, counts.data(), one_thread); };
        if (runs("radius_count, " + unit)) counted("radius_count, " + unit, n, call);
        if (!runs("radius_fill, " + unit)) continue;
        call();
        for (Int i = 0; i < n; ++i) indptr[i + 1] = indptr[i] + counts[i];
        const std::vector<Int> gap(n, 0);
        std::vector<std::int32_t> indices(indptr[n]);
        std::vector<float> values(indptr[n]);
        counted("radius_fill, " + unit, n, [&] {
            return fill(points.data(), 1, n, p, masked, 0, n, reach, reach / 3, 2.0, indptr.data(), gap.data(),
                        gap_at.data(), indices.data(), 0, values.data(), 1, one_thread);
        });
    }
}

typedef int SymmetrizedAffinity(const double*, const double*, Int, Int, Int, Int, double, double, double, double,
                                const Int*, Int*, void*, int, void*, int, int);

// Both passes: counts, then entries.
void symmetrized_affinity(const std::string& name, Int n_sets, Int n, Int size) {
    if (!runs(name)) return;
    auto* affinity = entry_point<SymmetrizedAffinity>("symmetrized_affinity");
    const std::vector<double> points = stack(n_sets, n, p);
    Random random{7};
    std::vector<double> bandwidth(n_sets * n);
    for (double& width : bandwidth) width = reach * (0.5 + random());
    std::vector<Int> counts(n_sets * n), indptr(n_sets * n + 1, 0);
    std::vector<std::int32_t> indices(n_sets * n * n);
    std::vector<float> values(n_sets * n * n);
    const double cut = 1.56;  // where exp(-u^5) = 1e-4
    counted(name, size, [&] {
        auto pass = [&](const Int* from, Int* counts) {
            return affinity(points.data(), bandwidth.data(), n_sets, n, p, 0, 5.0, 1e-4, 1e-38, cut, from, counts,
                            indices.data(), 0, values.data(), 1, one_thread);
        };
        if (int status = pass(nullptr, counts.data())) return status;
        for (Int i = 0; i < n_sets * n; ++i) indptr[i + 1] = indptr[i] + counts[i];
        return pass(indptr.data(), nullptr);
    });
}

typedef int KthNeighborDistance(const double*, Int, Int, Int, Int, Int, double*, int);
typedef int MedianKthNeighborDistance(const double*, Int, Int, Int, Int, Int, Int, double*, int);

void kth_neighbor_distance(const std::string& name, Int n_sets, Int n, Int k, Int size) {
    if (!runs(name)) return;
    auto* kth = entry_point<KthNeighborDistance>("kth_neighbor_distance");
    const std::vector<double> points = stack(n_sets, n, p);
    std::vector<double> distances(n_sets * n);
    counted(name, size, [&] { return kth(points.data(), n_sets, n, p, 0, k, distances.data(), one_thread); });
}

// Sizes above four times the 256 sampled points, below which all distances are computed.
void median_kth_neighbor_distance(const std::string& unit, Int masked) {
    const std::string name = "median_kth_neighbor_distance, " + unit;
    if (!runs(name)) return;
    auto* median = entry_point<MedianKthNeighborDistance>("median_kth_neighbor_distance");
    for (Int n : {1100, 2200, 4400}) {
        std::vector<double> points = stack(1, n, p);
        if (masked) shorten(n, p, points.data());
        double distance;
        counted(name, n, [&] { return median(points.data(), 1, n, p, masked, 25, 256, &distance, one_thread); });
    }
}

// A multislice affinity's pattern: 6 units, every node beside the units of its slice and 20 slices to both sides of it.
struct Matrix {
    static constexpr Int units = 6, span = 20;
    Int n;
    std::vector<std::int32_t> indptr{0}, indices;
    std::vector<float> values;

    explicit Matrix(Int n_nodes) : n(n_nodes) {
        Random random{3};
        for (Int i = 0; i < n; ++i) {
            const Int slice = i / units, unit = i % units;
            for (Int l = std::max<Int>(0, slice - span); l <= std::min(n / units - 1, slice + span); ++l)
                for (Int u = 0; u < units; ++u)
                    if (u == unit || l == slice)
                        indices.push_back((std::int32_t)(l * units + u)), values.push_back((float)(0.1 + random()));
            indptr.push_back((std::int32_t)indices.size());
        }
    }
};

typedef int CsrMatmul(const void*, const void*, int, const void*, int, const void*, void*, int, Int, Int, Int, Int,
                      int);

template <class S> void csr_matmul(const char* type, Int width) {
    const std::string name = "csr_matmul, " + std::string(type) + " x " + std::to_string(width);
    if (!runs(name)) return;
    auto* matmul = entry_point<CsrMatmul>("csr_matmul");
    for (Int n : {1200, 2400, 4800}) {
        const Matrix matrix(n);
        Random random{5};
        std::vector<S> block(n * width), out(n * width);
        for (S& entry : block) entry = (S)random();
        counted(name, n, [&] {
            return matmul(matrix.indptr.data(), matrix.indices.data(), 0, matrix.values.data(), 1, block.data(),
                          out.data(), sizeof(S) == 4, n, n, width, Matrix::units, one_thread);
        });
    }
}

typedef int LandmarkAggregate(const void*, const void*, int, const void*, int, const std::int32_t*, Int, Int,
                              const Int*, Int*, std::int32_t*, void*, int);

// Both passes: counts, then entries. Ten nodes a landmark.
void landmark_aggregate() {
    const std::string name = "landmark_aggregate, ten nodes each";
    if (!runs(name)) return;
    auto* aggregate = entry_point<LandmarkAggregate>("landmark_aggregate");
    for (Int n : {1200, 2400, 4800}) {
        const Matrix matrix(n);
        Random random{9};
        std::vector<std::int32_t> labels(n), indices(matrix.indices.size());
        for (Int i = 0; i < n; ++i) labels[i] = (std::int32_t)std::min(n / 10 - 1, i / 10 + (Int)(4 * random()));
        std::vector<Int> counts(n), indptr(n + 1, 0);
        std::vector<float> values(matrix.indices.size());
        counted(name, n, [&] {
            auto pass = [&](const Int* from, Int* counts) {
                return aggregate(matrix.indptr.data(), matrix.indices.data(), 0, matrix.values.data(), 1, labels.data(),
                                 n, n / 10, from, counts, indices.data(), values.data(), one_thread);
            };
            if (int status = pass(nullptr, counts.data())) return status;
            for (Int i = 0; i < n; ++i) indptr[i + 1] = indptr[i] + counts[i];
            return pass(indptr.data(), nullptr);
        });
    }
}

typedef int GuttmanTransform(const void*, int, const double*, double*, double*, Int, Int, double, int);

template <class T> void guttman_transform(const char* type, Int n_components) {
    const std::string name = "guttman_transform, " + std::string(type) + " x " + std::to_string(n_components);
    if (!runs(name)) return;
    auto* transform = entry_point<GuttmanTransform>("guttman_transform");
    for (Int n : {200, 400, 800}) {
        Random random{11};
        std::vector<T> distances(n * n);
        for (T& distance : distances) distance = (T)(0.5 + random());
        std::vector<double> points(n * n_components), moved(n * n_components);
        for (double& x : points) x = random() - 0.5;
        double raw;
        counted(name, n, [&] {
            return transform(distances.data(), sizeof(T) == 4, points.data(), moved.data(), &raw, n, n_components, 1e-8,
                             one_thread);
        });
    }
}

typedef int AssignNearest(const void*, int, const void*, Int, Int, Int, Int, Int*, void*, int);

// A center for four points, 100 features: as many as the search for landmarks has.
template <class T> void assign_nearest(const char* type) {
    const std::string name = "assign_nearest, " + std::string(type);
    if (!runs(name)) return;
    auto* assign = entry_point<AssignNearest>("assign_nearest");
    for (Int n : {200, 400, 800}) {
        const Int n_features = 100, k = n / 4;
        Random random{13};
        std::vector<T> points(n * n_features), squared(n);
        for (T& x : points) x = (T)(random() - 0.5);
        std::vector<Int> labels(n);
        counted(name, n, [&] {
            return assign(points.data(), sizeof(T) == 4, points.data(), 1, n, k, n_features, labels.data(),
                          squared.data(), one_thread);
        });
    }
}

bool processor_has(const std::string& name) {
#if defined(__x86_64__)
    if (name == "avx2") return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return name == "baseline";
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 3) return std::fprintf(stderr, "usage: guard_driver LIBRARY ISA [PREFIX]\n"), 2;
    isa = argv[2], wanted = argc > 3 ? argv[3] : "";
    if (!processor_has(isa)) return std::fprintf(stderr, "no %s here\n", isa.c_str()), unavailable;
    library = dlopen(argv[1], RTLD_NOW);
    if (!library) return std::fprintf(stderr, "%s\n", dlerror()), 1;
    radius_affinity("one unit", 0), radius_affinity("a masked unit", 1);
    for (Int n_sets : {500, 1000, 2000}) symmetrized_affinity("symmetrized_affinity, 6 units", n_sets, 6, n_sets);
    for (Int n : {40, 80, 160}) symmetrized_affinity("symmetrized_affinity, ever more units", 10, n, n);
    for (Int n_sets : {500, 1000, 2000}) kth_neighbor_distance("kth_neighbor_distance, 6 units", n_sets, 6, 2, n_sets);
    for (Int n : {300, 600, 1200}) kth_neighbor_distance("kth_neighbor_distance, one unit", 1, n, 25, n);
    median_kth_neighbor_distance("one unit", 0), median_kth_neighbor_distance("a masked unit", 1);
    for (Int width : {1, 8, 110}) csr_matmul<double>("float64", width), csr_matmul<float>("float32", width);
    landmark_aggregate();
    assign_nearest<float>("float32"), assign_nearest<double>("float64");
    for (Int n_components : {2, 3, 10, 12}) {
        guttman_transform<float>("float32", n_components);
        guttman_transform<double>("float64", n_components);
    }
    return 0;
}
