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

// Weight = scale * quant + minimum.
struct GroupParams {
  float scale, minimum;
};

inline GroupParams panel_params(const Panel& panel, size_t row, size_t group) {
  const auto* halves = reinterpret_cast<const uint16_t*>(panel.data);
  if (panel.format == WeightFormat::kQ4M) {
    const uint16_t* line = halves + group * 2 * kPanelRows;
    return {half_to_float(line[row]), half_to_float(line[kPanelRows + row])};
  }
  const float scale = half_to_float(halves[group * kPanelRows + row]);
  return {scale, scale * (panel.format == WeightFormat::kQ8 ? -128.0f : -8.0f)};
}

// The stored unsigned quant.
inline int panel_quant(const Panel& panel, size_t row, size_t k) {
  const uint8_t* lines = panel.data + panel_params_bytes(panel.format, panel.cols);
  if (panel.format == WeightFormat::kQ8) return lines[k / 4 * kLineBytes + row * 4 + k % 4];
  const uint8_t both = lines[k / 8 * kLineBytes + row * 4 + k % 4];
  return k % 8 < 4 ? both & 15 : both >> 4;
}

inline float panel_weight(const Panel& panel, size_t row, size_t k) {
  switch (panel.format) {
    case WeightFormat::kF32: return reinterpret_cast<const float*>(panel.data)[k * kPanelRows + row];
    case WeightFormat::kF16: return half_to_float(reinterpret_cast<const uint16_t*>(panel.data)[k * kPanelRows + row]);
    default: {
      const GroupParams params = panel_params(panel, row, k / kGroup);
      return params.scale * static_cast<float>(panel_quant(panel, row, k)) + params.minimum;
    }
  }
}

}  // namespace lethe::cpu
