// Reads Hugging Face's tokenizer.json.
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "runtime/text/normaliser.h"
#include "tools/pack/json_file.h"
#include "tools/pack/patterns.h"
#include "tools/pack/tokenizer_files.h"

namespace lethe {
namespace {

using Json = nlohmann::json;

Status unsupported(const char* what, const std::string& name) {
  return Status::error(ErrorCode::kUnsupported, "tokenizer.json: the %s %.100s is not supported", what, name.c_str());
}

Status damaged(const char* what) { return Status::error(ErrorCode::kCorruptModel, "tokenizer.json: %s", what); }

// The member of an object, null where it is absent or the value is no object.
const Json& member(const Json& value, const char* key) {
  static const Json kNull;
  if (!value.is_object()) return kNull;
  const auto found = value.find(key);
  return found == value.end() ? kNull : *found;
}
std::string string_or(const Json& value, const char* key, const char* other) {
  const Json& found = member(value, key);
  return found.is_string() ? found.get<std::string>() : other;
}
bool bool_or(const Json& value, const char* key, bool other) {
  const Json& found = member(value, key);
  return found.is_boolean() ? found.get<bool>() : other;
}
bool is_absent(const Json& value, const char* key) {
  const Json& found = member(value, key);
  return found.is_null() || (found.is_string() && found.get_ref<const std::string&>().empty());
}

// A component or the components of a Sequence of them, in order.
std::vector<const Json*> flatten(const Json& component, const char* list) {
  std::vector<const Json*> out;
  if (string_or(component, "type", "") != "Sequence") {
    if (component.is_object()) out.push_back(&component);
    return out;
  }
  for (const Json& part : member(component, list)) out.push_back(&part);
  return out;
}

bool decode_base64(std::string_view text, std::string* out) {
  static constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  uint32_t value = 0, bits = 0;
  while (text.ends_with('=')) text.remove_suffix(1);
  for (const char digit : text) {
    const size_t found = kDigits.find(digit);
    if (found == std::string_view::npos) return false;
    value = value << 6 | static_cast<uint32_t>(found);
    bits += 6;
    if (bits >= 8) out->push_back(static_cast<char>(value >> (bits -= 8) & 0xff));
  }
  return true;
}

// A pattern that matches `text` and nothing else.
std::string literal_pattern(const std::string& text) {
  std::string out;
  for (const char byte : text) {
    if (static_cast<uint8_t>(byte) < 0x80 && std::isalnum(static_cast<unsigned char>(byte)) == 0) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\x{%x}", static_cast<unsigned>(byte));
      out += escaped;
    } else {
      out += byte;
    }
  }
  return out;
}

class JsonTokenizer {
 public:
  JsonTokenizer(const Json& json, uint32_t vocab, TokenizerSource* out)
      : json_(json), model_(member(json, "model")), vocab_(vocab), out_(*out) {}

  Status run() {
    LETHE_RETURN_IF_ERROR(read_kind());
    LETHE_RETURN_IF_ERROR(read_normaliser());
    LETHE_RETURN_IF_ERROR(read_pre_tokenizer());
    LETHE_RETURN_IF_ERROR(out_.kind == TokenizerKind::kUnigram ? read_unigram_tokens() : read_bpe_tokens());
    LETHE_RETURN_IF_ERROR(read_unknown());
    if (out_.kind != TokenizerKind::kUnigram) LETHE_RETURN_IF_ERROR(read_merges());
    LETHE_RETURN_IF_ERROR(read_added_tokens());
    return read_template();
  }

 private:
  bool byte_level() const { return out_.kind == TokenizerKind::kByteLevelBpe; }

