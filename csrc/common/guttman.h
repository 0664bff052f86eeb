// The arithmetic of one pair in a SMACOF sweep.
#pragma once
#include "portable.h"

// D_ij / d_ij, the weight of the pair in the Guttman transform; 0 where the points lie `together`.
template <class V, class T>
MMP_HD V mmp_guttman_ratio(V wanted, V between, T together) {
    const V ratio = wanted / between;
    return between > together ? ratio : ratio * 0;
}
