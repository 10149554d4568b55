// A packed tokenizer as the runtime sees it, without a model around it.
#pragma once

#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/model/reader.h"
#include "runtime/text/tokenizer.h"
#include "schema/model_generated.h"
#include "tools/pack/header.h"
#include "tools/pack/tokenizer.h"

namespace lethe::test {

class LoadedTokenizer {
 public:
  static constexpr uint64_t kMaxPieceBytes = 4096;

  // `packed` may be changed before, to see what the loader says: status(). Without `cuts` the text between special
  // tokens is one piece, as if every pair of characters were neighbours in a token.
  explicit LoadedTokenizer(const PackedTokenizer& packed, bool cuts = true) {
    HeaderEntry entry;
    entry.tokenizer = packed.entry;
    header_ = build_header(entry);
    const fbs::Tokenizer& table = *fbs::GetHeader(header_.data())->tokenizer();
    segment_.resize(packed.segment.size() / sizeof(Line) + 1);
    std::memcpy(segment_.data(), packed.segment.data(), packed.segment.size());
    specials_.resize(packed.entry.special_count);
    patterns_.assign(packed.entry.split_patterns.begin(), packed.entry.split_patterns.end());
    for (size_t i = 0; i < patterns_.size(); ++i)
      patterns_[i] = table.split_patterns()->Get(static_cast<uint32_t>(i))->string_view();
    status_ = read_tokenizer(table, {segment_[0].bytes, packed.segment.size()}, packed.vocab, specials_, &data_);
    if (!status_.ok()) return;
    data_.split_patterns = patterns_;
    if (!cuts) data_.neighbours = {};
    Arena measuring = Arena::measuring();
    Tokenizer::layout(measuring, data_, kMaxPieceBytes);
    scratch_.resize(measuring.used() / sizeof(Line) + 1);
    Arena arena(scratch_[0].bytes, measuring.used());
    status_ = tokenizer_.open(data_, Tokenizer::layout(arena, data_, kMaxPieceBytes));
  }
  LoadedTokenizer(const LoadedTokenizer&) = delete;

  const Status& status() const { return status_; }
  const TokenizerData& data() const { return data_; }

  Status encode(std::string_view text, EncodeOptions options, std::vector<int32_t>* ids) {
    ids->resize(4 * text.size() + 8);
    uint64_t count = 0;
    const Status encoded = tokenizer_.encode(text, options, *ids, &count);
    ids->resize(count);
    return encoded;
  }
  std::string text(const std::vector<int32_t>& ids) const {
    std::string out;
    for (const int32_t id : ids) out += tokenizer_.token_text(id);
    return out;
  }

 private:
  struct alignas(64) Line {
    uint8_t bytes[64];
  };
  std::vector<uint8_t> header_;
  std::vector<Line> segment_, scratch_;
  std::vector<uint32_t> specials_;
  std::vector<std::string_view> patterns_;
  TokenizerData data_{};
  Tokenizer tokenizer_;
  Status status_;
};

}  // namespace lethe::test
