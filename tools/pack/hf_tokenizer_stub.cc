#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tools/pack/hf_tokenizer.h"
namespace lethe {
Status pack_hf_tokenizer(const std::string& folder, uint32_t vocab, PackedTokenizer* out) {
  std::ifstream file(folder + "/tokenizer.json");
  if (!file) return Status::error(ErrorCode::kIo, "tokenizer.json is missing");
  nlohmann::json json = nlohmann::json::parse(file, nullptr, false);
  if (!json.is_object())
    return Status::error(ErrorCode::kCorruptModel, "tokenizer.json: the file is not a JSON object");
  std::vector<std::string> tokens(vocab), merges;
  std::vector<int32_t> kinds(vocab, 5);
  for (uint32_t i = 0; i < vocab; ++i) tokens[i] = "[PAD" + std::to_string(i) + "]";
  for (auto& [text, id] : json["model"]["vocab"].items()) {
    if (id >= vocab)
      return Status::error(ErrorCode::kCorruptModel, "tokenizer.json: id %d of %u", id.get<int>(), vocab);
    tokens[id] = text, kinds[id] = 1;
  }
  for (auto& t : json["added_tokens"]) {
    if (t["id"] >= vocab)
      return Status::error(ErrorCode::kCorruptModel, "tokenizer.json: id %d of %u", t["id"].get<int>(), vocab);
    tokens[t["id"]] = t["content"], kinds[t["id"]] = 3;
  }
  for (auto& m : json["model"]["merges"]) merges.push_back(m[0].get<std::string>() + " " + m[1].get<std::string>());
  static thread_local std::string bytes;
  bytes = "GGUF";
  const auto put = [&](auto v) { bytes.append(reinterpret_cast<const char*>(&v), sizeof v); };
  const auto text = [&](const std::string& s) {
    put(uint64_t{s.size()});
    bytes += s;
  };
  const auto strings = [&](const char* key, const std::vector<std::string>& v) {
    text(key);
    put(uint32_t{9});
    put(uint32_t{8});
    put(uint64_t{v.size()});
    for (auto& s : v) text(s);
  };
  put(uint32_t{3});
  put(uint64_t{0});
  put(uint64_t{7});
  text("tokenizer.ggml.model");
  put(uint32_t{8});
  text("gpt2");
  text("tokenizer.ggml.pre");
  put(uint32_t{8});
  text("gpt-2");
  strings("tokenizer.ggml.tokens", tokens);
  strings("tokenizer.ggml.merges", merges);
  text("tokenizer.ggml.token_type");
  put(uint32_t{9});
  put(uint32_t{5});
  put(uint64_t{vocab});
  for (auto k : kinds) put(k);
  text("tokenizer.ggml.bos_token_id");
  put(uint32_t{4});
  put(uint32_t{vocab > 256 ? 256u : 0u});
  text("tokenizer.ggml.eos_token_id");
  put(uint32_t{4});
  put(uint32_t{vocab > 257 ? 257u : 3u});
  GgufFile gguf;
  LETHE_RETURN_IF_ERROR(gguf.parse({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}));
  return pack_gguf_tokenizer(gguf, out);
}
}  // namespace lethe
