// Keys that differ from the average stay (Park et al. 2025, "KeyDiff: Key Similarity-Based KV Cache Eviction for
// Long-Context LLM Inference in Resource-Constrained Environments", arXiv 2504.15364, section 3): the anchor is the
// mean of all unit keys of the list, score = -cos(key, anchor).
#include "runtime/cache/key_geometry.h"
#include "runtime/cache/policy.h"

namespace lethe {
namespace {

void score_keydiff(const ScoreArgs& args, std::span<float> scores) {
  key_cosines(args.pool, args.list, args.work, scores);
  for (float& score : scores) score = -score;
}

}  // namespace

constexpr Policy kKeyDiffPolicy = {.name = "keydiff", .score = score_keydiff};

}  // namespace lethe
