// The tables of kernels of all targets, where simd_kernels() gives that of the best one: for tests and benchmarks.
#pragma once

#include <cstdint>

#include "runtime/backend/cpu/kernels.h"
#include "runtime/base/simd/all_targets.h"

namespace lethe::cpu {

// Calls use(target, kernels) as lethe::for_each_simd_target does. The tables stay valid.
template <class Use>
void for_each_simd_target(const Use& use) {
  lethe::for_each_simd_target([&](int64_t target) { use(target, simd_kernels()); });
}

}  // namespace lethe::cpu
