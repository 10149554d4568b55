#include "tools/pack/convert.h"

#include <algorithm>
#include <bit>
#include <cinttypes>
#include <cmath>
#include <cstring>
#include <future>
#include <thread>

#include "runtime/base/half.h"

namespace lethe {
namespace {

// A search over fewer weights than these takes less time than starting a thread.
constexpr size_t kThreadWeights = 4096;

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

void ConversionError::add(const ConversionError& other) {
  max_abs = std::max(max_abs, other.max_abs);
  sum_of_squares += other.sum_of_squares;
}

bool is_same_format(GgmlType source, WeightFormat target) {
  return ggml_block(source).elements != 1 && format_of_blocks(source) == target;
}

PanelConverter::PanelConverter(const SourceTensor& source, WeightFormat target, std::span<const float> importance)
    : source_(source), target_(target), cols_(static_cast<size_t>(source.cols)), importance_(importance) {}

const uint8_t* PanelConverter::row_data(uint64_t row) const {
  const GgmlBlock block = ggml_block(source_.type);
  return source_.data.data() + row * (source_.cols / block.elements * block.bytes);
}

Status PanelConverter::convert_panel(std::span<const uint64_t> rows, uint8_t* panel) {
  std::memset(panel, 0, panel_bytes(target_, cols_));
  const bool search = is_quantised(target_) && !is_same_format(source_.type, target_);
  const size_t most = search ? rows.size() * cols_ / kThreadWeights : 1;
  const size_t threads = std::clamp<size_t>(std::thread::hardware_concurrency(), 1, std::clamp<size_t>(most, 1, 16));
  const auto convert_rows = [&](size_t first) {  // no two rows share a byte of the panel
    for (size_t r = first; r < rows.size(); r += threads) {
      rows_[r].error = {};
      rows_[r].status = convert_row(rows[r], r, &rows_[r], panel);
    }
  };
  {
    std::vector<std::future<void>> helpers;  // joined when destroyed
    for (size_t i = 1; i < threads; ++i) helpers.push_back(std::async(std::launch::async, convert_rows, i));
    convert_rows(0);
  }
  for (size_t r = 0; r < rows.size(); ++r) {
    LETHE_RETURN_IF_ERROR(rows_[r].status);
    error_.add(rows_[r].error);
  }
  return {};
}

Status PanelConverter::convert_vector(uint8_t* out) {
  LETHE_RETURN_IF_ERROR(read_row(0, rows_.data()));
  std::memset(out, 0, tensor_bytes(WeightFormat::kF32Vector, 1, cols_));
  std::memcpy(out, rows_[0].weights.data(), cols_ * sizeof(float));
  return {};
}

Status PanelConverter::convert_row(uint64_t row, size_t r, Row* out, uint8_t* panel) const {
  if (is_same_format(source_.type, target_)) return copy_groups(row, r, out, panel);
  LETHE_RETURN_IF_ERROR(read_row(row, out));
  return store_row(r, out, panel);
}

Status PanelConverter::copy_groups(uint64_t row, size_t r, Row* out, uint8_t* panel) const {
  const uint8_t* data = row_data(row);
  for (size_t index = 0; index < cols_ / kGroup; ++index) {
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
    for (size_t i = 0; i < kGroup; ++i) out->error.add(before[i], after[i]);
  }
  return {};
}

Status PanelConverter::read_row(uint64_t row, Row* out) const {
  const uint8_t* data = row_data(row);
  std::vector<float>& weights = out->weights;
  weights.resize(cols_);
  switch (source_.type) {
    case GgmlType::kF32: std::memcpy(weights.data(), data, cols_ * sizeof(float)); break;
    case GgmlType::kF16:
      for (size_t k = 0; k < cols_; ++k) {
        uint16_t half;
        std::memcpy(&half, data + 2 * k, 2);
        weights[k] = half_to_float(half);
      }
      break;
    case GgmlType::kBF16:
      for (size_t k = 0; k < cols_; ++k) {
        uint16_t high;
        std::memcpy(&high, data + 2 * k, 2);
        weights[k] = std::bit_cast<float>(static_cast<uint32_t>(high) << 16);
      }
      break;
    default:
      for (size_t index = 0; index < cols_ / kGroup; ++index) {
        const QuantGroup group = read_group(source_.type, data, index);
        dequantise_group(format_of_blocks(source_.type), group, weights.data() + index * kGroup);
      }
  }
  uint32_t not_finite = 0;  // no early exit: the loop vectorises
  for (const float weight : weights) not_finite |= (std::bit_cast<uint32_t>(weight) & 0x7f800000u) == 0x7f800000u;
  if (not_finite == 0) return {};
  return Status::error(ErrorCode::kCorruptModel, "tensor %.100s: a weight in row %" PRIu64 " is not finite",
                       source_.name.c_str(), row);
}

Status PanelConverter::too_large() const {
  return Status::error(ErrorCode::kUnsupported, "tensor %.100s: a weight is too large for %s", source_.name.c_str(),
                       weight_format_name(target_));
}

Status PanelConverter::store_row(size_t r, Row* from, uint8_t* panel) const {
  const std::vector<float>& weights = from->weights;
  if (target_ == WeightFormat::kF32) {
    for (size_t k = 0; k < cols_; ++k) std::memcpy(panel + (k * kPanelRows + r) * 4, &weights[k], 4);
    return {};
  }
  if (target_ == WeightFormat::kF16) {
    for (size_t k = 0; k < cols_; ++k) {
      const uint16_t half = float_to_half(weights[k]);
      if (!is_finite_half(half)) return too_large();
      std::memcpy(panel + (k * kPanelRows + r) * 2, &half, 2);
      from->error.add(weights[k], half_to_float(half));
    }
    return {};
  }
  static constexpr auto kAlike = [] {
    std::array<float, kGroup> ones = {};
    ones.fill(1);
    return ones;
  }();
  for (size_t index = 0; index < cols_ / kGroup; ++index) {
    QuantGroup group;
    float stored[kGroup];
    const float* importance = importance_.empty() ? kAlike.data() : &importance_[index * kGroup];
    if (!quantise_group(target_, &weights[index * kGroup], importance, &group)) return too_large();
    store_group(target_, group, r, index, panel);
    dequantise_group(target_, group, stored);
    for (size_t i = 0; i < kGroup; ++i) from->error.add(weights[index * kGroup + i], stored[i]);
  }
  return {};
}

}  // namespace lethe
