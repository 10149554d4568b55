// A loop over the SIMD targets of this machine, where Highway's dynamic dispatch takes the best one: for tests and
// benchmarks.
#pragma once

#include <cstdint>

#include "hwy/targets.h"
#include "runtime/base/simd/target_choice.h"

namespace lethe {

// Calls use(target) for every target that was compiled and that this CPU can run, the best one first. Meanwhile it is
// the chosen one, for the whole process: not thread-safe.
template <class Use>
void for_each_simd_target(const Use& use) {
  const auto choose = [](int64_t targets) {
    hwy::SetSupportedTargetsForTest(targets);
    choose_target();
  };
  for (int64_t rest = supported_targets(); rest != 0; rest &= rest - 1) {
    const int64_t target = rest & -rest;
    choose(target);
    use(target);
  }
  choose(0);
}

}  // namespace lethe
