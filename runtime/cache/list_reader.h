// Reading what a list holds, block by block: for policies. Kernels read the same bytes in place.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <span>

#include "runtime/cache/hadamard.h"
#include "runtime/cache/kv_layout.h"
#include "runtime/cache/observe.h"

namespace lethe {

// Calls visit(block, rank of its first slot, slots in use) for every block of a list, in order.
template <typename Visit>
void for_each_block(const KvPoolView& pool, const KvList& list, Visit visit) {
  uint32_t index = list.first_block;
  for (uint32_t rank = 0; rank < list.length; rank += kBlockSlots, index = pool.next[index]) {
    visit(pool.blocks + uint64_t{index} * pool.layout.block_bytes, rank, std::min(kBlockSlots, list.length - rank));
  }
}

// The state of a block's slots, of policies that keep one float for each.
inline float* slot_floats(const KvLayout& layout, uint8_t* block) {
  return reinterpret_cast<float*>(block + layout.state_offset);
}
inline void read_slot_floats(const KvPoolView& pool, const KvList& list, std::span<float> out) {
  for_each_block(pool, list, [&](const uint8_t* block, uint32_t rank, uint32_t count) {
    const auto* state = reinterpret_cast<const float*>(block + pool.layout.state_offset);
    std::copy_n(state, count, out.begin() + rank);
  });
}
// A block's slots, and what one query paid to them.
struct ObservedSlots {
  float* state;            // of the slots, from the first on
  const float* attention;  // [count], 0 behind the query
  uint32_t count;
  uint32_t rank;        // of the first slot
  uint32_t query_rank;  // the query sees ranks up to its own

  uint32_t visible() const { return query_rank < rank ? 0 : std::min(count, query_rank + 1 - rank); }
};
// Calls visit(ObservedSlots) for every block and query of a tile, in order.
template <typename Visit>
void for_each_observed(const ObserveArgs& args, Visit visit) {
  uint32_t index = args.start_block;
  for (uint32_t rank = args.rank_begin; rank < args.rank_end; rank += kBlockSlots, index = args.pool.next[index]) {
    float* state = slot_floats(args.pool.layout, args.pool.blocks + uint64_t{index} * args.pool.layout.block_bytes);
    const uint32_t count = std::min(kBlockSlots, args.rank_end - rank);
    for (uint32_t t = 0; t < args.queries; ++t) {
      visit(ObservedSlots{.state = state,
                          .attention = args.attention + uint64_t{t} * args.stride + (rank - args.rank_begin),
                          .count = count,
                          .rank = rank,
                          .query_rank = args.first_query_rank + t});
    }
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
  if (layout.key_bits == 16) {
    const auto* keys = reinterpret_cast<const uint16_t*>(block + layout.keys_offset);
    for (uint32_t i = 0; i < layout.head_dim * kBlockSlots; ++i) out[i] = finite_half_to_float(keys[i]);
    return;
  }
  const auto* scales = reinterpret_cast<const float*>(block + layout.key_scale_offset);
  for (uint32_t d = 0; d < layout.head_dim; ++d) {
    const uint8_t* keys = block + layout.keys_offset + key_index(layout, 0, d);
    for (uint32_t slot = 0; slot < kBlockSlots; ++slot) {
      out[d * kBlockSlots + slot] = static_cast<float>(key_quant(layout, keys[slot * kQuad], d)) * scales[slot];
    }
  }
  if (layout.key_bits == 4) hadamard(out, layout.head_dim, kBlockSlots);
}

// Element d of the value of one slot as it is stored: of 4 bits, transformed.
inline float stored_value_at(const KvLayout& layout, const uint8_t* block, uint32_t slot, uint32_t d) {
  const uint8_t* values = block + layout.values_offset;
  const size_t at = value_index(layout, slot, d);
  return layout.value_bits == 16 ? finite_half_to_float(reinterpret_cast<const uint16_t*>(values)[at])
                                 : static_cast<float>(value_quant(layout, values[at], d)) *
                                       reinterpret_cast<const float*>(block + layout.value_scale_offset)[slot];
}

// The value of one slot.  out [head_dim]
inline void read_value(const KvLayout& layout, const uint8_t* block, uint32_t slot, float* out) {
  for (uint32_t d = 0; d < layout.head_dim; ++d) out[d] = stored_value_at(layout, block, slot, d);
  if (layout.value_bits == 4) hadamard(out, layout.head_dim, 1);
}

// All values of a block, as keys are read.  out [head_dim][32]
inline void read_values(const KvLayout& layout, const uint8_t* block, float* out) {
  for (uint32_t slot = 0; slot < kBlockSlots; ++slot) {
    for (uint32_t d = 0; d < layout.head_dim; ++d) {
      out[d * kBlockSlots + slot] = stored_value_at(layout, block, slot, d);
    }
  }
  if (layout.value_bits == 4) hadamard(out, layout.head_dim, kBlockSlots);
}

// The sum of the magnitudes of the value of every slot of a block.  work [head_dim][32], out [32]
inline void value_norms(const KvLayout& layout, const uint8_t* block, float* work, float* out) {
  read_values(layout, block, work);
  std::fill_n(out, kBlockSlots, 0.0f);
  for (uint32_t d = 0; d < layout.head_dim; ++d, work += kBlockSlots) {
    for (uint32_t slot = 0; slot < kBlockSlots; ++slot) out[slot] += std::abs(work[slot]);
  }
}

// The rank of the first token at `position` or behind it; the list's length when there is none.
inline uint32_t rank_of_position(const KvPoolView& pool, const KvList& list, uint32_t position) {
  uint32_t before = 0;
  for_each_block(pool, list, [&](const uint8_t* block, uint32_t, uint32_t count) {
    const uint32_t* positions = block_positions(pool.layout, block);
    before += static_cast<uint32_t>(std::lower_bound(positions, positions + count, position) - positions);
  });
  return before;
}

// The squared norm of every key of a block.  keys [head_dim][32] as from read_keys, out [32]
inline void square_norms(const float* keys, uint32_t head_dim, float* out) {
  std::fill_n(out, kBlockSlots, 0.0f);
  for (uint32_t d = 0; d < head_dim; ++d, keys += kBlockSlots) {
    for (uint32_t slot = 0; slot < kBlockSlots; ++slot) out[slot] += keys[slot] * keys[slot];
  }
}

}  // namespace lethe
