// The choice of the SIMD target for this CPU. Highway's own knows nothing of dot products (targets.h).
#pragma once

#include <cstdint>

namespace lethe {

// The Highway targets that are compiled and that this CPU runs, of those that hwy::SetSupportedTargetsForTest left: a
// sum of their bits, the lowest of which is the best target.
int64_t supported_targets();
const char* target_name(int64_t target);
// Makes the best of them the one that Highway's dynamic dispatch takes, in the whole process.
void choose_target();

}  // namespace lethe
