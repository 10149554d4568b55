#include "runtime/memory/planner.h"

#include <algorithm>

namespace lethe {
namespace {

// Sizes have been checked: this cannot overflow.
uint64_t aligned(uint64_t bytes) { return (bytes + kPlanAlignment - 1) / kPlanAlignment * kPlanAlignment; }

bool alive_together(const PlanBuffer& a, const PlanBuffer& b) {
  return a.first_step <= b.last_step && b.first_step <= a.last_step;
}

Status check_buffers(std::span<const PlanBuffer> buffers) {
  uint64_t sum = 0;
  for (size_t i = 0; i < buffers.size(); ++i) {
    const PlanBuffer& buffer = buffers[i];
    if (buffer.first_step > buffer.last_step) {
      return Status::error(ErrorCode::kInvalidArgument, "buffer %zu ends in step %u, before its first step %u", i,
                           buffer.last_step, buffer.first_step);
    }
    if (__builtin_add_overflow(sum, buffer.bytes, &sum) || __builtin_add_overflow(sum, kPlanAlignment, &sum)) {
      return Status::error(ErrorCode::kInvalidArgument, "buffer %zu of %llu bytes: the sizes overflow 64 bits", i,
                           static_cast<unsigned long long>(buffer.bytes));
    }
  }
  return {};
}

}  // namespace

Result<uint64_t> plan_buffers(std::span<const PlanBuffer> buffers, std::span<uint64_t> offsets,
                              std::span<uint32_t> scratch) {
  const size_t count = buffers.size();
  if (offsets.size() < count || scratch.size() / 2 < count || count > UINT32_MAX) {
    return Status::error(ErrorCode::kInvalidArgument, "%zu buffers with %zu offsets and work space for %zu", count,
                         offsets.size(), scratch.size() / 2);
  }
  LETHE_RETURN_IF_ERROR(check_buffers(buffers));

  const std::span<uint32_t> by_size = scratch.first(count);
  for (size_t i = 0; i < count; ++i) by_size[i] = static_cast<uint32_t>(i);
  std::sort(by_size.begin(), by_size.end(), [&](uint32_t a, uint32_t b) {
    if (buffers[a].bytes != buffers[b].bytes) return buffers[a].bytes > buffers[b].bytes;
    if (buffers[a].first_step != buffers[b].first_step) return buffers[a].first_step < buffers[b].first_step;
    return a < b;
  });

  const std::span<uint32_t> placed = scratch.subspan(count, count);  // by offset, lowest first
  uint64_t total = 0;
  for (size_t n = 0; n < count; ++n) {
    const uint32_t index = by_size[n];
    const uint64_t bytes = aligned(buffers[index].bytes);
    uint64_t offset = 0;  // end of the neighbours seen so far
    for (const uint32_t other : placed.first(n)) {
      if (!alive_together(buffers[index], buffers[other])) continue;
      if (offsets[other] >= offset && offsets[other] - offset >= bytes) break;
      offset = std::max(offset, offsets[other] + aligned(buffers[other].bytes));
    }
    offsets[index] = offset;
    total = std::max(total, offset + bytes);

    const auto at = std::upper_bound(placed.begin(), placed.begin() + n, offset,
                                     [&](uint64_t value, uint32_t other) { return value < offsets[other]; });
    std::copy_backward(at, placed.begin() + n, placed.begin() + n + 1);
    *at = index;
  }
  return total;
}

}  // namespace lethe
