// Models in GGUF files, as llama.cpp writes and reads them (src/llama-model.cpp, gguf-py/gguf/constants.py).
#include <algorithm>
#include <cmath>

#include "tools/pack/gguf.h"
#include "tools/pack/model_source.h"

namespace lethe {
namespace {

Status missing(const std::string& key) {
  return Status::error(ErrorCode::kCorruptModel, "GGUF: %s is missing", key.c_str());
}

// The keys of one architecture: "llama.block_count" is read as "block_count".
class Keys {
 public:
  Keys(const GgufFile& file, const std::string& prefix) : file_(file), prefix_(prefix + ".") {}

  // A dimension: any integer that fits 32 bits; check_config judges its size.
  Status read_dim(const char* key, std::optional<uint32_t> fallback, uint32_t* out) const {
    const std::string name = prefix_ + key;
    std::optional<uint64_t> value;
    LETHE_RETURN_IF_ERROR(file_.read_uint(name, &value));
    if (!value.has_value() && !fallback.has_value()) return missing(name);
    if (value.value_or(0) > UINT32_MAX) {
      return Status::error(ErrorCode::kCorruptModel, "GGUF: %s is impossibly large", name.c_str());
    }
    *out = value.has_value() ? static_cast<uint32_t>(*value) : *fallback;
    return {};
  }

  // Leaves `out` as it is when the key is absent.
  template <typename T>
  Status read_number(const char* key, T* out) const {
    std::optional<double> value;
    LETHE_RETURN_IF_ERROR(file_.read_float(prefix_ + key, &value));
    if (value.has_value()) *out = static_cast<T>(*value);
    return {};
  }

  // Keys that change the calculation, and that may be present with the value that changes nothing.
  Status refuse_unless(const char* key, double neutral) const {
    const std::string name = prefix_ + key;
    if (!file_.has(name)) return {};
    std::optional<uint64_t> integer;
    std::optional<double> number;
    if (file_.read_uint(name, &integer).ok() && integer.has_value()) number = static_cast<double>(*integer);
    if (!number.has_value()) LETHE_RETURN_IF_ERROR(file_.read_float(name, &number));
    if (*number == neutral) return {};
    return Status::error(ErrorCode::kUnsupported, "%s is %g", name.c_str(), *number);
  }

  bool has(const char* key) const { return file_.has(prefix_ + key); }
  std::string name(const char* key) const { return prefix_ + key; }

 private:
  const GgufFile& file_;
  std::string prefix_;
};

constexpr struct {
  const char* key;
  double neutral;
} kNeutral[] = {{"logit_scale", 1},
                {"embedding_scale", 1},
                {"residual_scale", 1},
                {"attention.clamp_kqv", 0},
                {"attention.max_alibi_bias", 0},
                {"attention.temperature_scale", 0},
                {"attention.causal", 1},
                {"attention.shared_kv_layers", 0},
                {"expert_count", 0},
                {"use_parallel_residual", 0},
                {"rope.scaling.yarn_ext_factor", 1},
                {"rope.scaling.alpha", 0}};

class GgufReader : public ModelReader {
 public:
  explicit GgufReader(const std::string& path) : path_(path) {}

  Status describe(ModelDescription* description, ModelSource* out) override {
    std::span<const uint8_t> bytes;
    Hash64 hash;
    LETHE_RETURN_IF_ERROR(map_source(path_, &hash, out, &bytes));
    out->checksum = hash.digest();
    return in_file(describe_file(bytes, description, out), path_);
  }

  Status place_tensors(const ModelDescription& description, ModelSource* out) override {
    for (const SourceTensor& tensor : file_.tensors()) {
      LETHE_RETURN_IF_ERROR(in_file(place(*description.architecture, tensor, out), path_));
    }
    return {};
  }

