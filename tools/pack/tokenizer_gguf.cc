#include <algorithm>
#include <cinttypes>
#include <optional>

#include "tools/pack/patterns.h"
#include "tools/pack/tokenizer.h"
#include "tools/pack/tokenizer_source.h"

namespace lethe {
namespace {

Status missing(const char* key) { return Status::error(ErrorCode::kCorruptModel, "GGUF: %s is missing", key); }

// What llama.cpp takes where a file of this tokenizer.ggml.model says nothing (llama_vocab::impl::load).
struct ModelKind {
  std::string_view name;
  TokenizerKind kind;
  bool scores;
  int32_t bos_id, eos_id, unknown_id;
  bool add_bos, space_prefix;
};
constexpr ModelKind kModelKinds[] = {
    {"gpt2", TokenizerKind::kByteLevelBpe, false, -1, -1, -1, false, false},
    {"llama", TokenizerKind::kSentencePieceBpe, true, 1, 2, 0, true, true},
    {"gemma4", TokenizerKind::kSentencePieceBpe, false, -1, -1, -1, false, false},
    {"t5", TokenizerKind::kUnigram, true, -1, 1, 2, false, true},
};

class GgufTokenizer {
 public:
  GgufTokenizer(const GgufFile& file, TokenizerSource* out) : file_(file), out_(*out) {}

  Status run() {
    LETHE_RETURN_IF_ERROR(read_kind());
    LETHE_RETURN_IF_ERROR(read_tokens());
    if (!out_.use_scores) LETHE_RETURN_IF_ERROR(read_merges());
    LETHE_RETURN_IF_ERROR(read_charsmap());
    return read_special_ids();
  }

 private:
  bool byte_level() const { return out_.kind == TokenizerKind::kByteLevelBpe; }

  Status read_kind() {
    std::optional<std::string_view> model, pre;
    LETHE_RETURN_IF_ERROR(file_.read_string("tokenizer.ggml.model", &model));
    LETHE_RETURN_IF_ERROR(file_.read_string("tokenizer.ggml.pre", &pre));
    if (!model.has_value()) return missing("tokenizer.ggml.model");
    const auto* kind = std::find_if(std::begin(kModelKinds), std::end(kModelKinds),
                                    [&](const ModelKind& k) { return k.name == *model; });
    if (kind == std::end(kModelKinds)) {
      return Status::error(ErrorCode::kUnsupported, "tokenizer %.*s is unknown",
                           static_cast<int>(std::min<size_t>(model->size(), 64)), model->data());
    }
    model_ = *kind;
    out_.kind = model_.kind;
    out_.use_scores = model_.scores;
    out_.single_precision = model_.scores;
    if (!byte_level()) return {};
    if (!pre.has_value()) return missing("tokenizer.ggml.pre");
    PreTokenizer pre_tokenizer;
    LETHE_RETURN_IF_ERROR(find_pre_tokenizer(*pre, &pre_tokenizer));
    out_.patterns = std::move(pre_tokenizer.patterns);
    out_.ignore_merges = pre_tokenizer.ignore_merges;
    out_.nfc = pre_tokenizer.nfc;
    model_.add_bos = pre_tokenizer.add_bos;
    return {};
  }

  Status read_tokens() {
    std::optional<std::vector<std::string_view>> texts;
    std::optional<std::vector<uint64_t>> types;
    std::optional<std::vector<float>> scores;
    LETHE_RETURN_IF_ERROR(file_.read_strings("tokenizer.ggml.tokens", &texts));
    LETHE_RETURN_IF_ERROR(file_.read_uints("tokenizer.ggml.token_type", &types));
    if (out_.use_scores) LETHE_RETURN_IF_ERROR(file_.read_floats("tokenizer.ggml.scores", &scores));
    if (!texts.has_value()) return missing("tokenizer.ggml.tokens");
    if (!types.has_value()) return missing("tokenizer.ggml.token_type");
    if (out_.use_scores && !scores.has_value()) return missing("tokenizer.ggml.scores");
    if (texts->size() != types->size() || (scores.has_value() && texts->size() != scores->size())) {
      return Status::error(ErrorCode::kCorruptModel, "GGUF: %zu tokens with %zu types and %zu scores", texts->size(),
                           types->size(), scores.has_value() ? scores->size() : 0);
    }
    out_.tokens.resize(texts->size());
    for (uint32_t id = 0; id < out_.tokens.size(); ++id) {
      SourceToken& token = out_.tokens[id];
      const std::string_view text = (*texts)[id];
      if (scores.has_value()) token.score = (*scores)[id];
      LETHE_RETURN_IF_ERROR(set_token(id, text, (*types)[id]));
    }
    return {};
  }

  // Normal tokens of byte-level BPE are written in GPT-2's alphabet; the others as they are.
  Status set_token(uint32_t id, std::string_view text, uint64_t type) {
    SourceToken& token = out_.tokens[id];
    const int32_t byte = byte_of_token(text);
    switch (type) {
      case 1: token.kind = TokenKind::kNormal; break;
      case 2:  // unknown: a special token as well
      case 3: token.kind = TokenKind::kControl; break;
      case 4: token.kind = TokenKind::kUserDefined; break;
      case 5: token.kind = TokenKind::kUnused; break;
      case 6: token.kind = TokenKind::kByte; break;
      default: return Status::error(ErrorCode::kUnsupported, "GGUF: token %u has type %" PRIu64, id, type);
    }
    if (byte_level()) {
      if (token.kind == TokenKind::kByte) {
        return Status::error(ErrorCode::kUnsupported, "GGUF: token %u of a byte-level vocabulary has type 6", id);
      }
      // A normal token outside the alphabet cannot come from text (Command R has 1,403).
      if (token.kind == TokenKind::kNormal && !decode_gpt2_bytes(text, &token.text)) token.kind = TokenKind::kUnused;
      if (token.kind != TokenKind::kNormal) token.text = text;
      return {};
    }
    if (token.kind == TokenKind::kByte && byte < 0) {
      return Status::error(ErrorCode::kCorruptModel, "GGUF: token %u, of a byte, is not written like <0x0A>", id);
    }
    token.text = token.kind == TokenKind::kByte ? std::string(1, static_cast<char>(byte)) : decode_visible_spaces(text);
    return {};
  }

