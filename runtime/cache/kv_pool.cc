#include "runtime/cache/kv_pool.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

namespace lethe {
namespace {

// Every section of a block is [32 / slots][rows][slots][slot_bytes], with all 32 slots together but for values in bytes
// or less. Keys and states are transposed (many rows), as those values are within their four slots; all else has one
// row. Empty sections have no bytes.
struct Section {
  uint32_t offset;
  uint32_t rows;
  uint32_t slot_bytes;
  uint32_t slots = kBlockSlots;
};

std::array<Section, 6> sections_of(const KvLayout& layout) {
  const uint32_t scale = layout.key_scale_offset == 0 ? 0 : 4;
  const Section keys{layout.keys_offset, key_rows(layout), layout.key_bits == 16 ? 2 : kQuad};
  const Section values = layout.value_bits == 16 ? Section{layout.values_offset, 1, layout.head_dim * 2}
                                                 : Section{layout.values_offset, value_columns(layout), 1, kQuad};
  return {{keys,
           values,
           {layout.key_scale_offset, 1, scale},
           {layout.value_scale_offset, 1, scale},
           {layout.positions_offset, 1, 4},
           {layout.state_offset, layout.state_rows, layout.state_bytes / layout.state_rows}}};
}

// One row of all slots.
struct Row {
  uint32_t offset;      // of slot 0 in the block
  uint32_t slot_bytes;  // of one slot
  uint32_t slots;       // that stand together
  uint32_t stride;      // bytes from there to the next as many

