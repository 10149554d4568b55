// Layout of the KV block pool: what one block holds and where. Pure arithmetic: no storage, no kernels.
//
// A block holds kBlockSlots tokens of one (layer, KV head). Keys are stored transposed so that a kernel's lanes run
// over slots (no horizontal sums); values are stored by row. Sections, each 64-byte aligned:
//
//   keys       [head_dim][32]   f16 or s8, rotated (RoPE) at the token's absolute position
//   values     [32][head_dim]   f16 or s8
//   key_scale  [32]             f32, s8 only: key = scale * s8
//   value_scale[32]             f32, s8 only
//   positions  [32]             u32, absolute position in the conversation, strictly increasing along a list
//   state      [32][state_bytes] what the eviction policy remembers of every slot (policy.h), only if it asks for it
//
// Slots at or beyond a list's length hold stale bytes: kernels must mask them, never multiply by them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lethe {

enum class KvType : uint8_t { kF16 = 0, kInt8 = 1 };

// How a cached key's distance to the query is counted.
//   absolute  position in the conversation (exact while inside the trained length)
//   rolling   rank in the cache: distances stay below the cache's length, so a stream never ends (StreamingLLM, 3.2)
enum class PositionMode : uint8_t { kAbsolute = 0, kRolling = 1 };

inline constexpr uint32_t kBlockSlots = 32;
inline constexpr uint32_t kNoBlock = 0xffffffffu;

struct KvLayout {
  KvType type;
  uint32_t head_dim;
  uint32_t keys_offset;  // bytes from the block's start
  uint32_t values_offset;
  uint32_t key_scale_offset;  // 0 when there are no scales
  uint32_t value_scale_offset;
  uint32_t positions_offset;
  uint32_t state_offset;  // 0 when there is no state
  uint32_t state_bytes;   // per slot
  uint32_t block_bytes;   // multiple of 64
};

constexpr KvLayout make_kv_layout(KvType type, uint32_t head_dim, uint32_t state_bytes = 0) {
  const auto align = [](uint32_t n) { return (n + 63u) / 64u * 64u; };
  const uint32_t element = type == KvType::kF16 ? 2 : 1;
  KvLayout layout{};
  layout.type = type;
  layout.head_dim = head_dim;
  uint32_t at = 0;
  layout.keys_offset = at;
  at += align(head_dim * kBlockSlots * element);
  layout.values_offset = at;
  at += align(head_dim * kBlockSlots * element);
  if (type == KvType::kInt8) {
    layout.key_scale_offset = at;
    at += kBlockSlots * 4;
    layout.value_scale_offset = at;
    at += kBlockSlots * 4;
  }
  layout.positions_offset = at;
  at += kBlockSlots * 4;
  layout.state_bytes = state_bytes;
  if (state_bytes != 0) {
    layout.state_offset = at;
    at += align(kBlockSlots * state_bytes);
  }
  layout.block_bytes = at;
  return layout;
}

// One (layer, KV head): its blocks in order, as a chain through KvPoolView::next.
struct KvList {
  uint32_t first_block = kNoBlock;
  uint32_t last_block = kNoBlock;  // holds the last token; blocks of an append under way hang behind it
  uint32_t length = 0;             // tokens; blocks = ceil(length / 32)
};

// What a kernel needs to walk lists. Does not own. Concurrent readers are fine while nobody writes.
struct KvPoolView {
  KvLayout layout;
  uint8_t* blocks;       // [block_count][layout.block_bytes]
  const uint32_t* next;  // [block_count], kNoBlock at the end of a list
};

}  // namespace lethe
