// Verifier of a memory plan. It shares no code with the planner: a mistake in one does not hide in the other.
#pragma once

#include <cstdint>
#include <span>

#include "runtime/memory/planner.h"

namespace lethe {

// kInternal, naming the buffer or the pair with its numbers, unless every offset is a multiple of 64, every buffer
// lies inside [0, total) and no two buffers that are alive in the same step share a byte. Quadratic; allocates nothing.
//   offsets [buffers]
Status verify_plan(std::span<const PlanBuffer> buffers, std::span<const uint64_t> offsets, uint64_t total);

}  // namespace lethe
