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

// A block of 32 as ggml stores it: halves first, then quants; nibbles: inputs 0..15 low, 16..31 high.
QuantGroup read_block(GgmlType type, const uint8_t* block) {
  QuantGroup group;
  std::memcpy(&group.d, block, 2);
  if (type == GgmlType::kQ8_0) {
    for (size_t i = 0; i < kGroup; ++i) group.q[i] = block[2 + i] ^ 0x80u;  // signed to offset 128
    return group;
  }
  const uint8_t* nibbles = block + 2;
  if (type == GgmlType::kQ4_1) {
    std::memcpy(&group.m, block + 2, 2);
    nibbles += 2;
  }
  for (size_t i = 0; i < kGroup / 2; ++i) {
    group.q[i] = nibbles[i] & 15u;
    group.q[i + kGroup / 2] = static_cast<uint8_t>(nibbles[i] >> 4);
  }
  return group;
}

WeightFormat format_of_blocks(GgmlType type) {
  switch (type) {
    case GgmlType::kQ8_0: return WeightFormat::kQ8;
    case GgmlType::kQ4_0: return WeightFormat::kQ4;
    default: return WeightFormat::kQ4M;
  }
}

void store_group(WeightFormat format, const QuantGroup& group, size_t cols, size_t r, size_t index, uint8_t* panel) {
  uint8_t* params = panel + index * kPanelRows * (format == WeightFormat::kQ4M ? 4 : 2) + 2 * r;
  std::memcpy(params, &group.d, 2);
  if (format == WeightFormat::kQ4M) std::memcpy(params + 2 * kPanelRows, &group.m, 2);

  const size_t lines = format == WeightFormat::kQ8 ? kGroup / 4 : kGroup / 8;
  uint8_t* out = panel + panel_params_bytes(format, cols) + index * lines * kLineBytes + 4 * r;
  for (size_t line = 0; line < lines; ++line, out += kLineBytes) {
    if (format == WeightFormat::kQ8) {
      std::memcpy(out, group.q + 4 * line, 4);
    } else {
      for (size_t j = 0; j < 4; ++j) {
        out[j] = static_cast<uint8_t>(group.q[8 * line + j] | group.q[8 * line + 4 + j] << 4);
      }
    }
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

void dequantise_group(WeightFormat format, const QuantGroup& group, float* out) {
  const float d = half_to_float(group.d);
  const float m = half_to_float(group.m);
  const int offset = format == WeightFormat::kQ8 ? 128 : format == WeightFormat::kQ4 ? 8 : 0;
  for (size_t i = 0; i < kGroup; ++i) {
    const float scaled = d * static_cast<float>(group.q[i] - offset);
    out[i] = format == WeightFormat::kQ4M ? scaled + m : scaled;
  }
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
  const uint8_t* block = row_data(row);
  for (size_t index = 0; index < row_.size() / kGroup; ++index, block += ggml_block(source_.type).bytes) {
    const QuantGroup group = read_block(source_.type, block);
    if (!is_finite_half(group.d) || !is_finite_half(group.m)) {
      return Status::error(ErrorCode::kCorruptModel, "tensor %.100s: a scale in row %" PRIu64 " is not finite",
                           source_.name.c_str(), row);
    }
    store_group(target_, group, row_.size(), r, index, panel);
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
        const QuantGroup group = read_block(source_.type, data + index * ggml_block(source_.type).bytes);
        dequantise_group(format_of_blocks(source_.type), group, row_.data() + index * kGroup);
      }
  }
  uint32_t not_finite = 0;  // no early exit: the loop vectorises
  for (const float weight : row_) not_finite |= (std::bit_cast<uint32_t>(weight) & 0x7f800000u) == 0x7f800000u;
  if (not_finite == 0) return {};
  return Status::error(ErrorCode::kCorruptModel, "tensor %.100s: a weight in row %" PRIu64 " is not finite",
                       source_.name.c_str(), row);
}

Status PanelConverter::store_row(size_t r, uint8_t* panel) {
  const size_t cols = row_.size();
  const auto too_large = [this] {
    return Status::error(ErrorCode::kUnsupported, "tensor %.100s: a weight is too large for %s", source_.name.c_str(),
                         weight_format_name(target_));
  };
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
    store_group(target_, group, cols, r, index, panel);
    dequantise_group(target_, group, stored);
    for (size_t i = 0; i < kGroup; ++i) error_.add(row_[index * kGroup + i], stored[i]);
  }
  return {};
}

}  // namespace lethe
