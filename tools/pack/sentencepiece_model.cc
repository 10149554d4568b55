// Reads SentencePiece's tokenizer.model: the fields of sentencepiece_model.proto that concern encoding.
#include <cinttypes>
#include <cstring>

#include "tools/pack/tokenizer_files.h"

namespace lethe {
namespace {

Status damaged(const char* what) { return Status::error(ErrorCode::kCorruptModel, "tokenizer.model: %s", what); }

// The wire format of protocol buffers (https://protobuf.dev/programming-guides/encoding): one field after another.
class ProtoReader {
 public:
  explicit ProtoReader(std::string_view bytes) : bytes_(bytes) {}

  bool at_end() const { return bytes_.empty(); }

  struct Field {
    uint32_t number = 0, wire_type = 0;
    uint64_t integer = 0;    // of wire type 0, and the bits of type 5
    std::string_view bytes;  // of wire type 2
  };
  Status next(Field* field) {
    uint64_t tag = 0, size = 0;
    LETHE_RETURN_IF_ERROR(varint(&tag));
    *field = {static_cast<uint32_t>(tag >> 3), static_cast<uint32_t>(tag & 7), 0, {}};
    switch (field->wire_type) {
      case 0: return varint(&field->integer);
      case 1: size = 8; break;
      case 2: LETHE_RETURN_IF_ERROR(varint(&size)); break;
      case 5: size = 4; break;
      default: return damaged("a field has an unknown wire type");
    }
    if (size > bytes_.size()) return damaged("a field reaches past its end");
    field->bytes = bytes_.substr(0, size);
    if (field->wire_type == 5) {
      uint32_t bits = 0;
      std::memcpy(&bits, bytes_.data(), sizeof bits);
      field->integer = bits;
    }
    bytes_.remove_prefix(size);
    return {};
  }

 private:
  Status varint(uint64_t* out) {
    *out = 0;
    for (uint32_t shift = 0; shift < 64 && !bytes_.empty(); shift += 7) {
      const auto byte = static_cast<uint8_t>(bytes_[0]);
      bytes_.remove_prefix(1);
      *out |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return {};
    }
    return damaged("a number has no end");
  }

  std::string_view bytes_;
};

// Calls `take(field)` for every field of a message.
template <typename Take>
Status for_each_field(std::string_view message, Take take) {
  ProtoReader reader(message);
  while (!reader.at_end()) {
    ProtoReader::Field field;
    LETHE_RETURN_IF_ERROR(reader.next(&field));
    LETHE_RETURN_IF_ERROR(take(field));
  }
  return {};
}

// SentencePiece.Type of the proto.
Status set_piece(std::string_view text, uint64_t type, SourceToken* token) {
  token->text = decode_visible_spaces(text);
  switch (type) {
    case 1: token->kind = TokenKind::kNormal; return {};
    case 2:  // unknown
    case 3: token->kind = TokenKind::kControl; return {};
    case 4: token->kind = TokenKind::kUserDefined; return {};
    case 5: token->kind = TokenKind::kUnused; return {};
    case 6: {
      const int32_t byte = byte_of_token(text);
      if (byte < 0) return damaged("a piece of the type BYTE is not written like <0x0A>");
      token->kind = TokenKind::kByte;
      token->text.assign(1, static_cast<char>(byte));
      return {};
    }
    default: return Status::error(ErrorCode::kUnsupported, "tokenizer.model: a piece has type %" PRIu64, type);
  }
}

Status read_piece(std::string_view message, SourceToken* token) {
  std::string_view text;
  uint64_t type = 1;
  LETHE_RETURN_IF_ERROR(for_each_field(message, [&](const ProtoReader::Field& field) -> Status {
    if (field.number == 1) text = field.bytes;
    if (field.number == 2 && field.wire_type == 5) {
      const auto bits = static_cast<uint32_t>(field.integer);
      std::memcpy(&token->score, &bits, sizeof bits);
    }
    if (field.number == 3) type = field.integer;
    return {};
  }));
  if (text.empty()) return damaged("a piece has no text");
  return set_piece(text, type, token);
}

}  // namespace

Status read_sentencepiece_model(std::string_view bytes, TokenizerSource* out) {
  *out = {};
  // The defaults of the proto.
  uint64_t model_type = 1;
  bool prefix = true, escape_spaces = true, space_as_suffix = false;
  int32_t unknown_id = 0, bos_id = 1, eos_id = 2;
  out->space_rule = SpaceRule::kTrim;
  const auto read_trainer = [&](const ProtoReader::Field& field) -> Status {
    switch (field.number) {
      case 3: model_type = field.integer; break;
      case 24: space_as_suffix = field.integer != 0; break;
      case 40: unknown_id = static_cast<int32_t>(field.integer); break;
      case 41: bos_id = static_cast<int32_t>(field.integer); break;
      case 42: eos_id = static_cast<int32_t>(field.integer); break;
      default: break;
    }
    return {};
  };
  const auto read_normaliser = [&](const ProtoReader::Field& field) -> Status {
    switch (field.number) {
      case 2: out->charsmap = field.bytes; break;
      case 3: prefix = field.integer != 0; break;
      case 4: out->space_rule = field.integer != 0 ? SpaceRule::kTrim : SpaceRule::kKeep; break;
      case 5: escape_spaces = field.integer != 0; break;
      default: break;
    }
    return {};
  };
  LETHE_RETURN_IF_ERROR(for_each_field(bytes, [&](const ProtoReader::Field& field) -> Status {
    if (field.wire_type != 2) return {};
    if (field.number == 1) return read_piece(field.bytes, &out->tokens.emplace_back());
    if (field.number == 2) return for_each_field(field.bytes, read_trainer);
    if (field.number == 3) return for_each_field(field.bytes, read_normaliser);
    return {};
  }));
  if (model_type != 1 && model_type != 2) {
    return Status::error(ErrorCode::kUnsupported,
                         "tokenizer.model: model type %" PRIu64 " is neither unigram (1) nor BPE (2)", model_type);
  }
  if (!escape_spaces || space_as_suffix) {
    return Status::error(ErrorCode::kUnsupported, "tokenizer.model: spaces are not written in front of words");
  }
  out->kind = model_type == 1 ? TokenizerKind::kUnigram : TokenizerKind::kSentencePieceBpe;
  out->use_scores = true;
  out->single_precision = true;
  out->space_prefix = prefix ? SpacePrefix::kStart : SpacePrefix::kNone;
  const auto known = [&](int32_t id) { return id >= 0 && id < static_cast<int32_t>(out->tokens.size()) ? id : -1; };
  out->unknown_id = known(unknown_id);
  out->bos_id = known(bos_id);
  out->eos_id = known(eos_id);
  return {};
}

}  // namespace lethe
