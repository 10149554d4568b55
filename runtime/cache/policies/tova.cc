// Tokens that the last query attends to stay (Oren et al. 2024, "Transformers are Multi-State RNNs", arXiv 2401.06104,
// section 3.2: TOVA). There the last query's attention is averaged over all heads of the layer, and the layer keeps one
// set; here every KV head keeps its own, by the mean over the heads that share it.
#include "runtime/cache/list_reader.h"
#include "runtime/cache/policy.h"

namespace lethe {
namespace {

void observe_tova(const ObserveArgs& args) {
  for_each_observed(args, [](const ObservedSlots& slots) { std::copy_n(slots.attention, slots.count, slots.state); });
}

void score_tova(const ScoreArgs& args, std::span<float> scores) { read_slot_floats(args.pool, args.list, scores); }

}  // namespace

// Nothing is protected but the sinks and, by a score of its own, whatever the last query looks at; the last token
// itself has no weight of a later query yet, which is why a hundredth of what stays is the newest.
constexpr Policy kTovaPolicy = {.name = "tova",
                                .retention = {.recent_percent = 1},
                                .is_share = true,
                                .state_bytes_per_slot = sizeof(float),
                                .observer = {1, observe_tova},
                                .score = score_tova};

}  // namespace lethe
