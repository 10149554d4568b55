// Keeps everything; a full cache is an error. Exact attention while the position stays inside the trained length.
#include "runtime/cache/policy.h"

namespace lethe {

constexpr Policy kFullPolicy = {.name = "full",
                                .default_positions = PositionMode::kAbsolute,
                                .state_bytes_per_slot = 0,
                                .recent_percent = 0,
                                .score = nullptr};

}  // namespace lethe
