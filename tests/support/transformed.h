// What 4-bit keys and values go through, written down from the text of runtime/cache/hadamard.h and not from its code.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <vector>

namespace lethe::test {

// Blocks of the largest power of two in the length, at most 256.
inline std::vector<double> transformed(const std::vector<double>& x) {
  size_t block = 1;
  while (block < 256 && x.size() % (2 * block) == 0) block *= 2;
  std::vector<double> out(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    for (size_t j = i / block * block; j < (i / block + 1) * block; ++j) {
      const bool negative = std::popcount((i & j) % block) % 2 == 1;
      out[i] += (negative ? -x[j] : x[j]) / std::sqrt(static_cast<double>(block));
    }
  }
  return out;
}

}  // namespace lethe::test