  Status read_kind() {
    const std::string type = string_or(model_, "type", member(model_, "merges").is_array() ? "BPE" : "");
    if (type == "Unigram") {
      out_.kind = TokenizerKind::kUnigram;
      out_.use_scores = true;
    } else if (type == "BPE") {
      const auto is_byte_level = [](const Json* part) { return string_or(*part, "type", "") == "ByteLevel"; };
      const auto parts = flatten(member(json_, "pre_tokenizer"), "pretokenizers");
      const auto decoders = flatten(member(json_, "decoder"), "decoders");
      const bool any = std::any_of(parts.begin(), parts.end(), is_byte_level) ||
                       std::any_of(decoders.begin(), decoders.end(), is_byte_level);
      out_.kind = any ? TokenizerKind::kByteLevelBpe : TokenizerKind::kSentencePieceBpe;
    } else {
      return unsupported("model", type.empty() ? "without a type" : type);
    }
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix", "dropout"}) {
      if (!is_absent(model_, key)) return unsupported("option of the model", key);
    }
    out_.ignore_merges = bool_or(model_, "ignore_merges", false);
    if (out_.ignore_merges && !byte_level()) return unsupported("option of a model over characters", "ignore_merges");
    byte_fallback_ = bool_or(model_, "byte_fallback", false);
    return {};
  }

  Status read_normaliser() {
    for (const Json* part : flatten(member(json_, "normalizer"), "normalizers")) {
      const std::string type = string_or(*part, "type", "");
      const Json& pattern = member(*part, "pattern");
      const std::string content = string_or(*part, "content", "");
      if (byte_level()) {
        if (type != "NFC") return unsupported("normalizer", type);
        out_.nfc = true;
      } else if (type == "Replace" && string_or(pattern, "String", "") == " " && content == kVisibleSpace) {
        visible_spaces_ = true;
      } else if (type == "Replace" && string_or(pattern, "Regex", "") == " {2,}" &&
                 (content == kVisibleSpace || content == " ")) {
        out_.space_rule = SpaceRule::kCollapse;
      } else if (type == "Prepend" && string_or(*part, "prepend", "") == kVisibleSpace) {
        out_.space_prefix = SpacePrefix::kEvery;
      } else if (type == "Precompiled" && out_.charsmap.empty()) {
        if (!decode_base64(string_or(*part, "precompiled_charsmap", ""), &out_.charsmap)) {
          return damaged("precompiled_charsmap is not base64");
        }
      } else if (type == "Strip" && !bool_or(*part, "strip_left", false)) {
        strips_ = true;
      } else {
        return unsupported("normalizer", type == "Replace" || type == "Prepend" ? part->dump() : type);
      }
    }
    // Strip on the right only: a space on the left counts as the prefix that Metaspace would put there.
    if (strips_ && out_.space_rule != SpaceRule::kCollapse) return unsupported("normalizer", "Strip alone");
    if (strips_) out_.space_rule = SpaceRule::kTrim;
    return {};
  }

  Status read_pre_tokenizer() {
    for (const Json* part : flatten(member(json_, "pre_tokenizer"), "pretokenizers")) {
      LETHE_RETURN_IF_ERROR(byte_level() ? read_splitter(*part) : read_spaces(*part));
    }
    if (!byte_level() && !visible_spaces_)
      return unsupported("model", "over characters that leaves spaces as they are");
    return {};
  }

  Status read_splitter(const Json& part) {
    const std::string type = string_or(part, "type", "");
    const std::string behavior = string_or(part, "behavior", "Isolated");
    if (type == "ByteLevel") {
      if (bool_or(part, "add_prefix_space", true))
        return unsupported("pre_tokenizer", "ByteLevel with add_prefix_space");
      if (bool_or(part, "use_regex", true)) out_.patterns.push_back(gpt2_pattern());
    } else if (type == "Digits") {
      out_.patterns.push_back(digits_pattern(bool_or(part, "individual_digits", false)));
    } else if (type == "Punctuation" && (behavior == "Isolated" || behavior == "Contiguous")) {
      out_.patterns.push_back(std::string(R"([!-/:-@\[-`{-~\p{P}])") + (behavior == "Isolated" ? "" : "+"));
    } else if (type == "Split") {
      const std::string regex = string_or(member(part, "pattern"), "Regex", "");
      const std::string text = string_or(member(part, "pattern"), "String", "");
      const bool invert = bool_or(part, "invert", false);
      // Inverted and removed: what the pattern leaves over is dropped. Nothing is when it ends in \s+, as the patterns
      // do that are used so.
      const bool isolates =
          (behavior == "Isolated" && !invert) || (behavior == "Removed" && invert && regex.ends_with("\\s+"));
      if (!isolates || (regex.empty() && text.empty())) return unsupported("pre_tokenizer", part.dump());
      std::string pattern = literal_pattern(text);
      if (!regex.empty()) LETHE_RETURN_IF_ERROR(translate_pattern(regex, &pattern));
      out_.patterns.push_back(pattern);
    } else {
      return unsupported("pre_tokenizer", type);
    }
    return {};
  }