  Status read_merges() {
    std::optional<std::vector<std::string_view>> merges;
    LETHE_RETURN_IF_ERROR(file_.read_strings("tokenizer.ggml.merges", &merges));
    if (!merges.has_value()) return missing("tokenizer.ggml.merges");
    const auto ids = ids_by_text(out_);
    for (size_t rank = 0; rank < merges->size(); ++rank) {
      const std::string_view merge = (*merges)[rank];
      const size_t space = merge.find(' ', 1);
      std::string left, right;
      bool good = space != std::string_view::npos;
      if (good && byte_level()) {
        good = decode_gpt2_bytes(merge.substr(0, space), &left) && decode_gpt2_bytes(merge.substr(space + 1), &right);
      } else if (good) {
        left = decode_visible_spaces(merge.substr(0, space));
        right = decode_visible_spaces(merge.substr(space + 1));
      }
      if (!good || !add_merge(ids, left, right, &out_)) {
        return Status::error(ErrorCode::kCorruptModel, "GGUF: merge %zu (%.*s) is not made of tokens", rank,
                             static_cast<int>(std::min<size_t>(merge.size(), 64)), merge.data());
      }
    }
    return {};
  }

  Status read_charsmap() {
    if (byte_level()) return {};
    std::optional<std::vector<uint64_t>> bytes;
    std::optional<bool> prefix, remove_extra;
    LETHE_RETURN_IF_ERROR(file_.read_uints("tokenizer.ggml.precompiled_charsmap", &bytes));
    LETHE_RETURN_IF_ERROR(file_.read_bool("tokenizer.ggml.add_space_prefix", &prefix));
    LETHE_RETURN_IF_ERROR(file_.read_bool("tokenizer.ggml.remove_extra_whitespaces", &remove_extra));
    if (bytes.has_value()) {
      for (const uint64_t byte : *bytes) out_.charsmap.push_back(static_cast<char>(byte));
    }
    out_.space_prefix = prefix.value_or(model_.space_prefix) ? SpacePrefix::kEvery : SpacePrefix::kNone;
    out_.space_rule = remove_extra.value_or(false) ? SpaceRule::kTrim : SpaceRule::kKeep;
    return {};
  }

  Status read_id(const char* key, int32_t* out) {
    std::optional<uint64_t> id;
    LETHE_RETURN_IF_ERROR(file_.read_uint(key, &id));
    if (!id.has_value()) return {};
    if (*id >= out_.tokens.size()) {
      return Status::error(ErrorCode::kCorruptModel, "GGUF: %s is %" PRIu64 " of %zu tokens", key, *id,
                           out_.tokens.size());
    }
    *out = static_cast<int32_t>(*id);
    return {};
  }

  Status read_special_ids() {
    const auto known = [&](int32_t id) { return id < static_cast<int32_t>(out_.tokens.size()) ? id : -1; };
    out_.bos_id = known(model_.bos_id);
    out_.eos_id = known(model_.eos_id);
    out_.unknown_id = known(model_.unknown_id);
    int32_t end_of_turn = -1, end_of_message = -1;
    LETHE_RETURN_IF_ERROR(read_id("tokenizer.ggml.bos_token_id", &out_.bos_id));
    LETHE_RETURN_IF_ERROR(read_id("tokenizer.ggml.eos_token_id", &out_.eos_id));
    LETHE_RETURN_IF_ERROR(read_id("tokenizer.ggml.unknown_token_id", &out_.unknown_id));
    LETHE_RETURN_IF_ERROR(read_id("tokenizer.ggml.eot_token_id", &end_of_turn));
    LETHE_RETURN_IF_ERROR(read_id("tokenizer.ggml.eom_token_id", &end_of_message));
    for (const int32_t id : {end_of_turn, end_of_message}) {
      if (id >= 0) out_.end_ids.push_back(id);
    }
    std::optional<bool> add_bos;
    std::optional<std::string_view> chat_template;
    LETHE_RETURN_IF_ERROR(file_.read_bool("tokenizer.ggml.add_bos_token", &add_bos));
    LETHE_RETURN_IF_ERROR(file_.read_string("tokenizer.chat_template", &chat_template));
    out_.add_bos = add_bos.value_or(model_.add_bos && out_.bos_id >= 0);
    out_.chat_template = chat_template.value_or("");
    return {};
  }

  const GgufFile& file_;
  TokenizerSource& out_;
  ModelKind model_{};
};

}  // namespace

Status pack_gguf_tokenizer(const GgufFile& file, PackedTokenizer* out) {
  TokenizerSource source;
  LETHE_RETURN_IF_ERROR(GgufTokenizer(file, &source).run());
  return build_tokenizer(source, out);
}

}  // namespace lethe
