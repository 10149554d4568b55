// How the SIMD kernel files hand their functions, for the currently chosen Highway target, to simd_kernels().
#pragma once

#include "runtime/backend/cpu/kernels.h"

namespace lethe::cpu {

void set_simd_linear(Kernels& kernels);
void set_simd_attention(Kernels& kernels);  // attend, merge, weigh
void set_simd_store_kv(Kernels& kernels);
void set_simd_recur(Kernels& kernels);   // recur, absorb, read_state
void set_simd_scan(Kernels& kernels);    // scan, convolve
void set_simd_rows(Kernels& kernels);    // all that rows.cc has
void set_simd_logits(Kernels& kernels);  // name, argmax, log_sum_exp

}  // namespace lethe::cpu
