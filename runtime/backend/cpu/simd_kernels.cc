#include "runtime/backend/cpu/kernels.h"
#include "runtime/backend/cpu/simd_tables.h"
#include "runtime/base/simd/target_choice.h"

namespace lethe::cpu {

Kernels simd_kernels() {
  choose_target();
  Kernels kernels = reference_kernels();  // embed_row stays: a strided copy
  set_simd_linear(kernels);
  set_simd_attention(kernels);
  set_simd_store_kv(kernels);
  set_simd_recur(kernels);
  set_simd_scan(kernels);
  set_simd_rows(kernels);
  set_simd_logits(kernels);
  return kernels;
}

}  // namespace lethe::cpu
