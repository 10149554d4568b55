// A loop over the SIMD targets of this machine, for vector code that is called through Highway's dynamic dispatch.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>

#include "hwy/targets.h"
#include "runtime/base/simd/targets.h"  // limits HWY_TARGETS to what is compiled

namespace lethe::test {

// Calls test() once for every target that was compiled and that this CPU can run, which is the chosen one meanwhile.
template <class Test>
void for_each_simd_target(const Test& test) {
  const auto choose = [](int64_t targets) {
    hwy::SetSupportedTargetsForTest(targets);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  };
  const int64_t all = hwy::SupportedTargets() & HWY_TARGETS;
  REQUIRE(all != 0);
  for (int64_t rest = all; rest != 0; rest &= rest - 1) {
    const int64_t target = rest & -rest;
    CAPTURE(hwy::TargetName(target));
    choose(target);
    test();
  }
  choose(0);
}

}  // namespace lethe::test
