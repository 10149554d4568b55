// Keys of small norm draw attention, so those stay (Devoto et al. 2024, "A Simple and Effective L2 Norm-Based Strategy
// for KV Cache Compression", arXiv 2406.11430, section 4): score = -|k|.
#include "runtime/cache/key_geometry.h"
#include "runtime/cache/policy.h"

namespace lethe {
namespace {

void score_l2(const ScoreArgs& args, std::span<float> scores) {
  key_norms(args.pool, args.list, args.work, scores);
  for (float& score : scores) score = -score;
}

}  // namespace

constexpr Policy kL2Policy = {.name = "l2", .score = score_l2};

}  // namespace lethe
