// Definitions that all kernels use: declarations, shared memory, sums over a warp, and single instructions.
//
// No kernel includes a system header, so that NVRTC compiles it from these sources alone. csrc/emulation defines
// MMP_EMULATION and the same names for the CPU, where it runs the kernels.
#pragma once
#include "../common/portable.h"

typedef int mmp_i32;

#if !defined(MMP_EMULATION)
#define MMP_KERNEL extern "C" __global__
#define MMP_DEVICE __device__ __forceinline__
// For long functions that unrolled loops call.
#define MMP_OUTLINED __device__ __noinline__
// A variable in the shared memory of a block. `type` needs no constructor.
#define MMP_SHARED(type, name) __shared__ type name
// An array in shared memory. The launch says how many bytes it has.
#define MMP_SHARED_BYTES(type, name)                                  \
    extern __shared__ __align__(16) unsigned char mmp_shared_bytes[]; \
    type* const name = reinterpret_cast<type*>(mmp_shared_bytes)
#endif

// All lanes of a warp.
#define MMP_WARP 0xffffffffu

MMP_DEVICE int mmp_lane() { return (int)(threadIdx.x & 31); }

// How many lanes before this one are set in `bits`.
MMP_DEVICE int mmp_rank(unsigned bits) { return __popc(bits & ((1u << mmp_lane()) - 1)); }

// The sum over the lanes in a fixed tree. All lanes have the result.
template <class T> MMP_DEVICE T mmp_warp_sum(T value) {
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(MMP_WARP, value, step);
    return value;
}

#if !defined(MMP_EMULATION)
// Begins to copy 16 bytes into shared memory. Both addresses are aligned to 16 bytes. Since compute capability 8.0 the
// copy passes through no register.
MMP_DEVICE void mmp_copy_four(float* to, const float* from) {
#if __CUDA_ARCH__ >= 800
    const unsigned at = (unsigned)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(from) : "memory");
#else
    *reinterpret_cast<float4*>(to) = *reinterpret_cast<const float4*>(from);
#endif
}
// Waits for the copies that this thread has begun. A barrier then makes them visible to the other threads.
MMP_DEVICE void mmp_end_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}
// The same number, hidden from the compiler. So the compiler does not keep earlier results of it in registers.
MMP_DEVICE float mmp_anew(float value) {
    asm volatile("" : "+f"(value));
    return value;
}
#endif

// The bits of a float as an integer, and the reverse.
MMP_DEVICE int mmp_bits_of(float value) {
    union {
        float value;
        int bits;
    } u;
    u.value = value;
    return u.bits;
}
MMP_DEVICE float mmp_of_bits(int bits) {
    union {
        int bits;
        float value;
    } u;
    u.bits = bits;
    return u.value;
}

// a * b + c, rounded once. Sums may use it, decisions may not.
MMP_DEVICE float mmp_fused(float a, float b, float c) { return fmaf(a, b, c); }
MMP_DEVICE double mmp_fused(double a, double b, double c) { return fma(a, b, c); }

// 1 / sqrt(x) of a normal number above 0. In float32 it is off by up to 2^-22.9 of itself, so decisions may not use it.
#if defined(MMP_EMULATION)
// The emulation is off as far as a GPU may be, upwards for some numbers and downwards for others.
MMP_DEVICE float mmp_inverse_root(float x) {
    const double exact = 1 / sqrt((double)x);
    return (float)(exact * (1 + (x * 1024 == floorf(x * 1024) ? 1.2e-7 : -1.2e-7)));
}
MMP_DEVICE double mmp_inverse_root(double x) { return 1 / sqrt(x); }
#else
MMP_DEVICE float mmp_inverse_root(float x) {
    float y;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
MMP_DEVICE double mmp_inverse_root(double x) { return rsqrt(x); }
#endif

// 1 / x of a normal float, off by up to 2^-23 of itself. Decisions may not use it.
#if defined(MMP_EMULATION)
MMP_DEVICE float mmp_inverse(float x) { return (float)(1 / (double)x * ((int)x % 2 ? 1 + 5.9e-8 : 1 - 5.9e-8)); }
#else
MMP_DEVICE float mmp_inverse(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#endif

MMP_DEVICE double mmp_larger(double a, double b) { return a > b ? a : b; }
