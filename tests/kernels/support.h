// Shared by the kernel tests: random data, buffers of exact size, and a loop over the SIMD targets of this machine.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "runtime/backend/cpu/all_targets.h"
#include "runtime/backend/cpu/kernels.h"

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
  int targets = 0;
  for_each_simd_target([&](int64_t target, const Kernels& kernels) {
    CAPTURE(kernels.name);
    REQUIRE(std::string(kernels.name) == target_name(target));
    test(kernels);
    ++targets;
  });
  REQUIRE(targets != 0);
}

// Quantised activations that own their memory.
struct Activations {
  Activations(size_t rows, size_t k) : quants(rows * k), scales(rows * k / kGroup), sums(scales), half_sums(scales) {}
  QuantisedRows view() { return {quants.data(), scales.data(), sums.data(), half_sums.data()}; }
  std::vector<int8_t> quants;
  std::vector<float> scales, sums, half_sums;
};

}  // namespace lethe::cpu
