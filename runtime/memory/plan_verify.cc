#include "runtime/memory/plan_verify.h"

namespace lethe {
namespace {

unsigned long long number(uint64_t value) { return value; }

}  // namespace

Status verify_plan(std::span<const PlanBuffer> buffers, std::span<const uint64_t> offsets, uint64_t total) {
  if (offsets.size() != buffers.size()) {
    return Status::error(ErrorCode::kInternal, "a plan of %zu offsets for %zu buffers", offsets.size(), buffers.size());
  }
  for (size_t i = 0; i < buffers.size(); ++i) {
    if (offsets[i] % 64 != 0) {
      return Status::error(ErrorCode::kInternal, "buffer %zu at offset %llu, which is not a multiple of 64", i,
                           number(offsets[i]));
    }
    if (offsets[i] > total || buffers[i].bytes > total - offsets[i]) {
      return Status::error(ErrorCode::kInternal,
                           "buffer %zu of %llu bytes at offset %llu ends beyond the total of %llu", i,
                           number(buffers[i].bytes), number(offsets[i]), number(total));
    }
  }
  // All ends are at most `total` from here on: sums cannot overflow.
  for (size_t i = 0; i < buffers.size(); ++i) {
    for (size_t j = i + 1; j < buffers.size(); ++j) {
      if (buffers[i].bytes == 0 || buffers[j].bytes == 0) continue;
      const bool apart_in_time =
          buffers[i].last_step < buffers[j].first_step || buffers[j].last_step < buffers[i].first_step;
      const bool apart_in_bytes =
          offsets[i] + buffers[i].bytes <= offsets[j] || offsets[j] + buffers[j].bytes <= offsets[i];
      if (!apart_in_time && !apart_in_bytes) {
        return Status::error(ErrorCode::kInternal,
                             "buffers %zu (%llu bytes at %llu, steps %u-%u) and %zu (%llu bytes at %llu, steps %u-%u) "
                             "overlap",
                             i, number(buffers[i].bytes), number(offsets[i]), buffers[i].first_step,
                             buffers[i].last_step, j, number(buffers[j].bytes), number(offsets[j]),
                             buffers[j].first_step, buffers[j].last_step);
      }
    }
  }
  return {};
}

}  // namespace lethe