 private:
  Status describe_file(std::span<const uint8_t> bytes, ModelDescription* description, ModelSource* out) {
    LETHE_RETURN_IF_ERROR(file_.parse(bytes));
    std::optional<std::string_view> name;
    LETHE_RETURN_IF_ERROR(file_.read_string("general.architecture", &name));
    if (!name.has_value()) return missing("general.architecture");
    const Architecture* architecture = find_gguf_architecture(*name);
    if (architecture == nullptr) return unknown_architecture(*name, true);
    description->architecture = architecture;
    LETHE_RETURN_IF_ERROR(pack_gguf_tokenizer(file_, &out->tokenizer));
    const Keys keys(file_, architecture->gguf);
    for (const auto& [key, neutral] : kNeutral) LETHE_RETURN_IF_ERROR(keys.refuse_unless(key, neutral));
    LETHE_RETURN_IF_ERROR(read_dims(keys, *architecture, out->tokenizer.vocab, &description->config));
    LETHE_RETURN_IF_ERROR(read_attention(keys, *architecture, &description->config));
    LETHE_RETURN_IF_ERROR(read_layers(keys, description));
    return read_rope(keys, *architecture, &description->config, &description->scaling);
  }

  static Status read_dims(const Keys& keys, const Architecture& architecture, uint32_t vocab, ModelConfig* config) {
    config->vocab = vocab;
    config->norm = architecture.norm;
    config->activation = architecture.activation;
    LETHE_RETURN_IF_ERROR(keys.read_dim("block_count", {}, &config->layers));
    LETHE_RETURN_IF_ERROR(keys.read_dim("context_length", {}, &config->context_length));
    LETHE_RETURN_IF_ERROR(keys.read_dim("embedding_length", {}, &config->embed_dim));
    LETHE_RETURN_IF_ERROR(keys.read_dim("feed_forward_length", {}, &config->ffn_dim));
    LETHE_RETURN_IF_ERROR(keys.read_dim("attention.head_count", {}, &config->heads));
    LETHE_RETURN_IF_ERROR(keys.read_dim("attention.head_count_kv", config->heads, &config->kv_heads));
    const uint32_t even_share = config->heads == 0 ? 0 : config->embed_dim / config->heads;
    LETHE_RETURN_IF_ERROR(keys.read_dim("attention.key_length", even_share, &config->head_dim));
    for (const char* key : {"attention.value_length", "attention.key_length_swa", "attention.value_length_swa"}) {
      uint32_t other = 0;
      LETHE_RETURN_IF_ERROR(keys.read_dim(key, config->head_dim, &other));
      if (other == config->head_dim) continue;
      return Status::error(ErrorCode::kUnsupported, "keys of %u and values of %u dimensions", config->head_dim, other);
    }
    uint32_t declared_vocab = 0;
    LETHE_RETURN_IF_ERROR(keys.read_dim("vocab_size", vocab, &declared_vocab));
    if (declared_vocab != vocab) {
      return Status::error(ErrorCode::kCorruptModel, "%s is %u, the tokenizer has %u tokens",
                           keys.name("vocab_size").c_str(), declared_vocab, vocab);
    }
    const char* eps = config->norm == Norm::kRms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon";
    if (!keys.has(eps)) return missing(keys.name(eps));
    return keys.read_number(eps, &config->norm_eps);
  }

  static Status read_attention(const Keys& keys, const Architecture& architecture, ModelConfig* config) {
    LETHE_RETURN_IF_ERROR(keys.read_dim("attention.sliding_window", architecture.gguf_window, &config->window));
    LETHE_RETURN_IF_ERROR(keys.read_number("attn_logit_softcapping", &config->attention_softcap));
    LETHE_RETURN_IF_ERROR(keys.read_number("final_logit_softcapping", &config->logit_softcap));
    if (config->layers == architecture.gguf_wide_layers && config->heads != 0) {
      config->attention_scale = 1 / std::sqrt(static_cast<float>(config->embed_dim / config->heads));
    }
    return keys.read_number("attention.scale", &config->attention_scale);
  }

