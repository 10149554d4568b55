// Hand over: what becomes of the tokens that an eviction drops.
#pragma once

#include <cstdint>
#include <span>

#include "runtime/cache/kv_layout.h"

namespace lethe {

enum class HandOver : uint8_t {
  kNone,
  // One more token for every list stands for all that were dropped: their mean key and mean value, as often as they
  // were (RazorAttention, arXiv 2407.15891, section 3.3). KvPool::absorbed() keeps it.
  kCompensation,
  // The value of a dropped token is blended into that of the survivor with the most similar key, by the cosine and by
  // the share of its value's norm (Token Merging, arXiv 2210.09461; D2O, arXiv 2406.13035; as MergingPress of kvpress).
  kMerge,
};

// Floats that hand_over() works in, for lists of at most `longest` tokens.
size_t hand_over_work_floats(HandOver kind, uint32_t head_dim, uint32_t longest);

// Before a list is compacted: hands over the tokens whose bit in `keep` is not set (as in KvPool::compact).
//   absorbed [KvPool::absorbed()]   kCompensation
//   work     [hand_over_work_floats]
void hand_over(HandOver kind, const KvPoolView& pool, const KvList& list, std::span<const uint64_t> keep,
               std::span<float> absorbed, std::span<float> work);

}  // namespace lethe
