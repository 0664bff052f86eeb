// Vectors of one register. Every file is compiled once for each instruction set, with MMP_ISA as its name and MMP_BYTES
// as the width of a register.
#pragma once
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#ifndef MMP_ISA
#define MMP_ISA baseline
#define MMP_BYTES 16
#endif
#define MMP_JOIN2(a, b) a##_##b
#define MMP_JOIN(a, b) MMP_JOIN2(a, b)
// The C name of an entry point: mmphate_<op>_<isa>.
#define MMP_EXPORT(op) MMP_JOIN(mmphate_##op, MMP_ISA)
#define MMP_API extern "C" __attribute__((visibility("default")))
// For what stands in the innermost loops. A call there would pass registers through memory.
#define MMP_INLINE inline __attribute__((always_inline))

namespace MMP_ISA {

template <class T> struct Vector {
    static constexpr int lanes = MMP_BYTES / sizeof(T);
    typedef T type __attribute__((vector_size(MMP_BYTES)));
    typedef T loose __attribute__((vector_size(MMP_BYTES), aligned(alignof(T)), may_alias));
};
template <class T> using Vec = typename Vector<T>::type;
template <class T> constexpr int lanes = Vector<T>::lanes;

template <class T> inline Vec<T> load(const T* from) {
    return *reinterpret_cast<const typename Vector<T>::loose*>(from);
}
template <class T> inline void store(T* to, Vec<T> value) { *reinterpret_cast<typename Vector<T>::loose*>(to) = value; }
template <class T> inline Vec<T> splat(T value) { return value - Vec<T>{}; }
// Intrinsics are used where they exist, because compilers do not always turn a loop over lanes into one instruction.
// fused(a, b, c) is a * b + c, rounded once where the instruction set can. Bounds may use it, decisions may not.
#if defined(__AVX512F__) && MMP_BYTES == 64
inline Vec<float> square_root(Vec<float> x) { return (Vec<float>)_mm512_sqrt_ps((__m512)x); }
inline Vec<double> square_root(Vec<double> x) { return (Vec<double>)_mm512_sqrt_pd((__m512d)x); }
inline Vec<float> fused(Vec<float> a, Vec<float> b, Vec<float> c) {
    return (Vec<float>)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
inline Vec<double> fused(Vec<double> a, Vec<double> b, Vec<double> c) {
    return (Vec<double>)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
}
#elif defined(__AVX2__) && defined(__FMA__) && MMP_BYTES == 32
inline Vec<float> square_root(Vec<float> x) { return (Vec<float>)_mm256_sqrt_ps((__m256)x); }
inline Vec<double> square_root(Vec<double> x) { return (Vec<double>)_mm256_sqrt_pd((__m256d)x); }
inline Vec<float> fused(Vec<float> a, Vec<float> b, Vec<float> c) {
    return (Vec<float>)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
inline Vec<double> fused(Vec<double> a, Vec<double> b, Vec<double> c) {
    return (Vec<double>)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
}
#else
template <class V> inline V square_root(V value) {
    V out;
    for (unsigned l = 0; l < sizeof(V) / sizeof(value[0]); ++l) out[l] = std::sqrt(value[l]);
    return out;
}
template <class V> inline V fused(V a, V b, V c) { return a * b + c; }
#endif

// The sum in the order of the lanes, which has the same bits each time.
template <class V> inline double sum_of_lanes(V value) {
    double total = 0;
    for (unsigned l = 0; l < sizeof(V) / sizeof(value[0]); ++l) total += (double)value[l];
    return total;
}
// Bit l says whether lane l of the comparison holds.
inline unsigned bits_of(Vec<std::int32_t> mask) {
#if defined(__AVX512DQ__) && MMP_BYTES == 64
    return _mm512_movepi32_mask((__m512i)mask);
#elif defined(__AVX2__) && MMP_BYTES == 32
    return (unsigned)_mm256_movemask_ps((__m256)mask);
#elif defined(__SSE2__) && MMP_BYTES == 16
    return (unsigned)_mm_movemask_ps((__m128)mask);
#else
    unsigned bits = 0;
    for (int l = 0; l < lanes<std::int32_t>; ++l) bits |= (unsigned)(mask[l] != 0) << l;
    return bits;
#endif
}

// Appends j + l to a list of `at` numbers for every bit l that is set, ascending. It returns the new length. It may
// overwrite as many numbers behind the list as a register has.
inline std::int64_t append(std::int32_t* list, std::int64_t at, unsigned bits, std::int64_t j) {
#if defined(__AVX512F__) && MMP_BYTES == 64
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i numbers = _mm512_add_epi32(_mm512_set1_epi32((std::int32_t)j), lane);
    _mm512_storeu_si512(list + at, _mm512_maskz_compress_epi32((__mmask16)bits, numbers));
    return at + __builtin_popcount(bits);
#else
    for (; bits; bits &= bits - 1) list[at++] = (std::int32_t)(j + __builtin_ctz(bits));
    return at;
#endif
}

// The status that an entry point returns: that of `body`, or 1 if memory ran out. (0 is success, and 3 means that the
// arguments contradict one another.)
template <class F> int guarded(F body) {
    try {
        return body();
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

// Runs the bodies of a parallel region, which no exception may leave. If one runs out of memory, later bodies do
// nothing, and `rethrow` throws after the region.
class Guard {
    std::atomic<bool> failed{false};

  public:
    template <class F> void operator()(F body) noexcept {
        if (failed) return;
        try {
            body();
        } catch (const std::bad_alloc&) {
            failed = true;
        }
    }
    void rethrow() const {
        if (failed) throw std::bad_alloc();
    }
};

inline std::int64_t ceil_to(std::int64_t n, std::int64_t step) { return (n + step - 1) / step * step; }

}  // namespace MMP_ISA
