// Layout of the KV block pool: what one block holds and where. Pure arithmetic: no storage, no kernels.
//
// A block holds kBlockSlots tokens of one (layer, KV head). Keys, rotated (RoPE) at the token's absolute position, are
// stored transposed so that a kernel's lanes run over slots (no horizontal sums); with values they run over dimensions.
// Of int8 keys four dimensions stand together, of int8 values four slots: one lane of a dot product of bytes.
// Sections, each 64-byte aligned:
//
//   f16    keys        [head_dim][32]
//          values      [32][head_dim]
//   int8   keys        [ceil(head_dim/4)][32][4]  u8: key = scale * (u8 - 128), so that u8 x s8 products apply
//          values      [8][head_dim][4]           s8: value = scale * s8
//          key_scale   [32]                       f32
//          value_scale [32]                       f32
//   both   positions   [32]                       u32, in the conversation, strictly increasing along a list
//          state       [state_rows][32][...]      what the eviction policy remembers of every slot (policy.h), only if
//                                                 it asks for it; every row has an equal part of state_bytes
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
//   clamped   position in the conversation within the trained length; beyond it the newest tokens keep their distances
//             and what would be farther away than the trained length stands at its rank, at the beginning. True
//             distances for as long as the model knows them, and a stream never ends.
enum class PositionMode : uint8_t { kAbsolute = 0, kRolling = 1, kClamped = 2 };

// Of kClamped: where the conversation is taken to begin for a query at `position`, so that it stands inside the trained
// length. Moves in steps, so that the queries of a tile have one.
inline constexpr uint32_t kClampStep = 256;  // a multiple of a tile
constexpr uint32_t clamped_begin(uint32_t position, uint32_t trained_length) {
  const uint32_t steps = position / kClampStep, fit = trained_length / kClampStep;
  return steps < fit ? 0 : (steps - fit + 1) * kClampStep;
}

inline constexpr uint32_t kBlockSlots = 32;
inline constexpr uint32_t kQuad = 4;  // bytes of one lane of a dot product
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
  uint32_t state_rows;    // into which they are cut; all slots of a row stand together
  uint32_t block_bytes;   // multiple of 64
};

constexpr KvLayout make_kv_layout(KvType type, uint32_t head_dim, uint32_t state_bytes = 0, uint32_t state_rows = 1) {
  const auto align = [](uint32_t n) { return (n + 63u) / 64u * 64u; };
  const uint32_t element = type == KvType::kF16 ? 2 : 1;
  const uint32_t key_dims = type == KvType::kF16 ? head_dim : (head_dim + kQuad - 1) / kQuad * kQuad;
  KvLayout layout{};
  layout.type = type;
  layout.head_dim = head_dim;
  uint32_t at = 0;
  layout.keys_offset = at;
  at += align(key_dims * kBlockSlots * element);
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
  layout.state_rows = state_rows;
  if (state_bytes != 0) {
    layout.state_offset = at;
    at += align(kBlockSlots * state_bytes);
  }
  layout.block_bytes = at;
  return layout;
}

// Where element d of a slot stands in the section of keys, and in that of values; in elements.
constexpr size_t key_index(const KvLayout& layout, size_t slot, size_t d) {
  if (layout.type == KvType::kF16) return d * kBlockSlots + slot;
  return (d / kQuad * kBlockSlots + slot) * kQuad + d % kQuad;
}
constexpr size_t value_index(const KvLayout& layout, size_t slot, size_t d) {
  if (layout.type == KvType::kF16) return slot * layout.head_dim + d;
  return (slot / kQuad * layout.head_dim + d) * kQuad + slot % kQuad;
}
inline constexpr int kKeyOffset = 128;  // of int8 keys

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
