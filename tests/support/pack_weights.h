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

// What the text says of a quantised format.
struct QuantText {
  int bits, offset;
  size_t inputs;  // of a unit
  bool minimum;

  size_t unit_lines() const { return inputs * static_cast<size_t>(bits) / 32; }
  // Bytes from the panel's start to the parameters and to the quants of a unit.
  size_t params_at(size_t unit) const {
    return minimum ? unit * (1 + unit_lines()) * 64 : unit / 2 * (1 + 2 * unit_lines()) * 64 + unit % 2 * 32;
  }
  size_t quants_at(size_t unit) const {
    return minimum ? unit * (1 + unit_lines()) * 64 + 64
                   : (unit / 2 * (1 + 2 * unit_lines()) + 1 + unit % 2 * unit_lines()) * 64;
  }
  size_t panel_bytes(size_t cols) const {
    const size_t units = cols / inputs;
    return (minimum ? units : (units + 1) / 2) * 64 + units * unit_lines() * 64;
  }
};
inline QuantText quant_text(WeightFormat format) {
  switch (format) {
    case WeightFormat::kQ8: return {8, 128, 32, false};
    case WeightFormat::kQ4: return {4, 8, 32, false};
    case WeightFormat::kQ4M: return {4, 0, 32, true};
    case WeightFormat::kQ5: return {5, 16, 32, false};
    case WeightFormat::kQ5M: return {5, 0, 32, true};
    default: return {6, 32, 16, false};
  }
}

struct PackedUnit {
  float scale = 0, minimum = 0;  // exactly representable as halves, or a small multiple of one
  int quants[32] = {};
};

// w = scale * quant + minimum, the quants being unsigned.
inline PackedUnit pack_unit(const QuantText& text, const float* w) {
  const auto as_half = [](float x) { return half_to_float(float_to_half(x)); };
  const auto [low, high] = std::minmax_element(w, w + text.inputs);
  const float largest = std::max(-*low, *high);
  const int last = (1 << text.bits) - 1;
  PackedUnit unit;
  if (text.minimum) {
    unit.scale = as_half((*high - *low) / static_cast<float>(last));
    unit.minimum = as_half(*low);
  } else {
    unit.scale = as_half(largest / static_cast<float>(text.bits == 8 ? 127 : text.offset));
    unit.minimum = static_cast<float>(-text.offset) * unit.scale;
  }
  for (size_t i = 0; i < text.inputs && unit.scale != 0; ++i) {
    const int nearest = static_cast<int>(std::lround((w[i] - unit.minimum) / unit.scale));
    unit.quants[i] = std::clamp(nearest, 0, last);
  }
  return unit;
}

// ORs input i of a unit into the row's bytes of the unit's lines.
inline void put_quant(const QuantText& text, size_t i, int quant, uint8_t* row) {
  const auto put = [row, i](size_t line, int bits) { row[line * 64 + i % 4] |= static_cast<uint8_t>(bits); };
  if (text.bits == 8) return put(i / 4, quant);
  put(i / 8, i % 8 < 4 ? quant & 15 : (quant & 15) << 4);
  const size_t line = i / 8, half = i % 8 / 4;
  if (text.bits == 5) put(4, (quant >> 4) << (2 * line + half));
  if (text.bits == 6) put(2, (quant >> 4) << (4 * line + 2 * half));
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
    const QuantText text = quant_text(format);
    for (size_t u = 0; u < cols / text.inputs; ++u) {
      const PackedUnit unit = pack_unit(text, &w[row * cols + u * text.inputs]);
      put_half(text.params_at(u) / 2 + r, unit.scale);
      if (text.minimum) put_half(text.params_at(u) / 2 + 16 + r, unit.minimum);
      for (size_t i = 0; i < text.inputs; ++i) {
        put_quant(text, i, unit.quants[i], panel + text.quants_at(u) + 4 * r);
        packed.weights[row * cols + u * text.inputs + i] =
            unit.scale * static_cast<float>(unit.quants[i]) + unit.minimum;
      }
    }
  }
  return packed;
}

}  // namespace lethe::test
