// Definitions that let one source compile with g++, with nvcc or NVRTC, and under csrc/emulation.
#pragma once

#if defined(__CUDACC__)
#define MMP_HD __host__ __device__ __forceinline__
#else
#define MMP_HD inline
#endif

// NVRTC has no <stdint.h>. These types have 64 bits on every supported target.
typedef long long mmp_i64;
typedef unsigned long long mmp_u64;
