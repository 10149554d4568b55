#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "runtime/os/file.h"
#include "tools/pack/json_file.h"
#include "tools/pack/tokenizer.h"
#include "tools/pack/tokenizer_files.h"
#include "tools/pack/tokenizer_source.h"

namespace lethe {
namespace {

using Json = nlohmann::json;

class FolderTokenizer {
 public:
  FolderTokenizer(const std::string& folder, TokenizerSource* out) : folder_(folder), out_(*out) {}

  Status run(uint32_t vocab) {
    LETHE_RETURN_IF_ERROR(read_model(vocab));
    LETHE_RETURN_IF_ERROR(read_json("tokenizer_config.json", &config_));
    LETHE_RETURN_IF_ERROR(read_json("special_tokens_map.json", &special_map_));
    if (!has_json_) LETHE_RETURN_IF_ERROR(read_added_tokens());
    if (out_.tokens.size() > vocab) {
      return Status::error(ErrorCode::kCorruptModel, "%.150s: the tokenizer has %zu tokens, the embedding %u rows",
                           folder_.c_str(), out_.tokens.size(), vocab);
    }
    out_.tokens.resize(vocab);
    read_special_ids();
    LETHE_RETURN_IF_ERROR(read_end_ids());
    return read_chat_template();
  }

 private:
  // The bytes of a file of the folder; nullopt when there is none.
  Status read_file(const char* name, std::optional<std::string>* out) const {
    const std::filesystem::path path = std::filesystem::path(folder_) / name;
    std::error_code ignored;
    if (!std::filesystem::exists(path, ignored)) return {};
    Result<os::FileMap> map = os::FileMap::open(path.c_str());
    if (!map.ok()) return map.status();
    out->emplace(reinterpret_cast<const char*>(map.value().data()), static_cast<size_t>(map.value().size()));
    return {};
  }

  // An absent file is an empty object.
  Status read_json(const char* name, Json* out) const {
    std::optional<std::string> bytes;
    LETHE_RETURN_IF_ERROR(read_file(name, &bytes));
    *out = Json::object();
    if (!bytes.has_value()) return {};
    const Status parsed = parse_json_object({reinterpret_cast<const uint8_t*>(bytes->data()), bytes->size()}, out);
    return parsed.ok() ? parsed : Status::error(parsed.code(), "%s: %s", name, parsed.message());
  }

  Status read_model(uint32_t vocab) {
    std::optional<std::string> bytes;
    LETHE_RETURN_IF_ERROR(read_file("tokenizer.json", &bytes));
    has_json_ = bytes.has_value();
    if (has_json_) return read_tokenizer_json(*bytes, vocab, &out_);
    LETHE_RETURN_IF_ERROR(read_file("tokenizer.model", &bytes));
    if (bytes.has_value()) return read_sentencepiece_model(*bytes, &out_);
    return Status::error(ErrorCode::kIo, "%.150s has neither tokenizer.json nor tokenizer.model", folder_.c_str());
  }

  void add_token(uint64_t id, const std::string& text, bool special) {
    if (text.empty() || id >= kMaxVocab) return;
    if (id >= out_.tokens.size()) out_.tokens.resize(static_cast<size_t>(id) + 1);
    SourceToken& token = out_.tokens[static_cast<size_t>(id)];
    if (token.kind == TokenKind::kNormal && token.text != text) return;  // not what the model says
    token.text = text;
    token.kind = special ? TokenKind::kControl : TokenKind::kUserDefined;
  }

  // What a tokenizer.model does not hold itself.
  Status read_added_tokens() {
    Json added;
    LETHE_RETURN_IF_ERROR(read_json("added_tokens.json", &added));
    for (const auto& [text, id] : added.items()) {
      if (id.is_number_unsigned()) add_token(id.get<uint64_t>(), text, true);
    }
    const Json decoder = config_.value("added_tokens_decoder", Json::object());
    for (const auto& [key, token] : decoder.items()) {
      if (key.empty() || key.size() > 9 || key.find_first_not_of("0123456789") != std::string::npos) continue;
      add_token(std::stoull(key), token.value("content", ""), token.value("special", false));
    }
    out_.add_bos = out_.bos_id >= 0 && out_.kind == TokenizerKind::kSentencePieceBpe;
    return {};
  }

  // The id of the special token that the folder's files call `name` ("bos_token"); `other` when they do not.
  int32_t special_id(const char* name, int32_t other) const {
    for (const Json* file : {&config_, &special_map_}) {
      const auto found = file->find(name);
      if (found == file->end() || found->is_null()) continue;
      const std::string text = found->is_string() ? found->get<std::string>() : found->value("content", "");
      const auto token = std::find_if(out_.tokens.begin(), out_.tokens.end(), [&](const SourceToken& t) {
        return t.text == text && t.kind == TokenKind::kControl;
      });
      if (!text.empty() && token != out_.tokens.end()) return static_cast<int32_t>(token - out_.tokens.begin());
    }
    return other;
  }

  void read_special_ids() {
    out_.bos_id = special_id("bos_token", out_.bos_id);
    out_.eos_id = special_id("eos_token", out_.eos_id);
    if (const auto add = config_.find("add_bos_token"); add != config_.end() && add->is_boolean()) {
      out_.add_bos = add->get<bool>();
    }
    out_.add_bos = out_.add_bos && out_.bos_id >= 0;
  }

  // Of generation_config.json, else of config.json: one id or a list.
  Status read_end_ids() {
    for (const char* name : {"generation_config.json", "config.json"}) {
      Json config;
      LETHE_RETURN_IF_ERROR(read_json(name, &config));
      const auto found = config.find("eos_token_id");
      if (found == config.end() || found->is_null()) continue;
      for (const Json& id : found->is_array() ? *found : Json::array({*found})) {
        if (!id.is_number_unsigned() || id.get<uint64_t>() >= out_.tokens.size()) {
          return Status::error(ErrorCode::kCorruptModel, "%s: eos_token_id is not one of %zu tokens", name,
                               out_.tokens.size());
        }
        out_.end_ids.push_back(static_cast<int32_t>(id.get<uint64_t>()));
      }
      if (out_.eos_id < 0 && !out_.end_ids.empty()) out_.eos_id = out_.end_ids[0];
      return {};
    }
    return {};
  }

  // A file of its own, or a text, or one of several texts.
  Status read_chat_template() {
    std::optional<std::string> file;
    LETHE_RETURN_IF_ERROR(read_file("chat_template.jinja", &file));
    if (file.has_value()) {
      out_.chat_template = *file;
      return {};
    }
    const auto found = config_.find("chat_template");
    if (found == config_.end()) return {};
    if (found->is_string()) out_.chat_template = found->get<std::string>();
    if (!found->is_array()) return {};
    for (const Json& entry : *found) {
      if (entry.value("name", "") == "default") out_.chat_template = entry.value("template", "");
    }
    return {};
  }

  const std::string& folder_;
  TokenizerSource& out_;
  bool has_json_ = false;
  Json config_, special_map_;
};

}  // namespace

Status pack_hf_tokenizer(const std::string& folder, uint32_t vocab, PackedTokenizer* out) {
  TokenizerSource source;
  try {
    LETHE_RETURN_IF_ERROR(FolderTokenizer(folder, &source).run(vocab));
  } catch (const Json::exception& error) {
    return Status::error(ErrorCode::kCorruptModel, "%.100s: %.100s", folder.c_str(), error.what());
  }
  return build_tokenizer(source, out);
}

}  // namespace lethe
