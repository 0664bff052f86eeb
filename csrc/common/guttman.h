// The arithmetic of one pair in a SMACOF sweep.
#pragma once
#include "portable.h"

// D_ij / d_ij, the weight of the pair in the Guttman transform; 0 where the points lie `together`.
template <class T> MMP_HD T mmp_guttman_ratio(T wanted, T between, T together) {
    return between > together ? wanted / between : T(0);
}
