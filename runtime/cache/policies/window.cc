// Sinks and a recent window (StreamingLLM, Xiao et al. 2023, arXiv 2309.17453, section 3.2): the first tokens, which
// soak up attention that has nowhere else to go, and the newest ones. Distances are counted in ranks of the cache, so
// they stay inside the trained length for ever.
#include "runtime/cache/policy.h"

namespace lethe {

constexpr Policy kWindowPolicy = {
    .name = "window", .default_positions = PositionMode::kRolling, .retention = {.recent_percent = 100}};

}  // namespace lethe
