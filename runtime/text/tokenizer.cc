#include "runtime/text/tokenizer.h"

#include "runtime/base/utf8.h"

namespace lethe {

struct Tokenizer::Output {
  BytePairEncoder* encoder;
  TokenSink sink;
  void* context;

  Status add(uint32_t id) { return sink(context, static_cast<int32_t>(id)); }
};

Status Tokenizer::open(const TokenizerData& data, const Scratch& scratch) {
  data_ = &data;
  encoder_.open(data, scratch.encoder);
  for (const uint32_t id : data.specials) {
    if (!data.token(id).empty()) special_front_[static_cast<uint8_t>(data.token(id)[0])] = true;
  }
  return splitter_.open(data.split_patterns, scratch.splitter);
}

uint32_t Tokenizer::special_at(std::string_view text) const {
  if (!special_front_[static_cast<uint8_t>(text[0])]) return kNoToken;
  for (const uint32_t id : data_->specials) {  // longest first
    const std::string_view special = data_->token(id);
    if (!special.empty() && text.starts_with(special)) return id;
  }
  return kNoToken;
}

Status Tokenizer::encode(std::string_view text, const EncodeOptions& options, TokenSink sink, void* context) {
  if (const size_t bad = utf8::find_invalid(text); bad != text.size()) {
    return Status::error(ErrorCode::kInvalidUtf8, "the text is not UTF-8: byte %zu is 0x%02x", bad,
                         static_cast<unsigned>(static_cast<uint8_t>(text[bad])));
  }
  Output output = {&encoder_, sink, context};
  if (options.add_bos && data_->bos_id >= 0) LETHE_RETURN_IF_ERROR(sink(context, data_->bos_id));
  size_t plain = 0;  // where the text since the last special token begins
  if (options.parse_special) {
    for (size_t at = 0; at < text.size();) {
      const uint32_t special = special_at(text.substr(at));
      if (special == kNoToken) {
        ++at;
        continue;
      }
      LETHE_RETURN_IF_ERROR(encode_plain(text.substr(plain, at - plain), output));
      LETHE_RETURN_IF_ERROR(output.add(special));
      plain = at += data_->token(special).size();
    }
  }
  return encode_plain(text.substr(plain), output);
}

Status Tokenizer::encode_plain(std::string_view text, Output& output) {
  const auto encode_piece = [](void* context, std::string_view piece) -> Status {
    Output& out = *static_cast<Output*>(context);
    if (piece.size() > out.encoder->max_piece_bytes()) {
      return Status::error(ErrorCode::kPromptTooLong,
                           "the text has a stretch of %zu bytes without a place to split; the tokenizer has work "
                           "space for %llu",
                           piece.size(), static_cast<unsigned long long>(out.encoder->max_piece_bytes()));
    }
    const std::span<const BytePairEncoder::Symbol> symbols = out.encoder->encode(piece);
    for (uint32_t at = symbols.empty() ? kNoToken : 0; at != kNoToken; at = symbols[at].next) {
      LETHE_RETURN_IF_ERROR(out.add(symbols[at].id));
    }
    return {};
  };
  return splitter_.split(text, encode_piece, &output);
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
