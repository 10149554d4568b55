// What the keys of a list say about its tokens without any query.
#pragma once

#include <cstddef>
#include <span>

#include "runtime/cache/kv_layout.h"

namespace lethe {

// Floats of work space that the functions below need.
constexpr size_t key_work_floats(size_t head_dim) { return head_dim * (kBlockSlots + 1); }

// The length of every key. RoPE does not change it.
//   work [key_work_floats], out [list.length]
void key_norms(const KvPoolView& pool, const KvList& list, std::span<float> work, std::span<float> out);

// The cosine of every key to the anchor of the list: the mean of its unit keys.
//   work [key_work_floats], out [list.length]
void key_cosines(const KvPoolView& pool, const KvList& list, std::span<float> work, std::span<float> out);

}  // namespace lethe
