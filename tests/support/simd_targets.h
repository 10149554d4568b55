// A loop over the SIMD targets of this machine, for vector code that is called through Highway's dynamic dispatch.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>

#include "runtime/base/simd/all_targets.h"

namespace lethe::test {

// Calls test() once for every target, which is the chosen one meanwhile; there must be one.
template <class Test>
void for_each_target(const Test& test) {
  int targets = 0;
  lethe::for_each_simd_target([&](int64_t target) {
    CAPTURE(target_name(target));
    test();
    ++targets;
  });
  REQUIRE(targets != 0);
}

}  // namespace lethe::test
