// KvPool: which block belongs to which (layer, KV head), and the moving of slots when tokens are evicted.
//
// The pool owns neither its tables (carved from an arena) nor its blocks (set_blocks). Blocks are shared by all lists:
// a list that needs few leaves the rest to the others. No function here allocates. One thread at a time; kernels may
// read through view() while nothing here runs.
//
// A step of n tokens:  begin_append(n)  ->  for every list: append_blocks(), store_kv, attend over appended_list()
//                      ->  commit_append(), or rollback_append() when the step failed or was cancelled.
#pragma once

#include <cstdint>
#include <span>

#include "runtime/base/status.h"
#include "runtime/cache/kv_layout.h"
#include "runtime/memory/arena.h"

namespace lethe {

inline constexpr uint32_t kMaxKvHeadDim = 4096;
inline constexpr uint32_t kMaxStateBytes = 4096;        // per slot
inline constexpr uint32_t kMaxBlocks = (1u << 27) - 1;  // so that a token count always fits 32 bits

// What `blocks` blocks can hold, and what tokens need, when all `lists` lists have the same length.
constexpr uint32_t kv_blocks_of_tokens(uint64_t tokens) {  // per list
  return static_cast<uint32_t>((tokens + kBlockSlots - 1) / kBlockSlots);
}
constexpr uint64_t kv_blocks_for(uint64_t tokens, uint32_t lists) {
  return static_cast<uint64_t>(kv_blocks_of_tokens(tokens)) * lists;
}
constexpr uint32_t kv_token_capacity(uint64_t blocks, uint32_t lists) {
  return static_cast<uint32_t>(blocks / lists * kBlockSlots);
}
// Blocks of the longest list of such a sight (which has a window), in steps of at most `step` tokens: what a step
// needs, and less than a block that is no longer needed (whole blocks are dropped).
constexpr uint32_t kv_window_blocks(Sight sight, uint64_t step) {
  return kv_blocks_of_tokens(uint64_t{sight.sinks} + sight.window - 1 + (kBlockSlots - 1) + step);
}

struct KvPoolOptions {
  uint32_t layers;
  uint32_t kv_heads;
  uint32_t head_dim;
  KvType type;
  uint32_t block_count;
  uint32_t state_bytes_per_slot = 0;  // Policy::state_bytes_per_slot
  uint32_t token_capacity = 0;        // most tokens of a list; 0: an even share of the blocks
  bool absorbs = false;               // lists keep what became of dropped tokens (hand_over.h)
  uint32_t state_rows = 1;            // KvLayout::state_rows
};

class KvPool {
 public:
  KvPool() = default;
  KvPool(const KvPool&) = delete;
  KvPool& operator=(const KvPool&) = delete;

  // Takes the tables from `arena` and empties the pool. Over a measuring arena the tables are only counted, and nothing
  // but the sizes of the pool may be asked afterwards. kInvalidArgument for sizes of 0 or beyond the limits above
  // (block_count may be 0), kInternal when the arena is too small.
  Status carve(Arena& arena, const KvPoolOptions& options);

  // What the policy remembers of every list: `floats` each, zero at first. kInternal when the arena is too small.
  Status carve_list_state(Arena& arena, uint32_t floats);

  // The memory of the blocks: blocks_bytes() bytes, 64-byte aligned, not owned.
  void set_blocks(uint8_t* blocks) { blocks_ = blocks; }
  uint64_t blocks_bytes() const { return static_cast<uint64_t>(block_count_) * layout_.block_bytes; }

  const KvLayout& layout() const { return layout_; }
  KvPoolView view() const { return {layout_, blocks_, next_.data()}; }
  uint8_t* block(uint32_t index) const { return blocks_ + static_cast<uint64_t>(index) * layout_.block_bytes; }
  uint32_t layers() const { return layers_; }
  uint32_t kv_heads() const { return kv_heads_; }
  uint32_t list_count() const { return layers_ * kv_heads_; }
  uint32_t block_count() const { return block_count_; }
  uint32_t used_blocks() const { return block_count_ - free_blocks_; }
  uint32_t free_blocks() const { return free_blocks_; }
  uint32_t token_capacity() const { return token_capacity_; }  // most tokens of a list
  uint32_t longest() const;                                    // tokens

  // What a list keeps of the tokens that were dropped, as one token: how many they were, their mean key (rotated at
  // their positions) and their mean value. Empty unless the pool absorbs.  [1 + 2 * head_dim]
  std::span<float> absorbed(uint32_t layer, uint32_t kv_head) const {
    const size_t size = absorbed_.size() / list_count();
    return absorbed_.subspan((layer * kv_heads_ + kv_head) * size, size);
  }
  std::span<float> all_absorbed() const { return absorbed_; }  // [layers * kv_heads][1 + 2 * head_dim], or empty

