// Reads single weights out of a panel (model/quant_format.h). Slow and plain: for the reference and for table lookups.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/backend/cpu/kernels.h"
#include "runtime/base/half.h"

namespace lethe::cpu {

struct Panel {
  const uint8_t* data;
  WeightFormat format;
  size_t cols;
};

inline Panel panel_at(const MatrixView& matrix, size_t index) {
  return {matrix.data + index * panel_bytes(matrix.format, matrix.cols), matrix.format, matrix.cols};
}

// Weight = scale * quant + minimum. `unit` counts the inputs that share a scale.
struct UnitParams {
  float scale, minimum;
};

inline UnitParams panel_params(const Panel& panel, size_t row, size_t unit) {
  const auto* halves = reinterpret_cast<const uint16_t*>(panel.data + params_offset(panel.format, unit));
  const float scale = half_to_float(halves[row]);
  if (has_minimum(panel.format)) return {scale, half_to_float(halves[kPanelRows + row])};
  return {scale, scale * static_cast<float>(-quant_offset(panel.format))};
}

// The stored unsigned quant.
inline int panel_quant(const Panel& panel, size_t row, size_t k) {
  const size_t inputs = scale_inputs(panel.format);
  const uint8_t* bytes = panel.data + quants_offset(panel.format, k / inputs) + row * 4 + k % 4;
  const size_t in_unit = k % inputs;
  if (panel.format == WeightFormat::kQ8) return bytes[in_unit / 4 * kLineBytes];
  const uint8_t both = bytes[in_unit / 8 * kLineBytes];
  const int low = k % 8 < 4 ? both & 15 : both >> 4;
  const size_t high_bits = quant_bits(panel.format) - 4;
  if (high_bits == 0) return low;
  const int high = bytes[inputs / 8 * kLineBytes] >> (in_unit / 4 * high_bits);
  return low | (high & ((1 << high_bits) - 1)) << 4;
}

inline float panel_weight(const Panel& panel, size_t row, size_t k) {
  switch (panel.format) {
    case WeightFormat::kF32: return reinterpret_cast<const float*>(panel.data)[k * kPanelRows + row];
    case WeightFormat::kF16: return half_to_float(reinterpret_cast<const uint16_t*>(panel.data)[k * kPanelRows + row]);
    default: {
      const UnitParams params = panel_params(panel, row, k / scale_inputs(panel.format));
      return params.scale * static_cast<float>(panel_quant(panel, row, k)) + params.minimum;
    }
  }
}

}  // namespace lethe::cpu
