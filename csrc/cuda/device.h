// What every kernel begins with: how it is declared, its shared memory, and sums over a warp.
//
// No kernel includes a system header, so that NVRTC compiles it from these sources alone. csrc/emulation defines
// MMP_EMULATION and its own forms of the same names, and runs the kernels on the CPU.
#pragma once
#include "../common/portable.h"

#if !defined(MMP_EMULATION)
#define MMP_KERNEL extern "C" __global__
#define MMP_DEVICE __device__ __forceinline__
// For long functions that unrolled loops call.
#define MMP_OUTLINED __device__ __noinline__
// Shared by the threads of a block; `type` needs no constructor.
#define MMP_SHARED(type, name) __shared__ type name
// It has as many elements as fit into the bytes that the launch asked for.
#define MMP_SHARED_BYTES(type, name)                                  \
    extern __shared__ __align__(16) unsigned char mmp_shared_bytes[]; \
    type* const name = reinterpret_cast<type*>(mmp_shared_bytes)
#endif

// All lanes of a warp.
#define MMP_WARP 0xffffffffu

MMP_DEVICE int mmp_lane() { return (int)(threadIdx.x & 31); }

// The number of lanes before this one that are set in `bits`.
MMP_DEVICE int mmp_rank(unsigned bits) { return __popc(bits & ((1u << mmp_lane()) - 1)); }

// Sums over the lanes in a fixed tree; all lanes have the result.
template <class T> MMP_DEVICE T mmp_warp_sum(T value) {
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(MMP_WARP, value, step);
    return value;
}

#if !defined(MMP_EMULATION)
// Begins to copy 16 bytes into shared memory, without registers on devices that can; both addresses are aligned.
MMP_DEVICE void mmp_copy_four(float* to, const float* from) {
#if __CUDA_ARCH__ >= 800
    const unsigned at = (unsigned)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(from) : "memory");
#else
    *reinterpret_cast<float4*>(to) = *reinterpret_cast<const float4*>(from);
#endif
}
// Waits for the copies that this thread has begun. A barrier then makes them visible to the others.
MMP_DEVICE void mmp_end_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}
// The same number, hidden from the compiler: it computes results of it again instead of keeping them in registers.
MMP_DEVICE float mmp_anew(float value) {
    asm volatile("" : "+f"(value));
    return value;
}
#endif

// A float as the integer of its bits, and back.
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

// a * b + c, rounded once: for sums, not for decisions.
MMP_DEVICE float mmp_fused(float a, float b, float c) { return fmaf(a, b, c); }
MMP_DEVICE double mmp_fused(double a, double b, double c) { return fma(a, b, c); }

// 1 / sqrt(x) of a normal number above 0, in float32 off by up to 2^-22.9 of itself: for sums, not for decisions.
#if defined(MMP_EMULATION)
// The emulation is off as far as a GPU may be, to one side or the other.
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

MMP_DEVICE double mmp_larger(double a, double b) { return a > b ? a : b; }
