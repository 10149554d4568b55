// Keeps everything; a full cache is an error. Exact attention while the position stays inside the trained length.
#include "runtime/cache/policy.h"

namespace lethe {

constexpr Policy kFullPolicy = {.name = "full",
                                .default_positions = PositionMode::kAbsolute,
                                .evicts = false,
                                .retention = {.recent_percent = 100}};

}  // namespace lethe
