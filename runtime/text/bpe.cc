#include "runtime/text/bpe.h"

#include <algorithm>
#include <bit>

namespace lethe {
namespace {

constexpr uint32_t kMergedAway = kNoToken - 1;  // as a symbol's id

// For std::push_heap, which keeps the greatest in front: the smallest rank, then the leftmost, is "greatest".
bool merges_later(const BytePairEncoder::Candidate& a, const BytePairEncoder::Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
}

// The higher the score, the smaller the rank: the bits of floats, ordered (negative ones reversed).
uint32_t rank_of_score(float score) {
  const uint32_t bits = std::bit_cast<uint32_t>(score + 0.0f);  // -0 becomes 0
  return (bits >> 31) != 0 ? bits : ~(bits | 0x80000000u);
}

}  // namespace

BytePairEncoder::Merge BytePairEncoder::find_merge(uint32_t left) const {
  const uint32_t next = scratch_.symbols[left].next;
  if (next == kNoToken) return {0, kNoToken};
  const uint32_t left_id = scratch_.symbols[left].id, right_id = scratch_.symbols[next].id;
  const uint64_t slots = data_->merges.size();
  if (slots == 0) {
    const uint32_t after = scratch_.symbols[next].next;
    const size_t end = after == kNoToken ? piece_.size() : after;
    const uint32_t id = data_->find(piece_.substr(left, end - left));
    return {id == kNoToken ? 0 : rank_of_score(data_->scores[id]), id};
  }
  for (uint64_t at = merge_hash(left_id, right_id, slots);; at = (at + 1) & (slots - 1)) {
    const MergeSlot& slot = data_->merges[at];
    if (slot.left == kNoToken) return {0, kNoToken};
    if (slot.left == left_id && slot.right == right_id) return {slot.rank, slot.merged};
  }
}

// At most one candidate per symbol at first and two per merge, of which there are fewer than symbols and each of which
// removes one: the heap never holds more than 2 * bytes.
void BytePairEncoder::push_candidate(uint32_t left) {
  const Merge merge = find_merge(left);
  if (merge.merged == kNoToken) return;
  Candidate* heap = scratch_.candidates.data();
  heap[candidate_count_++] = {merge.rank, left};
  std::push_heap(heap, heap + candidate_count_, merges_later);
}

std::span<const Symbol> BytePairEncoder::encode_bytes(std::string_view piece) {
  uint32_t size = 0;
  for (const char byte : piece) {
    const uint32_t id = data_->byte_tokens[static_cast<uint8_t>(byte)];
    if (id == kNoToken) continue;
    scratch_.symbols[size] = {id, size == 0 ? kNoToken : size - 1, size + 1};
    ++size;
  }
  if (size == 0) return {};
  scratch_.symbols[size - 1].next = kNoToken;
  merge_all();
  return scratch_.symbols.first(size);
}

std::span<const Symbol> BytePairEncoder::encode_characters(std::string_view piece) {
  if (piece.empty()) return {};
  piece_ = piece;
  uint32_t previous = kNoToken;
  for (uint32_t at = 0; at < piece.size();) {
    const uint32_t next = at + front_character(piece.substr(at)).size;
    scratch_.symbols[at] = {data_->find(piece.substr(at, next - at)), previous, next};
    previous = at;
    at = next;
  }
  scratch_.symbols[previous].next = kNoToken;
  merge_all();
  return scratch_.symbols.first(piece.size());
}

void BytePairEncoder::merge_all() {
  const std::span<Symbol> symbols = scratch_.symbols;
  candidate_count_ = 0;
  for (uint32_t i = 0; i != kNoToken; i = symbols[i].next) push_candidate(i);

  while (candidate_count_ > 0) {
    Candidate* heap = scratch_.candidates.data();
    const Candidate best = heap[0];
    std::pop_heap(heap, heap + candidate_count_--, merges_later);
    Symbol& left = symbols[best.left];
    if (left.id == kMergedAway) continue;
    // A candidate goes stale when one of its symbols has merged elsewhere; the pair that stands there now, if it
    // merges at all, has a candidate of its own.
    const Merge merge = find_merge(best.left);
    if (merge.merged == kNoToken || merge.rank != best.rank) continue;
    Symbol& right = symbols[left.next];
    left.id = merge.merged;
    left.next = right.next;
    right.id = kMergedAway;
    if (left.next != kNoToken) symbols[left.next].previous = best.left;
    if (left.previous != kNoToken) push_candidate(left.previous);
    push_candidate(best.left);
  }
}

}  // namespace lethe
