// The unigram model's segmentation of one piece of text.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "runtime/memory/arena.h"
#include "runtime/model/model.h"
#include "runtime/text/symbol.h"

namespace lethe {

// Of all ways to cover the piece by tokens, that with the greatest sum of scores (Kudo, "Subword Regularization", 2018,
// section 3.2), found by Viterbi as in SentencePiece's unigram_model.cc: a character without a token costs
// TokenizerData::unknown_score, and of equal sums the one whose last token is longer stays. O(n * longest token). One
// thread at a time.
class UnigramEncoder {
 public:
  struct Scratch {
    std::span<Symbol> symbols;  // [max_piece_bytes + 1]
    std::span<double> sums;     // [max_piece_bytes + 1]
  };
  // 20 bytes for every byte of the longest piece.
  static Scratch layout(Arena& arena, uint64_t max_piece_bytes) {
    return {arena.take<Symbol>(max_piece_bytes + 1), arena.take<double>(max_piece_bytes + 1)};
  }

  void open(const TokenizerData& data, const Scratch& scratch) {
    data_ = &data;
    scratch_ = scratch;
  }

  // The next piece does not continue the last one: what the sums begin with. They decide nothing but which of two
  // ways wins that differ by rounding.
  void restart() { sum_ = 0; }

  // Encodes `piece`, at most max_piece_bytes. Follow the result from symbol 0 through `next`; valid until the next
  // call.
  std::span<const Symbol> encode(std::string_view piece);

 private:
  const TokenizerData* data_ = nullptr;
  Scratch scratch_;
  double sum_ = 0;  // of the text since restart()
};

}  // namespace lethe
