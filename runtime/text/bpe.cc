#include "runtime/text/bpe.h"

#include <algorithm>

namespace lethe {
namespace {

// For std::push_heap, which keeps the greatest in front: the smallest rank, then the leftmost, is "greatest".
bool merges_later(const BytePairEncoder::Candidate& a, const BytePairEncoder::Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
}

}  // namespace

const MergeSlot* BytePairEncoder::find_merge(uint32_t left) const {
  const uint32_t next = scratch_.symbols[left].next;
  if (next == kNoToken) return nullptr;
  const uint32_t left_id = scratch_.symbols[left].id, right_id = scratch_.symbols[next].id;
  const uint64_t slots = data_->merges.size();
  if (slots == 0) return nullptr;
  for (uint64_t at = merge_hash(left_id, right_id, slots);; at = (at + 1) & (slots - 1)) {
    const MergeSlot& slot = data_->merges[at];
    if (slot.left == kNoToken) return nullptr;
    if (slot.left == left_id && slot.right == right_id) return &slot;
  }
}

// At most one candidate per byte at first and two per merge, of which there are fewer than bytes and each of which
// removes one: the heap never holds more than 2 * bytes.
void BytePairEncoder::push_candidate(uint32_t left) {
  const MergeSlot* merge = find_merge(left);
  if (merge == nullptr) return;
  Candidate* heap = scratch_.candidates.data();
  heap[candidate_count_++] = {merge->rank, left};
  std::push_heap(heap, heap + candidate_count_, merges_later);
}

std::span<const BytePairEncoder::Symbol> BytePairEncoder::encode(std::string_view piece) {
  uint32_t size = 0;
  for (const char byte : piece) {
    const uint32_t id = data_->byte_tokens[static_cast<uint8_t>(byte)];
    if (id == kNoToken) continue;
    scratch_.symbols[size] = {id, size == 0 ? kNoToken : size - 1, size + 1};
    ++size;
  }
  if (size == 0) return {};
  const std::span<Symbol> symbols = scratch_.symbols.first(size);
  symbols[size - 1].next = kNoToken;
  candidate_count_ = 0;
  for (uint32_t i = 0; i + 1 < size; ++i) push_candidate(i);

  while (candidate_count_ > 0) {
    Candidate* heap = scratch_.candidates.data();
    const Candidate best = heap[0];
    std::pop_heap(heap, heap + candidate_count_--, merges_later);
    Symbol& left = symbols[best.left];
    if (left.id == kNoToken) continue;
    // A candidate goes stale when one of its symbols has merged elsewhere; the pair that stands there now, if it
    // merges at all, has a candidate of its own.
    const MergeSlot* merge = find_merge(best.left);
    if (merge == nullptr || merge->rank != best.rank) continue;
    Symbol& right = symbols[left.next];
    left.id = merge->merged;
    left.next = right.next;
    right.id = kNoToken;
    if (left.next != kNoToken) symbols[left.next].previous = best.left;
    if (left.previous != kNoToken) push_candidate(left.previous);
    push_candidate(best.left);
  }
  return symbols;
}

}  // namespace lethe
