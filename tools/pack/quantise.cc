#include <algorithm>
#include <cmath>

#include "runtime/base/half.h"
#include "tools/pack/quant_group.h"

namespace lethe {
namespace {

float round_to_half(float value) { return half_to_float(float_to_half(value)); }

// In eight parallel sums, which compilers turn into vectors; one running sum they may not reorder.
float sum_group(const float* values) {
  float lanes[8] = {};
  for (size_t i = 0; i < kGroup; i += 8) {
    for (size_t lane = 0; lane < 8; ++lane) lanes[lane] += values[i + lane];
  }
  return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
}

bool quantise_q8(const float* weights, QuantGroup* out) {
  float largest = 0;
  for (size_t i = 0; i < kGroup; ++i) largest = std::max(largest, std::abs(weights[i]));
  const float d = round_to_half(largest / 127.0f);
  if (!std::isfinite(d)) return false;
  out->d[0] = out->d[1] = d;
  const float inverse = d > 0 ? 1.0f / d : 0.0f;
  for (size_t i = 0; i < kGroup; ++i) {
    const float level = std::min(std::max(weights[i] * inverse, -127.0f), 127.0f);
    out->q[i] = static_cast<uint8_t>(level + 128.5f);
  }
  return true;
}

// Searches d and m, both halves, for the least sum of importance[i] * (d * level[i] + m - weights[i])^2 with levels
// 0..15.
class MinimumSearch {
 public:
  MinimumSearch(const float* weights, const float* importance) : weights_(weights), importance_(importance) {
    float products[kGroup];
    for (size_t i = 0; i < kGroup; ++i) products[i] = importance_[i] * weights_[i];
    sum_ = sum_group(products);
    total_ = sum_group(importance_);
  }

  // From many ranges, wider and narrower than the weights' at either end (cutting off the extremes often pays), each
  // improved by a step of least squares; then such steps from the best until they no longer help.
  bool run() {
    const auto [low, high] = std::minmax_element(weights_, weights_ + kGroup);
    const float range = *high - *low;
    for (const float below : kCuts) {
      for (const float above : kCuts) {
        consider(range * (1.0f - below - above) / 15.0f, *low + range * below);
        if (error_ == 0) return true;  // the source was quantised like this
        fit();
      }
    }
    if (!std::isfinite(error_)) return false;
    float before;
    do {
      before = error_;
      consider(d_, m_);  // the levels of the best
      fit();
    } while (error_ < before);
    return true;
  }

  void store(QuantGroup* out) const {
    out->d[0] = out->d[1] = d_;
    out->m = m_;
    for (size_t i = 0; i < kGroup; ++i) out->q[i] = static_cast<uint8_t>(level(weights_[i], inverse(d_), m_));
  }

 private:
  static constexpr float kCuts[] = {0.0f, -0.03f, 0.03f, 0.06f, 0.09f};

  static float level(float weight, float inverse, float m) {
    const float inside = std::min(std::max((weight - m) * inverse, 0.0f), 15.0f);
    return static_cast<float>(static_cast<int>(inside + 0.5f));
  }
  static float inverse(float d) { return d > 0 ? 1.0f / d : 0.0f; }

  // The nearest levels for d and m rounded to halves.
  void consider(float d, float m) {
    d = round_to_half(d);
    m = round_to_half(m);
    if (!std::isfinite(d) || !std::isfinite(m)) return;
    const float inverse_d = inverse(d);
    float squares[kGroup];
    for (size_t i = 0; i < kGroup; ++i) {
      levels_[i] = level(weights_[i], inverse_d, m);
      const float difference = d * levels_[i] + m - weights_[i];
      squares[i] = importance_[i] * difference * difference;
    }
    const float error = sum_group(squares);
    if (!(error < error_)) return;
    error_ = error;
    d_ = d;
    m_ = m;
  }

  // The best d and m for the levels considered last.
  void fit() {
    float levels[kGroup];
    float squares[kGroup];
    float products[kGroup];
    for (size_t i = 0; i < kGroup; ++i) {
      levels[i] = importance_[i] * levels_[i];
      squares[i] = levels[i] * levels_[i];
      products[i] = levels[i] * weights_[i];
    }
    const float sum_levels = sum_group(levels);
    const float determinant = total_ * sum_group(squares) - sum_levels * sum_levels;
    if (determinant <= 0) return;
    const float d = (total_ * sum_group(products) - sum_levels * sum_) / determinant;
    if (d > 0) consider(d, (sum_ - d * sum_levels) / total_);
  }

  const float* weights_;
  const float* importance_;
  float sum_, total_;  // of importance * weights, of importance
  float levels_[kGroup] = {};
  float d_ = 0, m_ = 0, error_ = INFINITY;
};

}  // namespace

bool quantise_group(WeightFormat format, const float* weights, const float* importance, QuantGroup* out) {
  if (format == WeightFormat::kQ8) return quantise_q8(weights, out);
  MinimumSearch search(weights, importance);
  if (!search.run()) return false;
  search.store(out);
  return true;
}

}  // namespace lethe
