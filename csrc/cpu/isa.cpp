// Facts about this library: its instruction sets, the hash of its sources, and whether it has OpenMP.
#include "simd.h"

#if !defined(MMPHATE_STAMP)
#define MMPHATE_STAMP "unstamped"
#endif

MMP_API const char* mmphate_stamp() { return MMPHATE_STAMP; }

// The widest instruction set that both the processor and this build have. It is the suffix of the entry points.
MMP_API const char* mmphate_isa() {
#if defined(MMPHATE_X86)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        return "avx512";
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "avx2";
#endif
    return "baseline";
}

MMP_API int mmphate_openmp() {
#if defined(_OPENMP)
    return 1;
#else
    return 0;
#endif
}
