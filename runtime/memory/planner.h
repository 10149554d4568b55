// Planner of buffers whose lifetimes are known: gives each an offset in one block so that buffers that are never alive
// together share bytes.
//
// The method is greedy by size (Pisarchyk & Lee 2020, "Efficient Memory Management for Deep Neural Net Inference", with
// the first fitting gap instead of the smallest, as TensorFlow Lite Micro's GreedyMemoryPlanner does):
//   1. Sort the buffers by size, largest first; equal sizes by first step, then by index (so a plan is deterministic).
//   2. Place them in that order. For each, look at the buffers placed so far that are alive in a step in which it is
//      alive too, from the lowest offset to the highest, and take the first gap between them that is large enough;
//      without one, the end of the last of them.
//   3. The total is the highest end of any buffer.
// Large buffers first, because the small ones then fill the gaps. Not optimal (that is NP-hard), but never larger than
// the sum of the sizes. Time: quadratic in the number of buffers.
#pragma once

#include <cstdint>
#include <span>

#include "runtime/base/status.h"

namespace lethe {

inline constexpr uint64_t kPlanAlignment = 64;

// A buffer that holds something from step `first_step` to step `last_step`, both included.
struct PlanBuffer {
  uint64_t bytes;
  uint32_t first_step;
  uint32_t last_step;
};

// Writes every buffer's offset (a multiple of 64) and returns the total bytes (a multiple of 64). Allocates nothing.
// kInvalidArgument when a span is too short, a lifetime ends before it begins or the sizes overflow 64 bits.
//   offsets [buffers]    out
//   scratch [2*buffers]  work space
Result<uint64_t> plan_buffers(std::span<const PlanBuffer> buffers, std::span<uint64_t> offsets,
                              std::span<uint32_t> scratch);

}  // namespace lethe
