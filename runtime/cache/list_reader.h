// Reading what a list holds, block by block: for policies. Kernels read the same bytes in place.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "runtime/cache/kv_layout.h"

namespace lethe {

// Calls visit(block, rank of its first slot, slots in use) for every block of a list, in order.
template <typename Visit>
void for_each_block(const KvPoolView& pool, const KvList& list, Visit visit) {
  uint32_t index = list.first_block;
  for (uint32_t rank = 0; rank < list.length; rank += kBlockSlots, index = pool.next[index]) {
    visit(pool.blocks + uint64_t{index} * pool.layout.block_bytes, rank, std::min(kBlockSlots, list.length - rank));
  }
}

inline const uint32_t* block_positions(const KvLayout& layout, const uint8_t* block) {
  return reinterpret_cast<const uint32_t*>(block + layout.positions_offset);
}

// Exact for finite halves, and without a branch, so that loops over it become vectors.
inline float finite_half_to_float(uint16_t half) {
  const float magnitude = std::bit_cast<float>(static_cast<uint32_t>(half & 0x7fffu) << 13) * 0x1p112f;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | static_cast<uint32_t>(half & 0x8000u) << 16);
}

// All keys of a block as floats; slots that are not in use give any number.  out [head_dim][32]
inline void read_keys(const KvLayout& layout, const uint8_t* block, float* out) {
  if (layout.type == KvType::kF16) {
    const auto* keys = reinterpret_cast<const uint16_t*>(block + layout.keys_offset);
    for (uint32_t i = 0; i < layout.head_dim * kBlockSlots; ++i) out[i] = finite_half_to_float(keys[i]);
    return;
  }
  const auto* scales = reinterpret_cast<const float*>(block + layout.key_scale_offset);
  for (uint32_t d = 0; d < layout.head_dim; ++d, out += kBlockSlots) {
    const uint8_t* keys = block + layout.keys_offset + key_index(layout, 0, d);
    for (uint32_t slot = 0; slot < kBlockSlots; ++slot) {
      out[slot] = static_cast<float>(keys[slot * kQuad] - kKeyOffset) * scales[slot];
    }
  }
}

// The squared norm of every key of a block.  keys [head_dim][32] as from read_keys, out [32]
inline void square_norms(const float* keys, uint32_t head_dim, float* out) {
  std::fill_n(out, kBlockSlots, 0.0f);
  for (uint32_t d = 0; d < head_dim; ++d, keys += kBlockSlots) {
    for (uint32_t slot = 0; slot < kBlockSlots; ++slot) out[slot] += keys[slot] * keys[slot];
  }
}

}  // namespace lethe
