#include "runtime/text/tokenizer.h"

#include <algorithm>
#include <cstring>

#include "runtime/base/utf8.h"
#include "runtime/text/nfc.h"
#include "runtime/text/normaliser.h"
#include "runtime/text/symbol.h"

namespace lethe {

Tokenizer::Scratch Tokenizer::layout(Arena& arena, const TokenizerData& data, uint64_t max_piece_bytes) {
  Scratch scratch;
  const bool byte_level = data.kind == TokenizerKind::kByteLevelBpe;
  if (byte_level) scratch.splitter = Splitter::layout(arena);
  if (data.kind == TokenizerKind::kUnigram) {
    scratch.unigram = UnigramEncoder::layout(arena, max_piece_bytes);
  } else {
    scratch.pairs = BytePairEncoder::layout(arena, max_piece_bytes);
  }
  scratch.piece = arena.take<char>(max_piece_bytes);
  return scratch;
}

Status Tokenizer::open(const TokenizerData& data, const Scratch& scratch) {
  data_ = &data;
  specials_.open(data);
  pairs_.open(data, scratch.pairs);
  unigram_.open(data, scratch.unigram);
  piece_ = scratch.piece;
  byte_fallback_ = std::find(data.byte_tokens.begin(), data.byte_tokens.end(), kNoToken) == data.byte_tokens.end();
  if (data.kind != TokenizerKind::kByteLevelBpe) return {};
  return splitter_.open(data.split_patterns, scratch.splitter);
}

Status Tokenizer::encode(std::string_view text, const EncodeOptions& options, TokenSink sink, void* context) {
  if (const size_t bad = utf8::find_invalid(text); bad != text.size()) {
    return Status::error(ErrorCode::kInvalidUtf8, "the text is not UTF-8: byte %zu is 0x%02x", bad,
                         static_cast<unsigned>(static_cast<uint8_t>(text[bad])));
  }
  Output output = {sink, context};
  if (options.add_bos && data_->bos_id >= 0) LETHE_RETURN_IF_ERROR(sink(context, data_->bos_id));
  for (size_t plain = 0; plain < text.size();) {
    const SpecialMatcher::Match special = specials_.find(text, plain, options.parse_special);
    const bool user_defined = special.id != kNoToken && data_->kind_of(special.id) == TokenKind::kUserDefined;
    bool prefix = data_->space_prefix == SpacePrefix::kEvery;
    if (plain == 0) {
      prefix = prefix || (data_->space_prefix != SpacePrefix::kNone && special.begin > 0) ||
               (data_->space_prefix == SpacePrefix::kStart && user_defined);
    }
    LETHE_RETURN_IF_ERROR(encode_plain(text.substr(plain, special.begin - plain), prefix, output));
    if (special.id != kNoToken) LETHE_RETURN_IF_ERROR(output.add(special.id));
    plain = special.end;
  }
  return {};
}

Status Tokenizer::encode_plain(std::string_view text, bool prefix, Output& output) {
  Call call = {this, &output};
  if (data_->kind == TokenizerKind::kByteLevelBpe) {
    return data_->nfc && !nfc::is_normal(text) ? encode_normalised(text, output) : encode_split(text, output);
  }
  const auto take = [](void* context, std::string_view character) -> Status {
    const Call& to = *static_cast<Call*>(context);
    return to.tokenizer->add_character(character, *to.output);
  };
  piece_size_ = 0;
  unigram_.restart();
  if (text.empty() && prefix && data_->space_prefix == SpacePrefix::kStart) {
    LETHE_RETURN_IF_ERROR(add_character(" ", output));
  }
  LETHE_RETURN_IF_ERROR(normalise(*data_, text, prefix, take, &call));
  return encode_gathered(output);
}

Status Tokenizer::encode_split(std::string_view text, Output& output) {
  Call call = {this, &output};
  const auto take = [](void* context, std::string_view piece) -> Status {
    const Call& to = *static_cast<Call*>(context);
    return to.tokenizer->encode_byte_piece(piece, *to.output);
  };
  return splitter_.split(text, take, &call);
}

// Line by line, through the work space: the patterns of tokenizers with this normaliser, and no others are known, split
// between the end of a line and what is no white space.
Status Tokenizer::encode_normalised(std::string_view text, Output& output) {
  const auto take = [](void* context, std::string_view character) -> Status {
    Tokenizer& self = *static_cast<Call*>(context)->tokenizer;
    return self.append(character);
  };
  Call call = {this, &output};
  while (!text.empty()) {
    size_t end = 0;
    do {
      end = std::min(text.find('\n', end), text.size() - 1) + 1;
    } while (end < text.size() && is_white_space(front_character(text.substr(end)).code));
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end);
    if (nfc::is_normal(line)) {
      LETHE_RETURN_IF_ERROR(encode_split(line, output));
      continue;
    }
    // A piece of the line is encoded in other memory than this.
    piece_size_ = 0;
    LETHE_RETURN_IF_ERROR(nfc::normalise(line, take, &call));
    LETHE_RETURN_IF_ERROR(encode_split({piece_.data(), piece_size_}, output));
  }
  return {};
}

