// What lets one source serve g++, nvcc/NVRTC and the host emulation of a kernel.
#pragma once

#if defined(__CUDACC__)
#define MMP_HD __host__ __device__ __forceinline__
#else
#define MMP_HD inline
#endif

// NVRTC has no <stdint.h>; these are what the targets served here (LP64) agree on.
typedef int mmp_i32;
typedef long long mmp_i64;
typedef unsigned long long mmp_u64;
