// Models in Hugging Face folders: config.json, safetensors in one file or several, and the files of the tokenizer.
#include <algorithm>
#include <deque>
#include <filesystem>
#include <map>

#include "runtime/model/roles.h"
#include "tools/pack/hf_config.h"
#include "tools/pack/json_file.h"
#include "tools/pack/model_source.h"
#include "tools/pack/safetensors.h"
#include "tools/pack/tokenizer.h"

namespace lethe {
namespace {

using Json = nlohmann::json;

constexpr const char* kWeights = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";
// What the tokenizer's reader may look at: part of the checksum, in this order.
constexpr const char* kTokenizerFiles[] = {"tokenizer.json",        "tokenizer.model",         "tokenizer_config.json",
                                           "added_tokens.json",     "special_tokens_map.json", "chat_template.jinja",
                                           "generation_config.json"};

// Parts of a checkpoint that are no part of the text model: buffers that are computed, and what sees.
bool is_ignored(std::string_view name) {
  for (const std::string_view end : {"rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias"}) {
    if (name.ends_with(end)) return true;
  }
  if (name.starts_with("model.")) name.remove_prefix(6);
  return name.starts_with("vision_tower.") || name.starts_with("multi_modal_projector.");
}

class HfReader : public ModelReader {
 public:
  explicit HfReader(const std::string& folder) : folder_(folder) {}

  Status describe(ModelDescription* description, ModelSource* out) override {
    Hash64 hash;
    std::span<const uint8_t> bytes;
    const std::string path = path_of("config.json");
    LETHE_RETURN_IF_ERROR(map_source(path, &hash, out, &bytes));
    LETHE_RETURN_IF_ERROR(in_file(parse_json_object(bytes, &config_), path));
    LETHE_RETURN_IF_ERROR(in_file(read_hf_config(config_, description), path));
    LETHE_RETURN_IF_ERROR(pack_hf_tokenizer(folder_, description->config.vocab, &out->tokenizer));
    for (const char* name : kTokenizerFiles) {
      if (!std::filesystem::exists(path_of(name))) continue;
      LETHE_RETURN_IF_ERROR(map_source(path_of(name), &hash, out, &bytes));
    }
    LETHE_RETURN_IF_ERROR(open_weights(&hash, out));
    out->checksum = hash.digest();
    return {};
  }

  Status place_tensors(const ModelDescription& description, ModelSource* out) override {
    const bool tied = tied_embeddings(config_).value_or(false);
    for (const Shard& shard : shards_) {
      for (const SafetensorsFile::Entry& entry : shard.file.entries()) {
        if (is_ignored(entry.tensor.name)) continue;
        LETHE_RETURN_IF_ERROR(in_file(place(*description.architecture, entry, shard.name, tied, out), shard.name));
      }
    }
    const bool has_output =
        out->weights[static_cast<size_t>(role_slot(Role::kOutput, 0, out->config.layers))].present();
    if (tied_embeddings(config_) == false && !has_output) {
      return Status::error(ErrorCode::kCorruptModel,
                           "config.json: tie_word_embeddings is false, but there is no tensor lm_head.weight");
    }
    return {};
  }

 private:
  struct Shard {
    std::string name;
    SafetensorsFile file;
  };

  std::string path_of(const std::string& name) const { return (std::filesystem::path(folder_) / name).string(); }

  Status open_weights(Hash64* hash, ModelSource* out) {
    if (std::filesystem::exists(path_of(kIndex))) return open_shards(hash, out);
    if (std::filesystem::exists(path_of(kWeights))) return open_shard(kWeights, hash, out);
    return Status::error(ErrorCode::kNotAModel, "the folder %.100s has neither %s nor %s", out->name.c_str(), kWeights,
                         kIndex);
  }

  // The files that the index names, each of which must hold what the index says.
  Status open_shards(Hash64* hash, ModelSource* out) {
    std::span<const uint8_t> bytes;
    LETHE_RETURN_IF_ERROR(map_source(path_of(kIndex), hash, out, &bytes));
    Json index;
    LETHE_RETURN_IF_ERROR(in_file(parse_json_object(bytes, &index), kIndex));
    const auto map = index.find("weight_map");
    if (map == index.end() || !map->is_object()) {
      return Status::error(ErrorCode::kCorruptModel, "%s: weight_map is missing", kIndex);
    }
    std::map<std::string, std::vector<std::string>> tensors;  // by file
    for (const auto& [tensor, file] : map->items()) {
      const std::string name = file.is_string() ? file.get<std::string>() : "";
      if (name.empty() || name.find_first_of("/\\") != std::string::npos || name[0] == '.') {
        return Status::error(ErrorCode::kCorruptModel, "%s: tensor %.100s has no file of this folder", kIndex,
                             tensor.c_str());
      }
      tensors[name].push_back(tensor);
    }
    for (const auto& [name, expected] : tensors) {
      LETHE_RETURN_IF_ERROR(open_shard(name, hash, out));
      for (const std::string& tensor : expected) {
        if (shards_.back().file.find(tensor) != nullptr) continue;
        return Status::error(ErrorCode::kCorruptModel, "%.60s: tensor %.100s is missing, %s places it here",
                             name.c_str(), tensor.c_str(), kIndex);
      }
    }
    return {};
  }

  Status open_shard(const std::string& name, Hash64* hash, ModelSource* out) {
    std::span<const uint8_t> bytes;
    LETHE_RETURN_IF_ERROR(map_source(path_of(name), hash, out, &bytes));
    Shard& shard = shards_.emplace_back();
    shard.name = name;
    return in_file(shard.file.parse(bytes), name);
  }

  static Status place(const Architecture& architecture, const SafetensorsFile::Entry& entry, const std::string& file,
                      bool tied, ModelSource* out) {
    const SourceTensor& tensor = entry.tensor;
    TensorPlace place;
    if (!find_hf_tensor(architecture, tensor.name, &place)) {
      return Status::error(ErrorCode::kUnsupported, "tensor %.100s has no place in a %s model of %u layers",
                           tensor.name.c_str(), architecture.name, out->config.layers);
    }
    if (tied && place.name->roles[0] == Role::kOutput) return {};  // a copy of the embedding
    if (!entry.supported) {
      return Status::error(ErrorCode::kUnsupported, "tensor %.100s has type %.20s; supported: F32, F16, BF16",
                           tensor.name.c_str(), entry.dtype.c_str());
    }
    return place_tensor(tensor, file, place, false, architecture.hf_norm_offset, out);
  }

  std::string folder_;
  Json config_;
  std::deque<Shard> shards_;
};

}  // namespace

std::unique_ptr<ModelReader> make_hf_reader(const std::string& folder) { return std::make_unique<HfReader>(folder); }

}  // namespace lethe
