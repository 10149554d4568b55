// Tokens go that were seldom attended to (Liu et al. 2023, "Scissorhands: Exploiting the Persistence of Importance
// Hypothesis for LLM KV Cache Compression at Test Time", arXiv 2305.17118, section 4, algorithm 2): score = minus the
// share of the latest queries that paid a token less than the mean of all tokens, so that a token which few have seen
// is not blamed for it. There the last 400 queries count; here older ones fade, at the same mean age. (There, too,
// layers may have budgets of their own: --budget.)
#include "runtime/cache/list_reader.h"
#include "runtime/cache/policy.h"

namespace lethe {
namespace {

constexpr float kRate = 2.0f / (400 + 1);

void observe_scissorhands(const ObserveArgs& args) {
  for_each_observed(args, [](const ObservedSlots& slots) {
    const float mean = 1.0f / static_cast<float>(slots.query_rank + 1);
    for (uint32_t slot = 0; slot < slots.visible(); ++slot) {
      slots.state[slot] += ((slots.attention[slot] < mean ? 1.0f : 0.0f) - slots.state[slot]) * kRate;
    }
  });
}

void score_scissorhands(const ScoreArgs& args, std::span<float> scores) {
  read_slot_floats(args.pool, args.list, scores);
  for (float& score : scores) score = -score;
}

}  // namespace

constexpr Policy kScissorhandsPolicy = {.name = "scissorhands",
                                        .retention = {.recent_percent = 5},
                                        .state_bytes_per_slot = sizeof(float),
                                        .observer = {kEveryQuery, observe_scissorhands},
                                        .score = score_scissorhands};

}  // namespace lethe
