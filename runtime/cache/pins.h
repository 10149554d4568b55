// Ranges of the conversation that are never forgotten.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "runtime/base/status.h"

namespace lethe {

struct TokenRange {
  uint32_t begin, end;  // positions
  bool operator==(const TokenRange&) const = default;
};

// Sorted, apart from each other; those that touch become one.
class Pins {
 public:
  static constexpr uint32_t kMax = 16;

  std::span<const TokenRange> ranges() const { return {ranges_, count_}; }

  // kInvalidArgument for an empty range, or when there are too many apart from each other; then nothing changes.
  Status add(TokenRange range) {
    if (range.begin >= range.end) {
      return Status::error(ErrorCode::kInvalidArgument, "tokens %u to %u are none: a range ends behind its beginning",
                           range.begin, range.end);
    }
    TokenRange merged[kMax + 1];
    uint32_t count = 0, i = 0;
    while (i < count_ && ranges_[i].end < range.begin) merged[count++] = ranges_[i++];
    for (; i < count_ && ranges_[i].begin <= range.end; ++i) {
      range = {std::min(range.begin, ranges_[i].begin), std::max(range.end, ranges_[i].end)};
    }
    merged[count++] = range;
    while (i < count_) merged[count++] = ranges_[i++];
    if (count > kMax) {
      return Status::error(ErrorCode::kInvalidArgument, "%u ranges of tokens are pinned, more do not fit", kMax);
    }
    std::copy_n(merged, count, ranges_);
    count_ = count;
    return {};
  }

  // Tokens from position `begin` on.
  uint64_t tokens_from(uint32_t begin) const {
    uint64_t tokens = 0;
    for (const TokenRange& range : ranges()) tokens += std::max(range.end, begin) - std::max(range.begin, begin);
    return tokens;
  }

  void clear() { count_ = 0; }

 private:
  TokenRange ranges_[kMax];
  uint32_t count_ = 0;
};

}  // namespace lethe
