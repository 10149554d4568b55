#include "runtime/text/unigram.h"

#include <algorithm>

namespace lethe {
namespace {

// Where the sums of a long text begin anew, so that single precision stays enough (kScoreResetThreshold there).
constexpr double kSmallestSum = -100000;

}  // namespace

std::span<const Symbol> UnigramEncoder::encode(std::string_view piece) {
  if (piece.empty()) return {};
  const std::span<Symbol> symbols = scratch_.symbols.first(piece.size() + 1);
  const std::span<double> sums = scratch_.sums;
  // While the sums are found, a symbol lies at its end: `id` of the best token that ends there, `previous` its begin.
  for (Symbol& symbol : symbols) symbol.previous = kNoToken;
  const auto offer = [&](size_t begin, size_t end, uint32_t id, float score) {
    const double exact = sums[begin] + static_cast<double>(score);
    const double sum = data_->single_precision ? static_cast<double>(static_cast<float>(exact)) : exact;
    if (symbols[end].previous != kNoToken && sum <= sums[end]) return;
    symbols[end].id = id;
    symbols[end].previous = static_cast<uint32_t>(begin);
    sums[end] = sum;
  };
  sums[0] = sum_;
  for (size_t at = 0; at < piece.size();) {
    const size_t first = at + front_character(piece.substr(at)).size;
    const size_t limit = std::min<size_t>(piece.size(), at + data_->longest_token);
    bool covered = false;  // the character at `at` by a token of its own
    uint64_t hash = kTextHashSeed;
    for (size_t end = at; end < limit;) {
      const size_t next = end + front_character(piece.substr(end)).size;
      for (; end < next; ++end) hash = text_hash_step(hash, piece[end]);
      const uint32_t id = data_->find(piece.substr(at, end - at), hash);
      if (id == kNoToken) continue;
      offer(at, end, id, data_->scores[id]);
      covered = covered || end == first;
    }
    if (!covered) offer(at, first, kNoToken, data_->unknown_score);
    at = first;
  }
  sum_ = sums[piece.size()];
  if (sum_ < kSmallestSum) sum_ = 0;
  // Backwards along the best path, moving every symbol to its begin.
  uint32_t end = static_cast<uint32_t>(piece.size()), next = kNoToken;
  Symbol arriving = symbols[end];
  while (end > 0) {
    const uint32_t begin = arriving.previous;
    const Symbol before = symbols[begin];
    symbols[begin] = {arriving.id, begin == 0 ? kNoToken : before.previous, next};
    next = end = begin;
    arriving = before;
  }
  return symbols.first(piece.size());
}

}  // namespace lethe
