// Packs a float matrix into the panel layout, written from the text of runtime/model/quant_format.h and nothing else:
// what kernels and the product's own packer are compared with.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "runtime/base/half.h"
#include "runtime/model/quant_format.h"

namespace lethe::test {

struct alignas(64) Line {
  uint8_t bytes[64];
};

struct PackedMatrix {
  std::vector<Line> lines;     // the file's bytes
  std::vector<float> weights;  // what they mean, [rows][cols]
  const uint8_t* data() const { return lines[0].bytes; }
};

struct PackedGroup {
  float scale = 0, minimum = 0;  // exactly representable as halves
  int quants[kGroup] = {};
};

// w = scale * quant + minimum, the quants being unsigned.
inline PackedGroup pack_group(WeightFormat format, const float* w) {
  const auto as_half = [](float x) { return half_to_float(float_to_half(x)); };
  const auto [low, high] = std::minmax_element(w, w + kGroup);
  const float largest = std::max(-*low, *high);
  PackedGroup group;
  int last = 15;
  switch (format) {
    case WeightFormat::kQ8:
      group.scale = as_half(largest / 127);
      group.minimum = -128 * group.scale;
      last = 255;
      break;
    case WeightFormat::kQ4:
      group.scale = as_half(largest / 8);
      group.minimum = -8 * group.scale;
      break;
    default: group.scale = as_half((*high - *low) / 15); group.minimum = as_half(*low);
  }
  for (size_t i = 0; i < kGroup && group.scale != 0; ++i) {
    const int nearest = static_cast<int>(std::lround((w[i] - group.minimum) / group.scale));
    group.quants[i] = std::clamp(nearest, 0, last);
  }
  return group;
}

inline PackedMatrix pack_weights(WeightFormat format, std::span<const float> w, size_t rows, size_t cols) {
  PackedMatrix packed;
  packed.weights.assign(w.begin(), w.end());
  packed.lines.resize(tensor_bytes(format, rows, cols) / kLineBytes, Line{});
  const size_t line_count = packed.lines.size() / ((rows + 15) / 16);
  for (size_t row = 0; row < rows; ++row) {
    uint8_t* panel = reinterpret_cast<uint8_t*>(packed.lines.data() + row / 16 * line_count);
    const size_t r = row % 16;
    const auto put_half = [&](size_t index, float value) {
      const uint16_t half = float_to_half(value);
      std::memcpy(panel + 2 * index, &half, 2);
    };
    if (!is_quantised(format)) {
      for (size_t k = 0; k < cols; ++k) {
        float& value = packed.weights[row * cols + k];
        if (format == WeightFormat::kF32) {
          std::memcpy(panel + 4 * (k * 16 + r), &value, 4);
        } else {
          put_half(k * 16 + r, value);
          value = half_to_float(float_to_half(value));
        }
      }
      continue;
    }
    const size_t groups = cols / 32;
    const size_t params = format == WeightFormat::kQ4M ? groups * 64 : (groups * 32 + 63) / 64 * 64;
    for (size_t g = 0; g < groups; ++g) {
      const PackedGroup group = pack_group(format, &w[row * cols + g * 32]);
      if (format == WeightFormat::kQ4M) {
        put_half(g * 32 + r, group.scale);
        put_half(g * 32 + 16 + r, group.minimum);
      } else {
        put_half(g * 16 + r, group.scale);
      }
      for (size_t i = 0; i < 32; ++i) {
        const size_t k = g * 32 + i;
        const int quant = group.quants[i];
        if (format == WeightFormat::kQ8) {
          panel[params + k / 4 * 64 + 4 * r + k % 4] = static_cast<uint8_t>(quant);
        } else {
          panel[params + k / 8 * 64 + 4 * r + k % 4] |= static_cast<uint8_t>(k % 8 < 4 ? quant : quant << 4);
        }
        packed.weights[row * cols + k] = group.scale * static_cast<float>(quant) + group.minimum;
      }
    }
  }
  return packed;
}

}  // namespace lethe::test
