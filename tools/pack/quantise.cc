#include <algorithm>
#include <cmath>

#include "runtime/base/half.h"
#include "tools/pack/convert.h"

namespace lethe {
namespace {

// In eight parallel sums, which compilers turn into vectors; one running sum they may not reorder.
float sum_group(const float* values) {
  float lanes[8] = {};
  for (size_t i = 0; i < kGroup; i += 8) {
    for (size_t lane = 0; lane < 8; ++lane) lanes[lane] += values[i + lane];
  }
  return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
}

// Nearest levels 0..15 of `weights[i] = d * level + m`; the squared error is returned.
float assign_levels(const float* weights, float d, float m, float* levels) {
  const float inverse = d > 0 ? 1.0f / d : 0.0f;
  float squares[kGroup];
  for (size_t i = 0; i < kGroup; ++i) {
    const float inside = std::min(std::max((weights[i] - m) * inverse, 0.0f), 15.0f);
    levels[i] = static_cast<float>(static_cast<int>(inside + 0.5f));
    const float difference = d * levels[i] + m - weights[i];
    squares[i] = difference * difference;
  }
  return sum_group(squares);
}

bool quantise_q8(const float* weights, QuantGroup* out) {
  float largest = 0;
  for (size_t i = 0; i < kGroup; ++i) largest = std::max(largest, std::abs(weights[i]));
  out->m = 0;
  out->d = float_to_half(largest / 127.0f);
  const float d = half_to_float(out->d);
  if (!std::isfinite(d)) return false;
  const float inverse = d > 0 ? 1.0f / d : 0.0f;
  for (size_t i = 0; i < kGroup; ++i) {
    const float level = std::min(std::max(weights[i] * inverse, -127.0f), 127.0f);
    out->q[i] = static_cast<uint8_t>(level + 128.5f);
  }
  return true;
}

// Starts from several widths of the range (cutting off the extremes often pays), improves each by one step of linear
// least squares for (d, m) given the levels, and keeps the best with d and m rounded to halves.
bool quantise_q4m(const float* weights, QuantGroup* out) {
  const auto [low, high] = std::minmax_element(weights, weights + kGroup);
  const float minimum = *low;
  const float range = *high - minimum;
  constexpr float kWidths[] = {1.0f, 0.97f, 0.94f, 0.91f, 0.88f, 0.84f, 0.8f, 0.75f};

  float best = INFINITY;
  float best_levels[kGroup];
  float levels[kGroup];
  const auto consider = [&](float wanted_d, float wanted_m) {
    const uint16_t half_d = float_to_half(wanted_d);
    const uint16_t half_m = float_to_half(wanted_m);
    const float d = half_to_float(half_d);
    const float m = half_to_float(half_m);
    if (!std::isfinite(d) || !std::isfinite(m)) return false;
    const float error = assign_levels(weights, d, m, levels);
    if (error < best) {
      best = error;
      out->d = half_d;
      out->m = half_m;
      std::copy(levels, levels + kGroup, best_levels);
    }
    return true;
  };
  const float sum_w = sum_group(weights);
  for (const float width : kWidths) {
    if (!consider(range * width / 15.0f, minimum + range * (1.0f - width) * 0.5f)) continue;
    float squares[kGroup];
    float products[kGroup];
    for (size_t i = 0; i < kGroup; ++i) {
      squares[i] = levels[i] * levels[i];
      products[i] = levels[i] * weights[i];
    }
    const float sum_q = sum_group(levels);
    const float determinant = kGroup * sum_group(squares) - sum_q * sum_q;
    if (determinant <= 0) continue;
    const float d = (kGroup * sum_group(products) - sum_q * sum_w) / determinant;
    if (d > 0) consider(d, (sum_w - d * sum_q) / kGroup);
  }
  if (!std::isfinite(best)) return false;
  for (size_t i = 0; i < kGroup; ++i) out->q[i] = static_cast<uint8_t>(best_levels[i]);
  return true;
}

}  // namespace

bool quantise_group(WeightFormat format, const float* weights, QuantGroup* out) {
  return format == WeightFormat::kQ8 ? quantise_q8(weights, out) : quantise_q4m(weights, out);
}

}  // namespace lethe