  std::span<float> list_state(uint32_t layer, uint32_t kv_head) const {
    const size_t size = list_state_.size() / list_count();
    return list_state_.subspan((layer * kv_heads_ + kv_head) * size, size);
  }
  std::span<float> all_list_state() const { return list_state_; }  // [layers * kv_heads][floats of carve_list_state]

  const KvList& list(uint32_t layer, uint32_t kv_head) const { return lists_[layer * kv_heads_ + kv_head]; }

  // Blocks that appending n tokens to every list takes.
  uint64_t blocks_needed(uint32_t n) const;
  // Links the blocks for n more tokens to every list; lengths stay. All or nothing: kKvFull, with the numbers, when
  // free blocks do not suffice. kInternal when an append is under way. The policy's state of the new slots is zeroed.
  Status begin_append(uint32_t n);
  void commit_append();    // lengths += n
  void rollback_append();  // as if begin_append had not been called

  // The block of every token of the append under way: StoreKvArgs::block_of_token. The first goes to slot
  // list().length % 32.
  //   blocks [n]   out
  void append_blocks(uint32_t layer, uint32_t kv_head, std::span<uint32_t> blocks) const;
  // The list as it will be after commit_append(): AttendArgs::list.
  KvList appended_list(uint32_t layer, uint32_t kv_head) const;
  // PositionMode::kRolling: (position - rank) of the tokens of a step whose first has `first_position`.
  uint32_t query_delta(uint32_t layer, uint32_t kv_head, uint32_t first_position) const {
    return first_position - list(layer, kv_head).length;
  }

  // The functions below are for the time between steps: kInternal while an append is under way.

  // Keeps the tokens whose bit is set (rank r is bit r % 64 of word r / 64), in order, and frees the blocks this
  // empties. Bytes move only where slots shift: a run of dropped ranks whose length is a multiple of 32 costs no moves
  // behind the first block. kInternal when `keep` is shorter than the list.
  Status compact(uint32_t layer, uint32_t kv_head, std::span<const uint64_t> keep);
  // Keeps the first `length` tokens (at most the list's length).
  Status truncate(uint32_t layer, uint32_t kv_head, uint32_t length);
  // Uses the first `block_count` blocks only, at most as many as were carved, for lists of at most `token_capacity`
  // tokens. Blocks beyond move into free ones. kKvFull when the blocks in use or the longest list do not fit; then
  // nothing changes.
  Status resize(uint32_t block_count, uint32_t token_capacity);
  // Empties all lists, also an append under way. Afterwards the pool behaves as a new one.
  void clear();

  // Snapshots: wipe_stale_slots(), then write the blocks of every list in order (chain from first_block through
  // view().next, block_bytes each). To read back: clear(), restore() every list, fill its blocks in the same order,
  // then check().

  // Zeroes the slots behind the end of every list, so that a snapshot holds nothing of dropped tokens.
  void wipe_stale_slots();
  // Gives an empty list `length` tokens of undefined content. kKvFull when free blocks do not suffice.
  Status restore(uint32_t layer, uint32_t kv_head, uint32_t length);

  // Every block is in exactly one list or free, counts and ends are right, and (with blocks set) positions strictly
  // increase along every list. kInternal with what is wrong. Linear in blocks and tokens, quadratic in lists.
  Status check() const;

 private:
  KvList& list_at(uint32_t layer, uint32_t kv_head) { return lists_[layer * kv_heads_ + kv_head]; }
  Status require_idle() const;
  uint32_t first_new_block(const KvList& list) const;
  KvList extended(KvList list, uint32_t n) const;
  void add_free_blocks(uint32_t begin, uint32_t end);
  void link_blocks(KvList& list, uint32_t count);
  void free_chain(uint32_t first, uint32_t end);
  void cut(KvList& list, uint32_t last_block, uint32_t length);
  struct SlotMove {
    uint32_t from_slot, to_block, to_slot, count;
  };
  void move_slots(uint32_t from_block, std::span<const SlotMove> moves);
  void zero_state(const KvList& list, uint32_t n);
  Status check_list(uint32_t index) const;

  KvLayout layout_{};
  uint8_t* blocks_ = nullptr;
  std::span<uint32_t> next_;     // [blocks carved] next block of the list, or of the free chain
  std::span<KvList> lists_;      // [layers * kv_heads]
  std::span<float> absorbed_;    // all_absorbed()
  std::span<float> list_state_;  // all_list_state()
  uint32_t layers_ = 0;
  uint32_t kv_heads_ = 0;
  uint32_t block_count_ = 0;
  uint32_t token_capacity_ = 0;
  uint32_t free_head_ = kNoBlock;
  uint32_t free_blocks_ = 0;
  uint32_t pending_ = 0;  // tokens of the append under way
};

}  // namespace lethe