  uint32_t at(uint32_t slot) const { return offset + slot / slots * stride + slot % slots * slot_bytes; }
  // Calls visit(offset, offset of another slot, bytes) for `count` slots from `slot` and from `other` on, where they
  // stand together in pieces as long as can be.
  template <typename Visit>
  void for_each_piece(uint32_t slot, uint32_t other, uint32_t count, Visit visit) const {
    const uint32_t piece = slots == kBlockSlots ? count : 1;
    for (uint32_t i = 0; i < count; i += piece) visit(at(slot + i), at(other + i), piece * slot_bytes);
  }
};

template <typename Visit>
void for_each_row(const KvLayout& layout, Visit visit) {
  for (const Section& section : sections_of(layout)) {
    if (section.slot_bytes == 0) continue;
    const uint32_t row_bytes = section.slots * section.slot_bytes;
    for (uint32_t row = 0; row < section.rows; ++row) {
      visit(Row{section.offset + row * row_bytes, section.slot_bytes, section.slots, section.rows * row_bytes});
    }
  }
}

}  // namespace

Status KvPool::carve(Arena& arena, const KvPoolOptions& options) {
  const uint64_t lists = static_cast<uint64_t>(options.layers) * options.kv_heads;
  if (lists == 0 || lists > kMaxBlocks || options.head_dim == 0 || options.head_dim > kMaxKvHeadDim ||
      options.block_count > kMaxBlocks || options.state_bytes_per_slot > kMaxStateBytes) {
    return Status::error(ErrorCode::kInvalidArgument,
                         "a cache of %u layers x %u KV heads x head_dim %u, %u blocks, %u state bytes per slot: each "
                         "must be at least 1 and at most %u blocks, head_dim %u, %u state bytes",
                         options.layers, options.kv_heads, options.head_dim, options.block_count,
                         options.state_bytes_per_slot, kMaxBlocks, kMaxKvHeadDim, kMaxStateBytes);
  }
  if (options.state_rows == 0 || options.state_bytes_per_slot % options.state_rows != 0) {
    return Status::error(ErrorCode::kInvalidArgument, "%u state bytes per slot cannot be cut into %u equal rows",
                         options.state_bytes_per_slot, options.state_rows);
  }
  layout_ = make_kv_layout(options.type, options.head_dim, options.state_bytes_per_slot, options.state_rows);
  layers_ = options.layers;
  kv_heads_ = options.kv_heads;
  block_count_ = options.block_count;
  token_capacity_ =
      options.token_capacity != 0 ? options.token_capacity : kv_token_capacity(block_count_, list_count());
  next_ = arena.take<uint32_t>(block_count_);
  lists_ = arena.take<KvList>(lists);
  absorbed_ = arena.take<float>(options.absorbs ? lists * (1 + 2 * options.head_dim) : 0);
  if (!arena.ok()) return Status::error(ErrorCode::kInternal, "the arena is too small for the index of the cache");
  clear();
  return {};
}

Status KvPool::carve_list_state(Arena& arena, uint32_t floats) {
  list_state_ = arena.take<float>(uint64_t{list_count()} * floats);
  if (!arena.ok()) return Status::error(ErrorCode::kInternal, "the arena is too small for the state of the lists");
  std::fill(list_state_.begin(), list_state_.end(), 0.0f);
  return {};
}

uint32_t KvPool::longest() const {
  uint32_t longest = 0;
  for (const KvList& list : lists_) longest = std::max(longest, list.length);
  return longest;
}

uint64_t KvPool::blocks_needed(uint32_t n) const {
  uint64_t needed = 0;
  for (const KvList& list : lists_) {
    needed += kv_blocks_of_tokens(uint64_t{list.length} + n) - kv_blocks_of_tokens(list.length);
  }
  return needed;
}

Status KvPool::begin_append(uint32_t n) {
  LETHE_RETURN_IF_ERROR(require_idle());
  const uint64_t needed = blocks_needed(n);
  if (needed > free_blocks_) {
    return Status::error(
        ErrorCode::kKvFull, "the cache is full: it holds %u of %u tokens; %u more need %llu blocks, %u of %u are free",
        longest(), token_capacity(), n, static_cast<unsigned long long>(needed), free_blocks_, block_count_);
  }
  for (KvList& list : lists_) {
    link_blocks(list, kv_blocks_of_tokens(uint64_t{list.length} + n) - kv_blocks_of_tokens(list.length));
    if (layout_.state_bytes != 0) zero_state(list, n);
  }
  pending_ = n;
  return {};
}

void KvPool::commit_append() {
  for (KvList& list : lists_) list = extended(list, pending_);
  pending_ = 0;
}

void KvPool::rollback_append() {
  for (KvList& list : lists_) cut(list, list.last_block, list.length);
  pending_ = 0;
}

void KvPool::append_blocks(uint32_t layer, uint32_t kv_head, std::span<uint32_t> blocks) const {
  const KvList& to = list(layer, kv_head);
  uint32_t at = first_new_block(to);
  for (size_t t = 0; t < blocks.size(); ++t) {
    if (t != 0 && (to.length + t) % kBlockSlots == 0) at = next_[at];
    blocks[t] = at;
  }
}

KvList KvPool::appended_list(uint32_t layer, uint32_t kv_head) const {
  return extended(list(layer, kv_head), pending_);
}

Status KvPool::compact(uint32_t layer, uint32_t kv_head, std::span<const uint64_t> keep) {
  LETHE_RETURN_IF_ERROR(require_idle());
  KvList& from = list_at(layer, kv_head);
  if (keep.size() * 64 < from.length) {
    return Status::error(ErrorCode::kInternal, "a mask of %zu bits for a list of %u tokens", keep.size() * 64,
                         from.length);
  }
  uint32_t kept = 0;             // tokens kept so far: the rank that the next one gets
  uint32_t to_block = kNoBlock;  // block of rank kept - 1
  uint32_t block_index = from.first_block;
  for (uint32_t rank = 0; rank < from.length; rank += kBlockSlots) {
    const uint32_t used = std::min(kBlockSlots, from.length - rank);
    uint32_t bits = static_cast<uint32_t>(keep[rank / 64] >> rank % 64) & (UINT32_MAX >> (kBlockSlots - used));
    SlotMove moves[kBlockSlots + 1];
    uint32_t move_count = 0;
    while (bits != 0) {
      const auto slot = static_cast<uint32_t>(std::countr_zero(bits));
      const uint32_t to_slot = kept % kBlockSlots;
      if (to_slot == 0) {
        // This block itself becomes the next one: emptied blocks before it are taken out of the chain, instead of
        // moving bytes into them.
        uint32_t& link = to_block == kNoBlock ? from.first_block : next_[to_block];
        free_chain(link, block_index);
        link = block_index;
        to_block = block_index;
      }
      const uint32_t run = std::min(static_cast<uint32_t>(std::countr_one(bits >> slot)), kBlockSlots - to_slot);
      if (to_block != block_index || to_slot != slot) moves[move_count++] = {slot, to_block, to_slot, run};
      kept += run;
      bits &= run == kBlockSlots ? 0 : ~(((1u << run) - 1) << slot);
    }
    move_slots(block_index, {moves, move_count});
    block_index = next_[block_index];
  }
  cut(from, to_block, kept);
  return {};
}

Status KvPool::truncate(uint32_t layer, uint32_t kv_head, uint32_t length) {
  LETHE_RETURN_IF_ERROR(require_idle());
  KvList& from = list_at(layer, kv_head);
  if (length > from.length) {
    return Status::error(ErrorCode::kInternal, "truncating a list of %u tokens to %u", from.length, length);
  }
  cut(from, length == 0 ? kNoBlock : extended({from.first_block, kNoBlock, 0}, length).last_block, length);
  return {};
}

Status KvPool::resize(uint32_t block_count, uint32_t token_capacity) {
  LETHE_RETURN_IF_ERROR(require_idle());
  if (block_count > next_.size()) {
    return Status::error(ErrorCode::kInternal, "a pool of %zu blocks cannot have %u", next_.size(), block_count);
  }
  if (used_blocks() > block_count || longest() > token_capacity) {
    return Status::error(ErrorCode::kKvFull,
                         "%u blocks are in use and the longest list has %u tokens: they do not fit "
                         "%u blocks and %u tokens",
                         used_blocks(), longest(), block_count, token_capacity);
  }
  // The free chain anew, of the blocks that stay.
  uint32_t at = free_head_;
  free_head_ = kNoBlock;
  free_blocks_ = 0;
  while (at != kNoBlock) {
    const uint32_t after = next_[at];
    if (at < block_count) {
      next_[at] = free_head_;
      free_head_ = at;
      ++free_blocks_;
    }
    at = after;
  }
  for (KvList& list : lists_) {
    for (uint32_t* link = &list.first_block; *link != kNoBlock; link = &next_[*link]) {
      if (*link < block_count) continue;
      const uint32_t from = *link, to = free_head_;
      free_head_ = next_[to];
      --free_blocks_;
      memcpy(block(to), block(from), layout_.block_bytes);
      next_[to] = next_[from];
      if (list.last_block == from) list.last_block = to;
      *link = to;
    }
  }
  if (block_count > block_count_) add_free_blocks(block_count_, block_count);
  block_count_ = block_count;
  token_capacity_ = token_capacity;
  return {};
}

// In ascending order before the free ones, so that a young conversation touches few pages.
void KvPool::add_free_blocks(uint32_t begin, uint32_t end) {
  for (uint32_t block = end; block-- > begin;) {
    next_[block] = free_head_;
    free_head_ = block;
  }
  free_blocks_ += end - begin;
}

void KvPool::clear() {
  for (KvList& list : lists_) list = KvList{};
  std::fill(absorbed_.begin(), absorbed_.end(), 0.0f);
  std::fill(list_state_.begin(), list_state_.end(), 0.0f);
  free_head_ = kNoBlock;
  free_blocks_ = 0;
  if (!next_.empty()) add_free_blocks(0, block_count_);  // not when measuring
  pending_ = 0;
}

void KvPool::wipe_stale_slots() {
  for (const KvList& list : lists_) {
    const uint32_t used = list.length % kBlockSlots;
    if (used == 0) continue;
    for_each_row(layout_, [&](const Row& row) {
      row.for_each_piece(used, used, kBlockSlots - used,
                         [&](uint32_t at, uint32_t, uint32_t bytes) { memset(block(list.last_block) + at, 0, bytes); });
    });
  }
}

Status KvPool::restore(uint32_t layer, uint32_t kv_head, uint32_t length) {
  LETHE_RETURN_IF_ERROR(require_idle());
  KvList& to = list_at(layer, kv_head);
  if (to.length != 0) return Status::error(ErrorCode::kInternal, "restoring into a list of %u tokens", to.length);
  const uint32_t needed = kv_blocks_of_tokens(length);
  if (needed > free_blocks_) {
    return Status::error(ErrorCode::kKvFull, "a list of %u tokens needs %u blocks, %u of %u are free", length, needed,
                         free_blocks_, block_count_);
  }
  link_blocks(to, needed);
  to = extended(to, length);
  return {};
}

Status KvPool::require_idle() const {
  if (pending_ == 0) return {};
  return Status::error(ErrorCode::kInternal, "an append of %u tokens to the cache is under way", pending_);
}

// The block of the first token behind the list's end; kNoBlock when none is linked.
uint32_t KvPool::first_new_block(const KvList& list) const {
  if (list.length == 0) return list.first_block;
  return list.length % kBlockSlots == 0 ? next_[list.last_block] : list.last_block;
}

// The list with n more tokens, whose blocks are linked already.
KvList KvPool::extended(KvList list, uint32_t n) const {
  if (n == 0) return list;
  const uint32_t blocks = kv_blocks_of_tokens(list.length + n);
  uint32_t at = list.length == 0 ? list.first_block : list.last_block;
  for (uint32_t i = std::max(1u, kv_blocks_of_tokens(list.length)); i < blocks; ++i) at = next_[at];
  list.last_block = at;
  list.length += n;
  return list;
}

// Takes `count` blocks (which are free) from the free chain and hangs them behind the list.
void KvPool::link_blocks(KvList& list, uint32_t count) {
  if (count == 0) return;
  const uint32_t first = free_head_;
  uint32_t last = first;
  for (uint32_t i = 1; i < count; ++i) last = next_[last];
  free_head_ = next_[last];
  free_blocks_ -= count;
  next_[last] = kNoBlock;
  (list.length == 0 ? list.first_block : next_[list.last_block]) = first;
}

// Frees the blocks of a chain from `first` up to, but without, `end`.
void KvPool::free_chain(uint32_t first, uint32_t end) {
  if (first == end) return;
  uint32_t last = first;
  uint32_t count = 1;
  for (; next_[last] != end; ++count) last = next_[last];
  next_[last] = free_head_;
  free_head_ = first;
  free_blocks_ += count;
}

// Ends the list after `length` tokens, the last of which is in `last_block` (kNoBlock for none); frees what follows.
void KvPool::cut(KvList& list, uint32_t last_block, uint32_t length) {
  if (length == 0) {
    free_chain(list.first_block, kNoBlock);
    list = KvList{};
    return;
  }
  free_chain(next_[last_block], kNoBlock);
  next_[last_block] = kNoBlock;
  list.last_block = last_block;
  list.length = length;
}

// Row by row, all moves of a block at once: keys have a row for every dimension, of one or two bytes a slot.
void KvPool::move_slots(uint32_t from_block, std::span<const SlotMove> moves) {
  if (moves.empty()) return;
  const uint8_t* from = block(from_block);
  for_each_row(layout_, [&](const Row& row) {
    for (const SlotMove& move : moves) {
      uint8_t* to = block(move.to_block);
      row.for_each_piece(move.from_slot, move.to_slot, move.count, [&](uint32_t at, uint32_t to_at, uint32_t bytes) {
        switch (bytes) {  // sizes of one slot that calls would make slow
          case 1: to[to_at] = from[at]; return;
          case 2: memcpy(to + to_at, from + at, 2); return;
          case 4: memcpy(to + to_at, from + at, 4); return;
          default: memmove(to + to_at, from + at, bytes);
        }
      });
    }
  });
}

void KvPool::zero_state(const KvList& list, uint32_t n) {
  uint32_t at = first_new_block(list);
  for (uint32_t t = 0; t < n; ++t) {
    const uint32_t slot = (list.length + t) % kBlockSlots;
    if (t != 0 && slot == 0) at = next_[at];
    const uint32_t element = layout_.state_bytes / layout_.state_rows;
    uint8_t* row = block(at) + layout_.state_offset + slot * element;
    for (uint32_t i = 0; i < layout_.state_rows; ++i, row += kBlockSlots * element) memset(row, 0, element);
  }
}

Status KvPool::check_list(uint32_t index) const {
  const KvList& list = lists_[index];
  const uint32_t expected = kv_blocks_of_tokens(uint64_t{list.length} + pending_);
  uint32_t last_position = 0;
  uint32_t rank = 0;
  uint32_t last = kNoBlock;
  uint32_t at = list.first_block;
  for (uint32_t i = 0; i < expected; ++i) {
    if (at >= block_count_) {
      return Status::error(ErrorCode::kInternal, "list %u of %u tokens ends after %u of %u blocks", index, list.length,
                           i, expected);
    }
    if (i + 1 == kv_blocks_of_tokens(list.length)) last = at;
    for (uint32_t slot = 0; slot < kBlockSlots && rank < list.length && blocks_ != nullptr; ++slot, ++rank) {
      uint32_t position = 0;
      memcpy(&position, block(at) + layout_.positions_offset + slot * sizeof position, sizeof position);
      if (rank != 0 && position <= last_position) {
        return Status::error(ErrorCode::kInternal, "list %u: position %u of rank %u follows position %u", index,
                             position, rank, last_position);
      }
      last_position = position;
    }
    at = next_[at];
  }
  if (at != kNoBlock || last != list.last_block) {
    return Status::error(ErrorCode::kInternal, "list %u of %u tokens does not end in block %u after %u blocks", index,
                         list.length, list.last_block, expected);
  }
  return {};
}

Status KvPool::check() const {
  // Chains of the right length that end are free of cycles. Two that share a block share all that follow, so chains
  // with different ends share none; and when their blocks add up to all blocks, none is lost.
  uint64_t in_lists = 0;
  for (uint32_t i = 0; i < lists_.size(); ++i) {
    LETHE_RETURN_IF_ERROR(check_list(i));
    in_lists += kv_blocks_of_tokens(uint64_t{lists_[i].length} + pending_);
  }
  uint32_t free_count = 0;
  uint32_t free_end = kNoBlock;
  for (uint32_t at = free_head_; at < block_count_ && free_count <= free_blocks_; at = next_[at]) {
    free_end = at;
    ++free_count;
  }
  if (free_count != free_blocks_ || in_lists + free_blocks_ != block_count_) {
    return Status::error(ErrorCode::kInternal, "%llu blocks in lists, %u counted as free, %u found free, %u in all",
                         static_cast<unsigned long long>(in_lists), free_blocks_, free_count, block_count_);
  }
  for (size_t i = 0; i < lists_.size(); ++i) {
    const uint32_t end = extended(lists_[i], pending_).last_block;
    if (end == kNoBlock) continue;
    bool shared = end == free_end;
    for (size_t j = i + 1; j < lists_.size(); ++j) shared |= end == extended(lists_[j], pending_).last_block;
    if (shared) return Status::error(ErrorCode::kInternal, "block %u ends list %zu and another chain", end, i);
  }
  return {};
}

}  // namespace lethe
