// Tokens that drew the most attention since they came stay (Zhang et al. 2023, "H2O: Heavy-Hitter Oracle for Efficient
// Generative Inference of Large Language Models", arXiv 2306.14048, section 4): score = sum of the attention of all
// queries since. Under grouped-query attention that of a query is the mean over the heads that share the KV head.
#include "runtime/cache/list_reader.h"
#include "runtime/cache/policy.h"

namespace lethe {
namespace {

void observe_h2o(const ObserveArgs& args) {
  for_each_observed(args, [](const ObservedSlots& slots) {
    for (uint32_t slot = 0; slot < slots.count; ++slot) slots.state[slot] += slots.attention[slot];
  });
}

void score_h2o(const ScoreArgs& args, std::span<float> scores) { read_slot_floats(args.pool, args.list, scores); }

}  // namespace

constexpr Policy kH2oPolicy = {.name = "h2o",
                               .retention = {.recent_percent = 50},
                               .is_share = true,
                               .state_bytes_per_slot = sizeof(float),
                               .observer = {kEveryQuery, observe_h2o},
                               .score = score_h2o};

}  // namespace lethe
