// Vectors of one register, one source for every instruction set: each file is compiled once per set, with MMP_ISA its
// name and MMP_BYTES the width of a register.
#pragma once
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
// The C name of an entry point of this instruction set: mmphate_<op>_<isa>.
#define MMP_EXPORT(op) MMP_JOIN(mmphate_##op, MMP_ISA)
#define MMP_API extern "C" __attribute__((visibility("default")))

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
// Without -fmath-errno the loop is one instruction.
template <class V> inline V square_root(V value) {
    V out;
    for (unsigned l = 0; l < sizeof(V) / sizeof(value[0]); ++l) out[l] = std::sqrt(value[l]);
    return out;
}
// a * b + c, fused where the instruction set can: for what is bounded, not for what is decided.
template <class V> inline V fused(V a, V b, V c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    V out;
    for (unsigned l = 0; l < sizeof(V) / sizeof(a[0]); ++l) out[l] = std::fma(a[l], b[l], c[l]);
    return out;
#else
    return a * b + c;
#endif
}
// In the order of the lanes: the same bits each time.
template <class V> inline double sum_of_lanes(V value) {
    double total = 0;
    for (unsigned l = 0; l < sizeof(V) / sizeof(value[0]); ++l) total += (double)value[l];
    return total;
}
// Bit l says whether lane l of the comparison holds.
inline unsigned bits_of(Vec<std::int32_t> mask) {
#if defined(__AVX512DQ__)
    return _mm512_movepi32_mask((__m512i)mask);
#elif defined(__AVX2__)
    return (unsigned)_mm256_movemask_ps((__m256)mask);
#elif defined(__SSE2__)
    return (unsigned)_mm_movemask_ps((__m128)mask);
#else
    unsigned bits = 0;
    for (int l = 0; l < lanes<std::int32_t>; ++l) bits |= (unsigned)(mask[l] != 0) << l;
    return bits;
#endif
}

// What an entry point returns: 0, or 1 where memory ran out (2: not served; 3: the arguments contradict one another).
template <class F> int guarded(F body) {
    try {
        return body();
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

inline std::int64_t ceil_to(std::int64_t n, std::int64_t step) { return (n + step - 1) / step * step; }

}  // namespace MMP_ISA
