// Tokens that the latest queries attend to stay, and their neighbours (Li et al. 2024, "SnapKV: LLM Knows What You are
// Looking for Before Generation", arXiv 2404.14469, section 4). There the last queries of a whole prompt are counted
// once, at its end; a cap that holds while the prompt still comes wants the same at any time: an average over the
// latest queries, older ones fading, pooled over seven tokens as there (maximum).
#include <algorithm>

#include "runtime/cache/list_reader.h"
#include "runtime/cache/policy.h"

namespace lethe {
namespace {

constexpr float kFade = 1.0f - 1.0f / 32;  // a query: the weights of the past sum up to 32 queries
constexpr uint32_t kPoolRadius = 3;

void observe_snapkv(const ObserveArgs& args) {
  for_each_observed(args, [](float* average, const float* attention, uint32_t count) {
    for (uint32_t slot = 0; slot < count; ++slot) {
      average[slot] = average[slot] * kFade + attention[slot] * (1 - kFade);
    }
  });
}

void score_snapkv(const ScoreArgs& args, std::span<float> scores) {
  read_slot_floats(args.pool, args.list, scores);
  // In place: the last values that pooling overwrites are kept aside.
  float before[kPoolRadius] = {};
  const auto n = static_cast<uint32_t>(scores.size());
  for (uint32_t i = 0; i < n; ++i) {
    float most = scores[i];
    for (const float value : before) most = std::max(most, value);
    for (uint32_t j = i + 1; j <= std::min(i + kPoolRadius, n - 1); ++j) most = std::max(most, scores[j]);
    for (uint32_t j = 0; j + 1 < kPoolRadius; ++j) before[j] = before[j + 1];
    before[kPoolRadius - 1] = scores[i];
    scores[i] = most;
  }
}

}  // namespace

constexpr Policy kSnapKvPolicy = {.name = "snapkv",
                                  .default_positions = PositionMode::kRolling,
                                  .state_bytes_per_slot = sizeof(float),
                                  .recent_percent = 25,
                                  .score = score_snapkv,
                                  .observer = {kEveryQuery, observe_snapkv}};

}  // namespace lethe
