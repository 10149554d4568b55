// Byte pair encoding of one piece of text.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "runtime/memory/arena.h"
#include "runtime/model/model.h"

namespace lethe {

// Merges the pair of neighbours with the smallest rank, the leftmost of equals, until none is left (Sennrich et al.,
// "Neural Machine Translation of Rare Words with Subword Units", 2016, section 3.2; over bytes as in GPT-2). A linked
// list of symbols and a heap of candidate pairs: O(n log n) for n bytes. One thread at a time.
class BytePairEncoder {
 public:
  struct Symbol {
    uint32_t id, previous, next;  // kNoToken at both ends of the list; `id` is kNoToken once merged away
  };
  struct Candidate {
    uint32_t rank, left;  // position of the left symbol
  };
  struct Scratch {
    std::span<Symbol> symbols;        // [max_piece_bytes]
    std::span<Candidate> candidates;  // [2 * max_piece_bytes]
  };
  // 28 bytes for every byte of the longest piece.
  static Scratch layout(Arena& arena, uint64_t max_piece_bytes) {
    return {arena.take<Symbol>(max_piece_bytes), arena.take<Candidate>(2 * max_piece_bytes)};
  }

  void open(const TokenizerData& data, const Scratch& scratch) {
    data_ = &data;
    scratch_ = scratch;
  }
  uint64_t max_piece_bytes() const { return scratch_.symbols.size(); }

  // Encodes `piece`, at most max_piece_bytes() bytes. Follow the result from symbol 0 (which is never merged away)
  // through `next`; valid until the next call. Bytes that have no token in the vocabulary are left out, and their
  // neighbours become neighbours, as Hugging Face does without an unknown token; so the result may be empty.
  std::span<const Symbol> encode(std::string_view piece);

 private:
  // The slot of the pair that begins at `left`; null when it does not merge.
  const MergeSlot* find_merge(uint32_t left) const;
  void push_candidate(uint32_t left);

  const TokenizerData* data_ = nullptr;
  Scratch scratch_;
  uint32_t candidate_count_ = 0;
};

}  // namespace lethe
