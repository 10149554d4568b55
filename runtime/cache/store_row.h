// One key or value rounded to what a block holds of it: the plain definition of Kernels::store_kv, and how values are
// written between steps.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "runtime/base/half.h"
#include "runtime/cache/hadamard.h"
#include "runtime/cache/kv_layout.h"

namespace lethe {

// The scale of a row in integers of 8 or 4 bits; NaN when an element is not finite, which integers would hide.
inline float row_scale(const float* x, size_t n, uint32_t bits) {
  float largest = 0, poison = 0;
  for (size_t i = 0; i < n; ++i) {
    largest = std::max(largest, std::abs(x[i]));
    poison += x[i] * 0;
  }
  return largest / static_cast<float>(largest_quant(bits)) + poison;
}

// What rows are divided by: a scale of 0 is that of a row of zeros.
inline float divisor_of(float scale) { return std::max(scale, std::numeric_limits<float>::min()); }

// The integer for an element in units of the scale: of 8 bits itself, of 4 bits its code.
inline int to_code(uint32_t bits, float ratio) {
  const float code = bits == 8 ? ratio : (ratio + static_cast<float>(kOffset4)) / 2;
  const float least = bits == 8 ? -127 : 0, most = bits == 8 ? 127 : 15;
  return static_cast<int>(code >= least ? std::nearbyint(std::min(code, most)) : least);
}

// The codes of a byte, low bits first.
inline void put_4_bits(uint8_t& byte, int code, int shift) {
  byte = static_cast<uint8_t>(shift == 0 ? code : byte | code << shift);
}

// k [head_dim], transformed in place for 4 bits
inline void store_key(const KvLayout& layout, uint8_t* block, size_t slot, float* k) {
  const size_t n = layout.head_dim;
  uint8_t* keys = block + layout.keys_offset;
  if (layout.key_bits == 16) {
    for (size_t d = 0; d < n; ++d) reinterpret_cast<uint16_t*>(keys)[key_index(layout, slot, d)] = float_to_half(k[d]);
    return;
  }
  if (layout.key_bits == 4) hadamard(k, n, 1);
  const float scale = row_scale(k, n, layout.key_bits);
  reinterpret_cast<float*>(block + layout.key_scale_offset)[slot] = scale;
  for (size_t d = 0; d < n; ++d) {
    uint8_t& byte = keys[key_index(layout, slot, d)];
    const int code = to_code(layout.key_bits, k[d] / divisor_of(scale));
    if (layout.key_bits == 8) {
      byte = static_cast<uint8_t>(code + kKeyOffset);
    } else {
      put_4_bits(byte, code, key_shift(d));
    }
  }
}

// v [head_dim], transformed in place for 4 bits
inline void store_value(const KvLayout& layout, uint8_t* block, size_t slot, float* v) {
  const size_t n = layout.head_dim;
  uint8_t* values = block + layout.values_offset;
  if (layout.value_bits == 16) {
    for (size_t d = 0; d < n; ++d) {
      reinterpret_cast<uint16_t*>(values)[value_index(layout, slot, d)] = float_to_half(v[d]);
    }
    return;
  }
  if (layout.value_bits == 4) hadamard(v, n, 1);
  const float scale = row_scale(v, n, layout.value_bits);
  reinterpret_cast<float*>(block + layout.value_scale_offset)[slot] = scale;
  for (size_t d = 0; d < n; ++d) {
    uint8_t& byte = values[value_index(layout, slot, d)];
    const int code = to_code(layout.value_bits, v[d] / divisor_of(scale));
    if (layout.value_bits == 8) {
      byte = static_cast<uint8_t>(code);
    } else {
      put_4_bits(byte, code, value_shift(layout, d));
    }
  }
}

}  // namespace lethe
