#include "tools/pack/convert.h"

#include <algorithm>
#include <bit>
#include <cinttypes>
#include <cmath>
#include <cstring>

#include "runtime/base/half.h"

namespace lethe {
namespace {

bool is_finite_half(uint16_t half) { return (half & 0x7c00u) != 0x7c00u; }

// Writes row r's group into a zeroed panel.
void store_group(WeightFormat format, const QuantGroup& group, size_t r, size_t index, uint8_t* panel) {
  const auto put_half = [panel, r](size_t offset, float value) {
    const uint16_t half = float_to_half(value);
    std::memcpy(panel + offset + 2 * r, &half, 2);
  };
  const size_t inputs = scale_inputs(format), units = kGroup / inputs;
  for (size_t unit = 0; unit < units; ++unit) put_half(params_offset(format, index * units + unit), group.d[unit]);
  if (has_minimum(format)) put_half(params_offset(format, index) + 2 * kPanelRows, group.m);
  const size_t high_bits = quant_bits(format) - 4;
  for (size_t i = 0; i < kGroup; ++i) {
    uint8_t* unit = panel + quants_offset(format, index * units + i / inputs) + 4 * r + i % 4;
    const size_t in_unit = i % inputs;
    if (format == WeightFormat::kQ8) {
      unit[in_unit / 4 * kLineBytes] = group.q[i];
      continue;
    }
    unit[in_unit / 8 * kLineBytes] |= static_cast<uint8_t>((group.q[i] & 15u) << (in_unit / 4 % 2 * 4));
    if (high_bits == 0) continue;
    unit[inputs / 8 * kLineBytes] |= static_cast<uint8_t>((group.q[i] >> 4) << (in_unit / 4 * high_bits));
  }
}

}  // namespace

void ConversionError::add(float source, float stored) {
  const double difference = std::abs(static_cast<double>(source) - static_cast<double>(stored));
  max_abs = std::max(max_abs, difference);
  sum_of_squares += difference * difference;
}

bool is_same_format(GgmlType source, WeightFormat target) {
  return ggml_block(source).elements != 1 && format_of_blocks(source) == target;
}

PanelConverter::PanelConverter(const SourceTensor& source, WeightFormat target)
    : source_(source), target_(target), row_(static_cast<size_t>(source.cols)) {}

const uint8_t* PanelConverter::row_data(uint64_t row) const {
  const GgmlBlock block = ggml_block(source_.type);
  return source_.data.data() + row * (source_.cols / block.elements * block.bytes);
}

Status PanelConverter::convert_panel(std::span<const uint64_t> rows, uint8_t* panel) {
  std::memset(panel, 0, panel_bytes(target_, row_.size()));
  for (size_t r = 0; r < rows.size(); ++r) {
    if (is_same_format(source_.type, target_)) {
      LETHE_RETURN_IF_ERROR(copy_groups(rows[r], r, panel));
    } else {
      LETHE_RETURN_IF_ERROR(read_row(rows[r]));
      LETHE_RETURN_IF_ERROR(store_row(r, panel));
    }
  }
  return {};
}

Status PanelConverter::convert_vector(uint8_t* out) {
  LETHE_RETURN_IF_ERROR(read_row(0));
  std::memset(out, 0, tensor_bytes(WeightFormat::kF32Vector, 1, row_.size()));
  std::memcpy(out, row_.data(), row_.size() * sizeof(float));
  return {};
}

Status PanelConverter::copy_groups(uint64_t row, size_t r, uint8_t* panel) {
  const uint8_t* data = row_data(row);
  for (size_t index = 0; index < row_.size() / kGroup; ++index) {
    const QuantGroup group = read_group(source_.type, data, index);
    if (!std::isfinite(group.d[0]) || !std::isfinite(group.d[1]) || !std::isfinite(group.m)) {
      return Status::error(ErrorCode::kCorruptModel, "tensor %.100s: a scale in row %" PRIu64 " is not finite",
                           source_.name.c_str(), row);
    }
    QuantGroup stored = group;
    if (!round_params(&stored)) return too_large();
    store_group(target_, stored, r, index, panel);
    if (stored.d[0] == group.d[0] && stored.d[1] == group.d[1] && stored.m == group.m) continue;
    float before[kGroup], after[kGroup];
    dequantise_group(target_, group, before);
    dequantise_group(target_, stored, after);
    for (size_t i = 0; i < kGroup; ++i) error_.add(before[i], after[i]);
  }
  return {};
}

Status PanelConverter::read_row(uint64_t row) {
  const uint8_t* data = row_data(row);
  const size_t cols = row_.size();
  switch (source_.type) {
    case GgmlType::kF32: std::memcpy(row_.data(), data, cols * sizeof(float)); break;
    case GgmlType::kF16:
      for (size_t k = 0; k < cols; ++k) {
        uint16_t half;
        std::memcpy(&half, data + 2 * k, 2);
        row_[k] = half_to_float(half);
      }
      break;
    case GgmlType::kBF16:
      for (size_t k = 0; k < cols; ++k) {
        uint16_t high;
        std::memcpy(&high, data + 2 * k, 2);
        row_[k] = std::bit_cast<float>(static_cast<uint32_t>(high) << 16);
      }
      break;
    default:
      for (size_t index = 0; index < cols / kGroup; ++index) {
        const QuantGroup group = read_group(source_.type, data, index);
        dequantise_group(format_of_blocks(source_.type), group, row_.data() + index * kGroup);
      }
  }
  uint32_t not_finite = 0;  // no early exit: the loop vectorises
  for (const float weight : row_) not_finite |= (std::bit_cast<uint32_t>(weight) & 0x7f800000u) == 0x7f800000u;
  if (not_finite == 0) return {};
  return Status::error(ErrorCode::kCorruptModel, "tensor %.100s: a weight in row %" PRIu64 " is not finite",
                       source_.name.c_str(), row);
}

Status PanelConverter::too_large() const {
  return Status::error(ErrorCode::kUnsupported, "tensor %.100s: a weight is too large for %s", source_.name.c_str(),
                       weight_format_name(target_));
}

Status PanelConverter::store_row(size_t r, uint8_t* panel) {
  const size_t cols = row_.size();
  if (target_ == WeightFormat::kF32) {
    for (size_t k = 0; k < cols; ++k) std::memcpy(panel + (k * kPanelRows + r) * 4, &row_[k], 4);
    return {};
  }
  if (target_ == WeightFormat::kF16) {
    for (size_t k = 0; k < cols; ++k) {
      const uint16_t half = float_to_half(row_[k]);
      if (!is_finite_half(half)) return too_large();
      std::memcpy(panel + (k * kPanelRows + r) * 2, &half, 2);
      error_.add(row_[k], half_to_float(half));
    }
    return {};
  }
  for (size_t index = 0; index < cols / kGroup; ++index) {
    QuantGroup group;
    float stored[kGroup];
    if (!quantise_group(target_, &row_[index * kGroup], &group)) return too_large();
    store_group(target_, group, r, index, panel);
    dequantise_group(target_, group, stored);
    for (size_t i = 0; i < kGroup; ++i) error_.add(row_[index * kGroup + i], stored[i]);
  }
  return {};
}

}  // namespace lethe
