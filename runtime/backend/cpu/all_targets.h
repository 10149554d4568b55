// The tables of kernels of all targets, where simd_kernels() gives that of the best one: for tests and benchmarks.
#pragma once

#include <cstdint>

#include "hwy/targets.h"
#include "runtime/backend/cpu/kernels.h"
#include "runtime/base/simd/targets.h"  // limits HWY_TARGETS to what the kernels are compiled for

namespace lethe::cpu {

// Calls use(target, kernels) for every target that was compiled and that this CPU can run, the best one first. The
// tables stay valid. Not thread-safe: meanwhile the process has no other target.
template <class Use>
void for_each_simd_target(const Use& use) {
  for (int64_t rest = hwy::SupportedTargets() & HWY_TARGETS; rest != 0; rest &= rest - 1) {
    const int64_t target = rest & -rest;
    hwy::SetSupportedTargetsForTest(target);
    use(target, simd_kernels());
  }
  hwy::SetSupportedTargetsForTest(0);
}

}  // namespace lethe::cpu
