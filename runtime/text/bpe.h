// Byte pair encoding of one piece of text.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "runtime/memory/arena.h"
#include "runtime/model/model.h"
#include "runtime/text/symbol.h"

namespace lethe {

// Merges the pair of neighbours with the smallest rank, the leftmost of equals, until none is left (Sennrich et al.,
// "Neural Machine Translation of Rare Words with Subword Units", 2016, section 3.2). A linked list of symbols and a
// heap of candidate pairs: O(n log n) for n bytes. One thread at a time.
//
// Two questions have two answers each. What the symbols are at first: bytes (GPT-2) or characters (SentencePiece).
// Which pairs merge: those of the merge table, or, without one, those whose joined text is a token, in order of its
// score (SentencePiece's bpe_model.cc).
class BytePairEncoder {
 public:
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

  // Encode `piece`, at most max_piece_bytes. Follow the result from symbol 0 (which is never merged away) through
  // `next`; valid until the next call.

  // From bytes. Those that have no token in the vocabulary are left out, and their neighbours become neighbours, as
  // Hugging Face does without an unknown token; so the result may be empty.
  std::span<const Symbol> encode_bytes(std::string_view piece);
  // From characters. What stays without a token has the id kNoToken.
  std::span<const Symbol> encode_characters(std::string_view piece);

 private:
  struct Merge {
    uint32_t rank, merged;  // merged == kNoToken: the pair does not merge
  };
  // Of the pair that begins at `left`.
  Merge find_merge(uint32_t left) const;
  void push_candidate(uint32_t left);
  void merge_all();

  const TokenizerData* data_ = nullptr;
  Scratch scratch_;
  std::string_view piece_;
  uint32_t candidate_count_ = 0;
};

}  // namespace lethe
