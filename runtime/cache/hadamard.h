// The Walsh-Hadamard transform of a key or a value before it is stored in 4 bits.
//
// A row of 4-bit numbers has one scale, so one large element would cost all others their precision; keys of most models
// have a few large ones, always in the same places. The transform spreads them over its block (QuaRot, Ashkboos et al.
// 2024, section 3). It is orthogonal and its own inverse: products of two transformed rows are those of the rows, and
// sums of transformed rows are the transformed sum.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace lethe {

// A row is transformed in blocks of the largest power of two that divides head_dim, at most this many elements.
inline constexpr size_t kMaxHadamardBlock = 256;
constexpr size_t hadamard_block(size_t head_dim) { return std::min(head_dim & (~head_dim + 1), kMaxHadamardBlock); }

// In place: element i of a block becomes sum of (-1)^popcount(i & j) * element j over the block, / sqrt(block).
//   x [head_dim][width]: `width` rows at once, transposed
template <typename T>
void hadamard(T* x, size_t head_dim, size_t width) {
  const size_t block = hadamard_block(head_dim);
  for (size_t stride = 1; stride < block; stride *= 2) {
    for (size_t d = 0; d < head_dim; ++d) {
      if ((d & stride) != 0) continue;  // blocks begin at multiples of their size
      T* const low = x + d * width;
      T* const high = low + stride * width;
      for (size_t i = 0; i < width; ++i) {
        const T sum = low[i] + high[i], difference = low[i] - high[i];
        low[i] = sum;
        high[i] = difference;
      }
    }
  }
  const T factor = 1 / std::sqrt(static_cast<T>(block));
  for (size_t i = 0; i < head_dim * width; ++i) x[i] *= factor;
}

}  // namespace lethe