Status Tokenizer::encode_byte_piece(std::string_view piece, Output& output) {
  if (data_->ignore_merges) {
    if (const uint32_t id = data_->find(piece); id != kNoToken) return output.add(id);
  }
  if (piece.size() > piece_.size()) {
    return Status::error(ErrorCode::kPromptTooLong,
                         "the text has a stretch of %zu bytes without a place to split; the tokenizer has work "
                         "space for %zu",
                         piece.size(), piece_.size());
  }
  const std::span<const Symbol> symbols = pairs_.encode_bytes(piece);
  for (uint32_t at = symbols.empty() ? kNoToken : 0; at != kNoToken; at = symbols[at].next) {
    LETHE_RETURN_IF_ERROR(output.add(symbols[at].id));
  }
  return {};
}

Status Tokenizer::add_character(std::string_view character, Output& output) {
  const uint32_t code = front_character(character).code;
  if (piece_size_ > 0 && !data_->may_join(last_code_, code)) {
    LETHE_RETURN_IF_ERROR(encode_gathered(output));
    if (code == ' ' && !data_->single_precision) unigram_.restart();
  }
  last_code_ = code;
  return append(character);
}

Status Tokenizer::append(std::string_view character) {
  if (character.size() > piece_.size() - piece_size_) {
    return Status::error(ErrorCode::kPromptTooLong,
                         "the text has a stretch of more than %zu bytes without a place to split, for which the "
                         "tokenizer has no work space",
                         piece_size_);
  }
  std::memcpy(piece_.data() + piece_size_, character.data(), character.size());
  piece_size_ += character.size();
  return {};
}

Status Tokenizer::encode_gathered(Output& output) {
  const std::string_view piece(piece_.data(), piece_size_);
  piece_size_ = 0;
  const std::span<const Symbol> symbols =
      data_->kind == TokenizerKind::kUnigram ? unigram_.encode(piece) : pairs_.encode_characters(piece);
  for (uint32_t at = symbols.empty() ? kNoToken : 0; at != kNoToken; at = symbols[at].next) {
    const size_t end = std::min<size_t>(symbols[at].next, piece.size());
    LETHE_RETURN_IF_ERROR(symbols[at].id != kNoToken ? output.add(symbols[at].id)
                                                     : add_unknown(piece.substr(at, end - at), output));
  }
  return {};
}

// Unknown characters in a row become one token, as in SentencePiece.
Status Tokenizer::add_unknown(std::string_view bytes, Output& output) {
  if (byte_fallback_) {
    for (const char byte : bytes) {
      LETHE_RETURN_IF_ERROR(output.add(data_->byte_tokens[static_cast<uint8_t>(byte)]));
    }
    return {};
  }
  if (data_->unknown_id < 0 || output.unknown) return {};
  LETHE_RETURN_IF_ERROR(output.add(static_cast<uint32_t>(data_->unknown_id)));
  output.unknown = true;
  return {};
}

Status Tokenizer::encode(std::string_view text, const EncodeOptions& options, std::span<int32_t> ids, uint64_t* count) {
  struct Buffer {
    std::span<int32_t> ids;
    uint64_t count;
  } buffer = {ids, 0};
  const auto store = [](void* context, int32_t id) -> Status {
    Buffer& to = *static_cast<Buffer*>(context);
    if (to.count < to.ids.size()) to.ids[to.count] = id;
    ++to.count;
    return {};
  };
  *count = 0;
  LETHE_RETURN_IF_ERROR(encode(text, options, store, &buffer));
  *count = buffer.count;
  if (buffer.count > ids.size()) {
    return Status::error(ErrorCode::kPromptTooLong, "the text has %llu tokens; there is room for %zu",
                         static_cast<unsigned long long>(buffer.count), ids.size());
  }
  return {};
}

}  // namespace lethe
