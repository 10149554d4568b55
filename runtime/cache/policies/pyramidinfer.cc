// Tokens that the newest fifth attends to stay, and deeper layers keep fewer (Yang et al. 2024, "PyramidInfer: Pyramid
// KV Cache Compression for High-throughput LLM Inference", arXiv 2405.12532, section 4). There a layer passes only its
// selection on to the next one, so that the prompt is computed with ever fewer tokens, and what was kept of a prompt
// stays. Under a cap that holds while the prompt still comes, only the selection is left: a mean over the latest
// queries, as many as a fifth of what a query sees, newer ones weighing more; and budgets that fall with depth (there
// by a cosine; here as PyramidKV's).
#include <algorithm>

#include "runtime/cache/list_reader.h"
#include "runtime/cache/policy.h"

namespace lethe {
namespace {

constexpr float kRecentShare = 0.2f;

void observe_pyramidinfer(const ObserveArgs& args) {
  for_each_observed(args, [](const ObservedSlots& slots) {
    // A fading average with the mean age of a mean over that many queries.
    const float queries = std::max(1.0f, kRecentShare * static_cast<float>(slots.query_rank + 1));
    const float rate = 2.0f / (queries + 1);
    for (uint32_t slot = 0; slot < slots.count; ++slot) {
      slots.state[slot] += (slots.attention[slot] - slots.state[slot]) * rate;
    }
  });
}

void score_pyramidinfer(const ScoreArgs& args, std::span<float> scores) {
  read_slot_floats(args.pool, args.list, scores);
}

}  // namespace

constexpr Policy kPyramidInferPolicy = {.name = "pyramidinfer",
                                        .retention = {.recent_percent = 20, .budget = Budget::kPyramid},
                                        .is_share = true,
                                        .state_bytes_per_slot = sizeof(float),
                                        .observer = {kEveryQuery, observe_pyramidinfer},
                                        .score = score_pyramidinfer};

}  // namespace lethe
