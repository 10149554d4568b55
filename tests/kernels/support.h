// Shared by the kernel tests: random data, buffers of exact size, and a loop over the SIMD targets of this machine.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "hwy/targets.h"
#include "runtime/backend/cpu/kernels.h"
#include "runtime/backend/cpu/targets.h"  // limits HWY_TARGETS to what the kernels are compiled for

namespace lethe::cpu {

inline std::mt19937& generator() {
  static std::mt19937 random(20240607);
  return random;
}

inline std::vector<float> random_floats(size_t n, float deviation = 1) {
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(n);
  for (float& value : values) value = normal(generator());
  return values;
}

// Calls test(kernels) with the table of every target that was compiled and that this CPU can run.
template <class Test>
void for_each_target(const Test& test) {
  const int64_t all = hwy::SupportedTargets() & HWY_TARGETS;
  REQUIRE(all != 0);
  for (int64_t rest = all; rest != 0; rest &= rest - 1) {
    const int64_t target = rest & -rest;
    hwy::SetSupportedTargetsForTest(target);
    const Kernels kernels = simd_kernels();
    CAPTURE(kernels.name);
    REQUIRE(std::string(kernels.name) == hwy::TargetName(target));
    test(kernels);
  }
  hwy::SetSupportedTargetsForTest(0);
}

// Quantised activations that own their memory.
struct Activations {
  Activations(size_t rows, size_t k) : quants(rows * k), scales(rows * k / kGroup), sums(scales), half_sums(scales) {}
  QuantisedRows view() { return {quants.data(), scales.data(), sums.data(), half_sums.data()}; }
  std::vector<int8_t> quants;
  std::vector<float> scales, sums, half_sums;
};

}  // namespace lethe::cpu
