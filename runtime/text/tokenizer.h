// Text to token ids and back: byte-level BPE with special tokens.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "runtime/base/status.h"
#include "runtime/memory/arena.h"
#include "runtime/model/model.h"
#include "runtime/text/bpe.h"
#include "runtime/text/splitter.h"

namespace lethe {

struct EncodeOptions {
  bool parse_special = false;  // texts of special tokens become those tokens; otherwise they are plain text
  bool add_bos = false;        // put the model's beginning-of-text token first; nothing when it has none
};

// Gives the ids of Hugging Face's tokenizer of the same model. The tables are shared and immutable; the object itself
// has work space and serves one thread at a time. Nothing is obtained from the heap. Text must be UTF-8 (see
// utf8::replace_invalid for text that is not).
class Tokenizer {
 public:
  struct Scratch {
    Splitter::Scratch splitter;
    BytePairEncoder::Scratch encoder;
  };
  // `max_piece_bytes` bounds the longest stretch that the split patterns leave whole, 28 bytes of work space for
  // each. Words rarely pass 100 bytes, runs of Chinese without punctuation a few thousand. A text is always encoded
  // exactly when max_piece_bytes is at least its size.
  static Scratch layout(Arena& arena, uint64_t max_piece_bytes) {
    return {Splitter::layout(arena), BytePairEncoder::layout(arena, max_piece_bytes)};
  }

  // `data` and the memory of `scratch` outlive the object, which is opened once. kUnsupported: a split pattern.
  Status open(const TokenizerData& data, const Scratch& scratch);

  // Called with each token in order; an error stops the encoding and is what encode returns.
  using TokenSink = Status (*)(void* context, int32_t id);

  // For texts of any length. kInvalidUtf8 gives the offset of the first bad byte, before any token is given out;
  // kPromptTooLong: a piece is longer than max_piece_bytes; kUnsupported: see Splitter::split.
  Status encode(std::string_view text, const EncodeOptions& options, TokenSink sink, void* context);

  // Into a buffer. `count` becomes the number of tokens of the text; when that is more than ids.size() the result is
  // kPromptTooLong, so an empty span counts.
  Status encode(std::string_view text, const EncodeOptions& options, std::span<int32_t> ids, uint64_t* count);

  // The raw bytes of a token, not necessarily whole characters; empty for an id outside the vocabulary.
  std::string_view token_text(int32_t id) const {
    return id < 0 || static_cast<uint64_t>(id) >= data_->token_kinds.size() ? std::string_view()
                                                                            : data_->token(static_cast<uint32_t>(id));
  }

 private:
  struct Output;
  Status encode_plain(std::string_view text, Output& output);
  // The special token at the front of `text`; kNoToken when there is none.
  uint32_t special_at(std::string_view text) const;

  const TokenizerData* data_ = nullptr;
  Splitter splitter_;
  BytePairEncoder encoder_;
  bool special_front_[256] = {};  // bytes with which a special token begins
};

}  // namespace lethe
