// Text to token ids and back, with special tokens: byte-level BPE, SentencePiece's BPE and unigram.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "runtime/base/status.h"
#include "runtime/memory/arena.h"
#include "runtime/model/model.h"
#include "runtime/text/bpe.h"
#include "runtime/text/special_matcher.h"
#include "runtime/text/splitter.h"
#include "runtime/text/unigram.h"

namespace lethe {

struct EncodeOptions {
  bool parse_special = false;  // texts of control tokens become those tokens; otherwise they are plain text
  bool add_bos = false;        // put the model's beginning-of-text token first; nothing when it has none
};

// Gives the ids of the model's own tokenizer (Hugging Face's tokenizers, SentencePiece). User-defined tokens are always
// found in the text, control tokens on demand; what lies between them is plain text. Byte-level BPE cuts it by the
// split patterns. SentencePiece kinds normalise it and cut it between characters that are neighbours in no token, which
// changes nothing in the result.
//
// The tables are shared and immutable; the object itself has work space and serves one thread at a time. Nothing is
// obtained from the heap. Text must be UTF-8 (see utf8::replace_invalid for text that is not).
class Tokenizer {
 public:
  struct Scratch {
    Splitter::Scratch splitter;  // these as the kind needs them
    BytePairEncoder::Scratch pairs;
    UnigramEncoder::Scratch unigram;
    std::span<char> piece;  // [max_piece_bytes]
  };
  // `max_piece_bytes` bounds the longest stretch that cannot be cut, at most 29 bytes of work space for each. Words
  // rarely pass 100 bytes, runs of Chinese without punctuation a few thousand. A text is always encoded exactly when
  // max_piece_bytes is at least three times its size.
  static Scratch layout(Arena& arena, const TokenizerData& data, uint64_t max_piece_bytes);

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

  // The raw bytes of a token, not necessarily whole characters; empty for an id outside the vocabulary. The texts of a
  // reply's tokens, one after another, are the reply. (Where SentencePiece decodes a whole text it drops the space that
  // it put in front.)
  std::string_view token_text(int32_t id) const {
    return id < 0 || static_cast<uint64_t>(id) >= data_->token_kinds.size() ? std::string_view()
                                                                            : data_->token(static_cast<uint32_t>(id));
  }

 private:
  // Where the tokens of one encode() go.
  struct Output {
    TokenSink sink;
    void* context;
    bool unknown = false;  // the last token stands for unknown characters

    Status add(uint32_t id) {
      unknown = false;
      return sink(context, static_cast<int32_t>(id));
    }
  };
  struct Call {
    Tokenizer* tokenizer;
    Output* output;
  };

  Status encode_plain(std::string_view text, bool prefix, Output& output);
  // Byte-level BPE.
  Status encode_split(std::string_view text, Output& output);
  Status encode_normalised(std::string_view text, Output& output);
  Status encode_byte_piece(std::string_view piece, Output& output);
  // SentencePiece kinds: characters gather in the piece, which is encoded where the text can be cut.
  Status add_character(std::string_view character, Output& output);
  Status encode_gathered(Output& output);
  Status append(std::string_view character);  // to the piece
  Status add_unknown(std::string_view bytes, Output& output);

  const TokenizerData* data_ = nullptr;
  SpecialMatcher specials_;
  Splitter splitter_;
  BytePairEncoder pairs_;
  UnigramEncoder unigram_;
  std::span<char> piece_;
  size_t piece_size_ = 0;
  uint32_t last_code_ = 0;     // of the last character in the piece
  bool byte_fallback_ = true;  // every byte has a token
};

}  // namespace lethe