  Status read_spaces(const Json& part) {
    const std::string type = string_or(part, "type", "");
    if (type == "Metaspace" && string_or(part, "replacement", "") == kVisibleSpace) {
      const char* legacy = bool_or(part, "add_prefix_space", true) ? "always" : "never";
      const std::string scheme = string_or(part, "prepend_scheme", legacy);
      if (scheme == "always") out_.space_prefix = SpacePrefix::kEvery;
      if (scheme == "first") out_.space_prefix = SpacePrefix::kFirst;
      out_.prefix_unless_space = true;
      visible_spaces_ = true;
      splits_words_ = bool_or(part, "split", true);
    } else if (type == "WhitespaceSplit") {
      out_.space_rule = SpaceRule::kTrim;
    } else if (type != "Split" || !visible_spaces_ || string_or(member(part, "pattern"), "String", "") != " ") {
      return unsupported("pre_tokenizer", type);  // but a Split at spaces, of which none is left
    }
    return {};
  }

  Status set_token(uint64_t id, const std::string& text, float score) {
    if (id >= vocab_) {
      return Status::error(ErrorCode::kCorruptModel, "tokenizer.json: id %llu of %u tokens",
                           static_cast<unsigned long long>(id), vocab_);
    }
    if (id >= out_.tokens.size()) out_.tokens.resize(static_cast<size_t>(id) + 1);
    SourceToken& token = out_.tokens[static_cast<size_t>(id)];
    token.kind = TokenKind::kNormal;
    token.score = score;
    if (byte_level()) {
      // What is outside the alphabet cannot come from text, unless read_added_tokens finds it there.
      if (decode_gpt2_bytes(text, &token.text)) return {};
      token.kind = TokenKind::kUnused;
      token.text = text;
      return {};
    }
    token.text = decode_visible_spaces(text);
    if (const int32_t byte = byte_of_token(text); byte_fallback_ && byte >= 0) {
      token.kind = TokenKind::kByte;
      token.text.assign(1, static_cast<char>(byte));
    }
    token.reachable = is_reachable(text, token.text);
    return {};
  }

  Status read_bpe_tokens() {
    const Json& vocab = member(model_, "vocab");
    if (!vocab.is_object()) return damaged("model.vocab is not an object");
    for (const auto& [text, id] : vocab.items()) {
      if (!id.is_number_unsigned()) return damaged("an id in model.vocab is not a number");
      LETHE_RETURN_IF_ERROR(set_token(id.get<uint64_t>(), text, 0));
    }
    return {};
  }

