// Which of many tokens stay: their order, and where to cut it. Linear time, no memory, no ties.
#pragma once

#include <bit>
#include <cstdint>

namespace lethe {

// What a token is worth as an integer, more is better: the order of scores, and two marks beyond it.
using Worth = uint32_t;
inline constexpr Worth kGone = 0;             // goes in any case
inline constexpr Worth kStays = 0xffffffffu;  // stays in any case

// -0 counts as 0, and what is not a number as less than -infinity.
inline Worth worth_of(float score) {
  if (!(score == score)) return kGone + 1;
  const uint32_t bits = std::bit_cast<uint32_t>(score + 0.0f);
  return bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
}

// The worth of one token among those of several lists: of equals the newer is better, and `newer` is how many of its
// own list are newer than it.
constexpr uint64_t entry_of(Worth worth, uint32_t newer) { return uint64_t{worth} << 32 | (0xffffffffu - newer); }

// Entries above `entry` stay, and of those equal to it the first `equal`.
struct Cut {
  uint64_t entry = uint64_t{1} << 32;  // all but kGone
  uint64_t equal = UINT64_MAX;

  // Once for every entry, in the order in which find_cut saw them.
  bool keeps(uint64_t candidate) {
    if (candidate != entry) return candidate > entry;
    if (equal == 0) return false;
    --equal;
    return true;
  }
};

// The cut that keeps the best `count` of the entries that for_each(visit) visits, which are at least as many. Radix
// selection from the top byte on: up to eight visits, half of them usually.
template <typename ForEach>
Cut find_cut(uint64_t count, ForEach for_each) {
  if (count == 0) return {UINT64_MAX, 0};
  uint64_t prefix = 0, mask = 0, wanted = count;  // of the entries that begin with `prefix`, `wanted` stay
  for (int shift = 56; shift >= 0; shift -= 8) {
    uint64_t counts[256] = {};
    for_each([&](uint64_t entry) {
      if ((entry & mask) == prefix) ++counts[entry >> shift & 255];
    });
    uint64_t digit = 255;
    while (digit > 0 && counts[digit] < wanted) wanted -= counts[digit--];
    prefix |= digit << shift;
    mask |= uint64_t{255} << shift;
    if (counts[digit] == wanted) return {prefix, UINT64_MAX};  // all of them: the rest of the digits does not matter
  }
  return {prefix, wanted};
}

}  // namespace lethe
