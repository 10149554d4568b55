// Layout of the KV block pool: what one block holds and where. Pure arithmetic: no storage, no kernels.
//
// A block holds kBlockSlots tokens of one (layer, KV head). Keys, rotated (RoPE) at the token's absolute position, are
// stored transposed so that a kernel's lanes run over slots (no horizontal sums); with values they run over dimensions.
// Of keys in bytes or less four dimensions stand together, of such values four slots: one lane of a dot product of
// bytes. Two numbers of 4 bits share a byte, always of one slot; what they stand for went through a Hadamard transform
// (hadamard.h). Sections, each 64-byte aligned:
//
//   keys        f16, 16 bits   [head_dim][32]
//               int8           [ceil(head_dim/4)][32][4]  u8: key = scale * (u8 - 128), so that u8 x s8 products apply
//               4 bits         [ceil(head_dim/8)][32][4]  byte b of row r has dimension 8r + b in its low bits and
//                                                         8r + 4 + b in its high ones; key = scale * (2 * u4 - 15)
//   values      f16, 16 bits   [32][head_dim]
//               int8           [8][head_dim][4]           s8: value = scale * s8
//               4 bits         [8][ceil(head_dim/2)][4]   byte d has dimension d in its low bits and
//                                                         ceil(head_dim/2) + d in its high ones; value as of keys
//   key_scale   [32]                                      f32, unless both are f16
//   value_scale [32]                                      f32, likewise
//   positions   [32]                                      u32, in the conversation, strictly increasing along a list
//   state       [state_rows][32][...]                     what the eviction policy remembers of every slot (policy.h),
//                                                         only if it asks for it; every row has an equal part of
//                                                         state_bytes
//
// Slots at or beyond a list's length hold stale bytes: kernels must mask them, never multiply by them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lethe {

//                 keys     values
//   f16           f16      f16
//   int8          int8     int8
//   int8k4v       int8     4 bits
//   int4          4 bits   4 bits
enum class KvType : uint8_t { kF16 = 0, kInt8 = 1, kInt8k4v = 2, kInt4 = 3 };
inline constexpr KvType kKvTypes[] = {KvType::kF16, KvType::kInt8, KvType::kInt8k4v, KvType::kInt4};
constexpr const char* kv_type_name(KvType type) {
  constexpr const char* kNames[] = {"f16", "int8", "int8k4v", "int4"};
  return kNames[static_cast<size_t>(type)];
}

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

// What a query sees of its list: the first `sinks` tokens and the last `window`, its own included. A window of 0: all.
struct Sight {
  uint32_t sinks = 0, window = 0;
};

inline constexpr uint32_t kBlockSlots = 32;
inline constexpr uint32_t kQuad = 4;  // bytes of one lane of a dot product
inline constexpr uint32_t kNoBlock = 0xffffffffu;

struct KvLayout {
  KvType type;
  uint32_t head_dim;
  uint32_t key_bits;  // 16, 8 or 4
  uint32_t value_bits;
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

// Rows of the section of keys, and elements or bytes that a slot's value takes.
constexpr uint32_t key_rows(const KvLayout& layout) {
  const uint32_t dims = layout.key_bits == 16 ? 1 : layout.key_bits == 8 ? kQuad : 2 * kQuad;
  return (layout.head_dim + dims - 1) / dims;
}
constexpr uint32_t value_columns(const KvLayout& layout) {
  return layout.value_bits == 4 ? (layout.head_dim + 1) / 2 : layout.head_dim;
}

constexpr KvLayout make_kv_layout(KvType type, uint32_t head_dim, uint32_t state_bytes = 0, uint32_t state_rows = 1) {
  const auto align = [](uint32_t n) { return (n + 63u) / 64u * 64u; };
  KvLayout layout{};
  layout.type = type;
  layout.head_dim = head_dim;
  layout.key_bits = type == KvType::kF16 ? 16 : type == KvType::kInt4 ? 4 : 8;
  layout.value_bits = type == KvType::kF16 ? 16 : type == KvType::kInt8 ? 8 : 4;
  uint32_t at = 0;
  layout.keys_offset = at;
  at += align(key_rows(layout) * kBlockSlots * (layout.key_bits == 16 ? 2 : kQuad));
  layout.values_offset = at;
  at += align(value_columns(layout) * kBlockSlots * (layout.value_bits == 16 ? 2 : 1));
  if (type != KvType::kF16) {
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

// Where element d of a slot stands in the section of keys, and in that of values; in halves or bytes.
constexpr size_t key_index(const KvLayout& layout, size_t slot, size_t d) {
  if (layout.key_bits == 16) return d * kBlockSlots + slot;
  const size_t row = layout.key_bits == 8 ? d / kQuad : d / (2 * kQuad);
  return (row * kBlockSlots + slot) * kQuad + d % kQuad;
}
constexpr size_t value_index(const KvLayout& layout, size_t slot, size_t d) {
  if (layout.value_bits == 16) return slot * layout.head_dim + d;
  const size_t columns = value_columns(layout);
  return (slot / kQuad * columns + (d < columns ? d : d - columns)) * kQuad + slot % kQuad;
}
// Of 4 bits: the bit of that byte where they begin.
constexpr int key_shift(size_t d) { return d / kQuad % 2 == 0 ? 0 : 4; }
constexpr int value_shift(const KvLayout& layout, size_t d) { return d < value_columns(layout) ? 0 : 4; }

inline constexpr int kKeyOffset = 128;  // of int8 keys
// The 16 numbers of 4 bits are the odd ones from -15 to 15: none is wasted, and no sign has more.
inline constexpr int kOffset4 = 15;
constexpr int from_4_bits(int code) { return 2 * code - kOffset4; }
constexpr int largest_quant(uint32_t bits) { return bits == 8 ? 127 : kOffset4; }

// Element d of a slot in units of the slot's scale, from its byte.
constexpr int key_quant(const KvLayout& layout, uint8_t byte, size_t d) {
  return layout.key_bits == 8 ? byte - kKeyOffset : from_4_bits(byte >> key_shift(d) & 15);
}
constexpr int value_quant(const KvLayout& layout, uint8_t byte, size_t d) {
  return layout.value_bits == 8 ? static_cast<int8_t>(byte) : from_4_bits(byte >> value_shift(layout, d) & 15);
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
