// Tokens that the latest queries attend to stay, and their neighbours (Li et al. 2024, "SnapKV: LLM Knows What You are
// Looking for Before Generation", arXiv 2404.14469, section 4). There the last queries of a whole prompt are counted
// once, at its end; a cap that holds while the prompt still comes wants the same at any time: an average over the
// latest queries, older ones fading, pooled over seven tokens as there (maximum).
#include "runtime/cache/list_reader.h"
#include "runtime/cache/policy.h"

namespace lethe {
namespace {

constexpr float kFade = 1.0f - 1.0f / 32;  // a query: the weights of the past sum up to 32 queries

void observe_snapkv(const ObserveArgs& args) {
  for_each_observed(args, [](const ObservedSlots& slots) {
    for (uint32_t slot = 0; slot < slots.count; ++slot) {
      slots.state[slot] = slots.state[slot] * kFade + slots.attention[slot] * (1 - kFade);
    }
  });
}

void score_snapkv(const ScoreArgs& args, std::span<float> scores) { read_slot_floats(args.pool, args.list, scores); }

}  // namespace

constexpr Policy kSnapKvPolicy = {.name = "snapkv",
                                  .retention = {.recent_percent = 25, .pooling = {PoolKind::kMax, 7}},
                                  .is_share = true,
                                  .state_bytes_per_slot = sizeof(float),
                                  .observer = {kEveryQuery, observe_snapkv},
                                  .score = score_snapkv};

// The same score, but early layers keep more (Cai et al. 2024, "PyramidKV: Dynamic KV Cache Compression based on
// Pyramidal Information Funneling", arXiv 2406.02069, section 3).
constexpr Policy kPyramidKvPolicy = {
    .name = "pyramidkv",
    .retention = {.recent_percent = 25, .budget = Budget::kPyramid, .pooling = {PoolKind::kMax, 7}},
    .is_share = true,
    .state_bytes_per_slot = sizeof(float),
    .observer = {kEveryQuery, observe_snapkv},
    .score = score_snapkv};

}  // namespace lethe