  Status read_layers(const Keys& keys, ModelDescription* description) const {
    const std::string key = keys.name("attention.sliding_window_pattern");
    if (file_.is_array(key)) {
      std::optional<std::vector<uint64_t>> flags;
      LETHE_RETURN_IF_ERROR(file_.read_uints(key, &flags));
      description->local_layers.emplace(flags->begin(), flags->end());
    } else if (keys.has("attention.sliding_window_pattern")) {
      LETHE_RETURN_IF_ERROR(
          keys.read_dim("attention.sliding_window_pattern", {}, &description->local_period.emplace()));
    }
    return {};
  }

  Status read_rope(const Keys& keys, const Architecture& architecture, ModelConfig* config,
                   RopeScaling* scaling) const {
    config->rope_base = 10000;
    if (architecture.learned_positions) return {};
    LETHE_RETURN_IF_ERROR(keys.read_dim("rope.dimension_count", config->head_dim, &config->rotary_dim));
    uint32_t local_dim = 0;
    LETHE_RETURN_IF_ERROR(keys.read_dim("rope.dimension_count_swa", config->rotary_dim, &local_dim));
    if (local_dim != config->rotary_dim) {
      return Status::error(ErrorCode::kUnsupported, "local layers rotate %u dimensions, the others %u", local_dim,
                           config->rotary_dim);
    }
    LETHE_RETURN_IF_ERROR(keys.read_number("rope.freq_base", &config->rope_base));
    config->rope_local_base = architecture.gguf_local_rope_base;
    LETHE_RETURN_IF_ERROR(keys.read_number("rope.freq_base_swa", &config->rope_local_base));

    std::optional<std::string_view> type;
    LETHE_RETURN_IF_ERROR(file_.read_string(keys.name("rope.scaling.type"), &type));
    double factor = 0;
    LETHE_RETURN_IF_ERROR(keys.read_number("rope.scale_linear", &factor));
    LETHE_RETURN_IF_ERROR(keys.read_number("rope.scaling.factor", &factor));
    scaling->factor = factor == 0 ? 1 : factor;
    if (type.value_or("linear") == "linear") {
      if (scaling->factor != 1) scaling->type = RopeScaling::Type::kLinear;
      return {};
    }
    if (*type == "none") return {};
    if (*type != "yarn") {
      return Status::error(ErrorCode::kUnsupported, "%s is %.*s", keys.name("rope.scaling.type").c_str(),
                           static_cast<int>(std::min<size_t>(type->size(), 64)), type->data());
    }
    return read_yarn(keys, *config, scaling);
  }

  static Status read_yarn(const Keys& keys, const ModelConfig& config, RopeScaling* scaling) {
    scaling->type = RopeScaling::Type::kYarn;
    uint32_t original = 0;
    LETHE_RETURN_IF_ERROR(keys.read_dim("rope.scaling.original_context_length", config.context_length, &original));
    scaling->original_context = original;
    LETHE_RETURN_IF_ERROR(keys.read_number("rope.scaling.yarn_beta_fast", &scaling->beta_fast));
    LETHE_RETURN_IF_ERROR(keys.read_number("rope.scaling.yarn_beta_slow", &scaling->beta_slow));
    LETHE_RETURN_IF_ERROR(keys.read_number("rope.scaling.yarn_attn_factor", &scaling->attention_factor));
    LETHE_RETURN_IF_ERROR(keys.read_number("rope.scaling.yarn_log_multiplier", &scaling->mscale_all_dim));
    if (scaling->mscale_all_dim != 0) scaling->mscale = 1;
    return keys.refuse_unless("rope.scaling.attn_factor", 1);
  }

  static Status place(const Architecture& architecture, const SourceTensor& tensor, ModelSource* out) {
    TensorPlace place;
    if (!find_gguf_tensor(architecture, tensor.name, &place)) {
      return Status::error(ErrorCode::kUnsupported, "tensor %.100s has no place in a %s model of %u layers",
                           tensor.name.c_str(), architecture.name, out->config.layers);
    }
    return place_tensor(tensor, out->name, place, architecture.gguf_interleaved, 0, out);
  }

  std::string path_;
  GgufFile file_;
};

}  // namespace

std::unique_ptr<ModelReader> make_gguf_reader(const std::string& path) { return std::make_unique<GgufReader>(path); }

}  // namespace lethe
