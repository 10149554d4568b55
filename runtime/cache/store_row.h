// One key or value rounded to what a block holds of it: the plain definition of Kernels::store_kv, and how values are
// written between steps.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "runtime/base/half.h"
#include "runtime/cache/kv_layout.h"

namespace lethe {

// The scale of a row in int8; NaN when an element is not finite, which integers would hide.
inline float row_scale(const float* x, size_t n) {
  float largest = 0, poison = 0;
  for (size_t i = 0; i < n; ++i) {
    largest = std::max(largest, std::abs(x[i]));
    poison += x[i] * 0;
  }
  return largest / 127 + poison;
}

// What rows are divided by: a scale of 0 is that of a row of zeros.
inline float divisor_of(float scale) { return std::max(scale, std::numeric_limits<float>::min()); }

inline int to_int8(float ratio) {
  return ratio >= -127.0f ? static_cast<int>(std::nearbyint(std::min(ratio, 127.0f))) : -127;
}

// k [head_dim]
inline void store_key(const KvLayout& layout, uint8_t* block, size_t slot, const float* k) {
  const size_t n = layout.head_dim;
  uint8_t* keys = block + layout.keys_offset;
  if (layout.type == KvType::kF16) {
    for (size_t d = 0; d < n; ++d) reinterpret_cast<uint16_t*>(keys)[key_index(layout, slot, d)] = float_to_half(k[d]);
    return;
  }
  const float scale = row_scale(k, n);
  reinterpret_cast<float*>(block + layout.key_scale_offset)[slot] = scale;
  for (size_t d = 0; d < n; ++d) {
    keys[key_index(layout, slot, d)] = static_cast<uint8_t>(to_int8(k[d] / divisor_of(scale)) + kKeyOffset);
  }
}

// v [head_dim]
inline void store_value(const KvLayout& layout, uint8_t* block, size_t slot, const float* v) {
  const size_t n = layout.head_dim;
  uint8_t* values = block + layout.values_offset;
  if (layout.type == KvType::kF16) {
    for (size_t d = 0; d < n; ++d) {
      reinterpret_cast<uint16_t*>(values)[value_index(layout, slot, d)] = float_to_half(v[d]);
    }
    return;
  }
  const float scale = row_scale(v, n);
  reinterpret_cast<float*>(block + layout.value_scale_offset)[slot] = scale;
  for (size_t d = 0; d < n; ++d) {
    values[value_index(layout, slot, d)] = static_cast<uint8_t>(to_int8(v[d] / divisor_of(scale)));
  }
}

}  // namespace lethe