  Status read_unigram_tokens() {
    const Json& vocab = member(model_, "vocab");
    if (!vocab.is_array()) return damaged("model.vocab is not an array");
    for (size_t id = 0; id < vocab.size(); ++id) {
      const Json& entry = vocab[id];
      if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number()) {
        return damaged("an entry of model.vocab is not a text with a score");
      }
      LETHE_RETURN_IF_ERROR(set_token(id, entry[0].get<std::string>(), entry[1].get<float>()));
    }
    return {};
  }

  Status read_unknown() {
    if (const Json& id = member(model_, "unk_id"); id.is_number_unsigned() && id.get<uint64_t>() < out_.tokens.size()) {
      out_.unknown_id = static_cast<int32_t>(id.get<uint64_t>());
    }
    const Json& text = member(model_, "unk_token");
    if (text.is_string()) {
      const Json& id = member(member(model_, "vocab"), text.get_ref<const std::string&>().c_str());
      if (id.is_number_unsigned()) out_.unknown_id = static_cast<int32_t>(id.get<uint64_t>());
    }
    if (byte_level() || out_.unknown_id < 0) return {};
    if (!out_.use_scores && !byte_fallback_ && !bool_or(model_, "fuse_unk", false)) {
      return unsupported("option of the model", "unk_token without fuse_unk");
    }
    out_.tokens[static_cast<size_t>(out_.unknown_id)].kind = TokenKind::kControl;
    return {};
  }

  // "a b" or ["a", "b"].
  Status read_merges() {
    const auto ids = ids_by_text(out_);
    const auto text_of = [this](const std::string& written, std::string* text) {
      if (byte_level()) return decode_gpt2_bytes(written, text);
      *text = decode_visible_spaces(written);
      return true;
    };
    size_t rank = 0;
    for (const Json& merge : member(model_, "merges")) {
      std::string left, right;
      bool good = false, reachable = true;
      if (merge.is_string()) {
        const std::string& both = merge.get_ref<const std::string&>();
        const size_t space = both.find(' ', 1);
        good = space != std::string::npos && text_of(both.substr(0, space), &left) &&
               text_of(both.substr(space + 1), &right);
        reachable = is_reachable("", left + right);
      } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
        const std::string& first = merge[0].get_ref<const std::string&>();
        const std::string& second = merge[1].get_ref<const std::string&>();
        good = text_of(first, &left) && text_of(second, &right);
        reachable = is_reachable(first + second, left + right);
      }
      if (!good || (reachable && !add_merge(ids, left, right, &out_))) {
        return Status::error(ErrorCode::kCorruptModel, "tokenizer.json: merge %zu (%.64s) is not made of tokens", rank,
                             merge.dump(-1, ' ', false, Json::error_handler_t::replace).c_str());
      }
      ++rank;
    }
    return {};
  }

  // Normalised text has no other spaces than those that are written visibly; and where it is split before them, none
  // lies further inside.
  bool is_reachable(const std::string& written, const std::string& text) const {
    return byte_level() ||
           (written.find(' ') == std::string::npos && (!splits_words_ || text.find(' ', 1) == std::string::npos));
  }

  Status read_added_tokens() {
    for (const Json& added : member(json_, "added_tokens")) {
      const Json& id = member(added, "id");
      const std::string content = string_or(added, "content", "");
      if (!id.is_number_unsigned() || id.get<uint64_t>() >= vocab_ || content.empty()) {
        return damaged("an entry of added_tokens has no content or no id of the vocabulary");
      }
      if (bool_or(added, "single_word", false)) return unsupported("option of an added token", "single_word");
      if (id.get<size_t>() >= out_.tokens.size()) out_.tokens.resize(id.get<size_t>() + 1);
      SourceToken& token = out_.tokens[id.get<size_t>()];
      token.text = byte_level() ? content : decode_visible_spaces(content);
      token.kind = bool_or(added, "special", false) ? TokenKind::kControl : TokenKind::kUserDefined;
      token.strip_left = bool_or(added, "lstrip", false);
      token.strip_right = bool_or(added, "rstrip", false);
    }
    return {};
  }

  // A template that begins with a special token names the model's beginning of text.
  Status read_template() {
    for (const Json* part : flatten(member(json_, "post_processor"), "processors")) {
      const Json& single = member(*part, "single");
      if (string_or(*part, "type", "") != "TemplateProcessing" || !single.is_array() || single.empty()) continue;
      const std::string name = string_or(member(single[0], "SpecialToken"), "id", "");
      if (name.empty()) continue;
      const Json& ids = member(member(member(*part, "special_tokens"), name.c_str()), "ids");
      if (!ids.is_array() || ids.size() != 1 || !ids[0].is_number_unsigned() ||
          ids[0].get<uint64_t>() >= out_.tokens.size()) {
        return damaged("the post_processor's first token is not one of the tokens");
      }
      out_.bos_id = static_cast<int32_t>(ids[0].get<uint64_t>());
      out_.add_bos = true;
    }
    return {};
  }

  const Json& json_;
  const Json& model_;
  const uint32_t vocab_;
  TokenizerSource& out_;
  bool byte_fallback_ = false;
  bool visible_spaces_ = false;  // spaces become U+2581
  bool splits_words_ = false;    // before every space
  bool strips_ = false;
};

}  // namespace

Status read_tokenizer_json(std::string_view bytes, uint32_t vocab, TokenizerSource* out) {
  *out = {};
  try {
    Json json;
    const Status parsed = parse_json_object({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, &json);
    if (!parsed.ok()) return Status::error(parsed.code(), "tokenizer.json: %s", parsed.message());
    return JsonTokenizer(json, vocab, out).run();
  } catch (const Json::exception& error) {
    return Status::error(ErrorCode::kCorruptModel, "tokenizer.json: %.150s", error.what());
  }
}

}  // namespace lethe
