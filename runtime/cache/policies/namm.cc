// A network that was evolved on tasks says what stays (Cetin et al. 2025, "An Evolved Universal Transformer Memory",
// arXiv 2410.13166): whoever scores 0 or more, every 512 tokens, whatever room there is. docs/namm.md.
#include "runtime/cache/namm/policy.h"
#include "runtime/cache/namm/state.h"

namespace lethe {
namespace {

void score_namm(const ScoreArgs& args, std::span<float> scores) {
  args.namm->score(args.pool, args.list, args.work, scores);
}

size_t work_floats(const Policy& policy, size_t tokens, size_t head_dim) {
  return namm::Scorer::work_floats(policy.namm->shape(), tokens, head_dim);
}

}  // namespace

constexpr Policy kNammPolicy = {.name = "namm",
                                .retention = {.recent_percent = 0},
                                .drop_below = 0,
                                .interval = namm::kInterval,
                                .score = score_namm,
                                .work_floats = work_floats,
                                .is_learned = true};

namespace namm {

Policy policy_of(const Parameters& parameters, const Scorer& scorer) {
  const uint32_t parts = parameters.shape.state_parts();
  const StateRows rows(parts);
  Policy policy = kNammPolicy;
  policy.interval = parameters.interval;
  policy.retention.rectangular = parameters.rectangular;
  policy.state_bytes_per_slot = rows.bytes_per_slot();
  policy.state_rows = std::max(1u, rows.count);
  policy.observer = observer_of(parts);
  policy.namm = &scorer;
  return policy;
}

}  // namespace namm
}  // namespace lethe
