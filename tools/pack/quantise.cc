#include <algorithm>
#include <cmath>

#include "runtime/base/half.h"
#include "tools/pack/convert.h"

namespace lethe {
namespace {

// Nearest level of `weights[i] = d * q + m` for halves d and m; the squared error is returned.
float assign_levels(const float* weights, float d, float m, uint8_t* q) {
  const float inverse = d > 0 ? 1.0f / d : 0.0f;
  float error = 0;
  for (size_t i = 0; i < kGroup; ++i) {
    const float level = std::clamp(std::floor((weights[i] - m) * inverse + 0.5f), 0.0f, 15.0f);
    const float difference = d * level + m - weights[i];
    error += difference * difference;
    q[i] = static_cast<uint8_t>(level);
  }
  return error;
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
    out->q[i] = static_cast<uint8_t>(128.0f + std::clamp(std::round(weights[i] * inverse), -127.0f, 127.0f));
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
  QuantGroup candidate;
  const auto consider = [&](float wanted_d, float wanted_m) {
    candidate.d = float_to_half(wanted_d);
    candidate.m = float_to_half(wanted_m);
    const float d = half_to_float(candidate.d);
    const float m = half_to_float(candidate.m);
    if (!std::isfinite(d) || !std::isfinite(m)) return false;
    const float error = assign_levels(weights, d, m, candidate.q);
    if (error < best) {
      best = error;
      *out = candidate;
    }
    return true;
  };
  for (const float width : kWidths) {
    if (!consider(range * width / 15.0f, minimum + range * (1.0f - width) * 0.5f)) continue;
    float sum_q = 0, sum_qq = 0, sum_w = 0, sum_qw = 0;
    for (size_t i = 0; i < kGroup; ++i) {
      const float q = candidate.q[i];
      sum_q += q;
      sum_qq += q * q;
      sum_w += weights[i];
      sum_qw += q * weights[i];
    }
    const float determinant = kGroup * sum_qq - sum_q * sum_q;
    if (determinant <= 0) continue;
    const float d = (kGroup * sum_qw - sum_q * sum_w) / determinant;
    if (d > 0) consider(d, (sum_w - d * sum_q) / kGroup);
  }
  return std::isfinite(best);
}

}  // namespace

bool quantise_group(WeightFormat format, const float* weights, QuantGroup* out) {
  return format == WeightFormat::kQ8 ? quantise_q8(weights, out) : quantise_q4m(weights, out);
}

}  // namespace lethe
