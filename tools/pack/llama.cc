#include "tools/pack/llama.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>

#include "runtime/model/frame.h"
#include "runtime/model/roles.h"

namespace lethe {
namespace {

Status missing(const char* key) { return Status::error(ErrorCode::kCorruptModel, "GGUF: %s is missing", key); }

// A dimension: any integer that fits 32 bits; check_config judges its size.
Status read_dim(const GgufFile& file, const char* key, std::optional<uint32_t> fallback, uint32_t* out) {
  std::optional<uint64_t> value;
  LETHE_RETURN_IF_ERROR(file.read_uint(key, &value));
  if (!value.has_value() && !fallback.has_value()) return missing(key);
  if (value.value_or(0) > UINT32_MAX) {
    return Status::error(ErrorCode::kCorruptModel, "GGUF: %s is impossibly large", key);
  }
  *out = value.has_value() ? static_cast<uint32_t>(*value) : *fallback;
  return {};
}

// Keys that change the calculation. Each may be present with the value that changes nothing.
Status refuse_unsupported_keys(const GgufFile& file) {
  std::optional<std::string_view> scaling;
  LETHE_RETURN_IF_ERROR(file.read_string("llama.rope.scaling.type", &scaling));
  if (scaling.has_value() && *scaling != "none" && *scaling != "linear") {
    return Status::error(ErrorCode::kUnsupported, "llama.rope.scaling.type is %.*s",
                         static_cast<int>(std::min<size_t>(scaling->size(), 64)), scaling->data());
  }
  for (const char* key : {"llama.rope.scaling.factor", "llama.rope.scale_linear", "llama.logit_scale",
                          "llama.embedding_scale", "llama.residual_scale"}) {
    std::optional<double> value;
    LETHE_RETURN_IF_ERROR(file.read_float(key, &value));
    if (value.value_or(1) != 1) return Status::error(ErrorCode::kUnsupported, "%s is %g", key, *value);
  }
  for (const char* key : {"llama.attention.clamp_kqv", "llama.attention.max_alibi_bias", "llama.attention.scale"}) {
    std::optional<double> value;
    LETHE_RETURN_IF_ERROR(file.read_float(key, &value));
    if (value.value_or(0) != 0) return Status::error(ErrorCode::kUnsupported, "%s is %g", key, *value);
  }
  for (const char* key : {"llama.expert_count", "llama.attention.sliding_window"}) {
    std::optional<uint64_t> value;
    LETHE_RETURN_IF_ERROR(file.read_uint(key, &value));
    if (value.value_or(0) != 0) {
      return Status::error(ErrorCode::kUnsupported, "%s is %llu", key, static_cast<unsigned long long>(*value));
    }
  }
  return {};
}

struct NamedRole {
  std::string_view name;
  Role role;
};
constexpr NamedRole kModelTensors[] = {{"token_embd.weight", Role::kTokenEmbedding},
                                       {"output_norm.weight", Role::kOutputNorm},
                                       {"output.weight", Role::kOutput}};
constexpr NamedRole kLayerTensors[] = {{"attn_norm.weight", Role::kAttentionNorm}, {"attn_q.weight", Role::kAttentionQ},
                                       {"attn_k.weight", Role::kAttentionK},       {"attn_v.weight", Role::kAttentionV},
                                       {"attn_output.weight", Role::kAttentionO},  {"ffn_norm.weight", Role::kFfnNorm},
                                       {"ffn_gate.weight", Role::kFfnGate},        {"ffn_up.weight", Role::kFfnUp},
                                       {"ffn_down.weight", Role::kFfnDown}};

bool find_role(std::span<const NamedRole> table, std::string_view name, Role* role) {
  const auto found = std::find_if(table.begin(), table.end(), [name](const NamedRole& r) { return r.name == name; });
  if (found == table.end()) return false;
  *role = found->role;
  return true;
}

}  // namespace

Status read_llama_config(const GgufFile& file, uint32_t vocab, ModelConfig* config) {
  std::optional<std::string_view> name;
  LETHE_RETURN_IF_ERROR(file.read_string("general.architecture", &name));
  if (!name.has_value()) return missing("general.architecture");
  if (*name != "llama") {
    return Status::error(ErrorCode::kUnsupported, "architecture %.*s; supported: llama",
                         static_cast<int>(std::min<size_t>(name->size(), 64)), name->data());
  }
  LETHE_RETURN_IF_ERROR(refuse_unsupported_keys(file));

  *config = {};
  std::strcpy(config->name, "llama");
  config->vocab = vocab;
  LETHE_RETURN_IF_ERROR(read_dim(file, "llama.block_count", {}, &config->layers));
  LETHE_RETURN_IF_ERROR(read_dim(file, "llama.context_length", {}, &config->context_length));
  LETHE_RETURN_IF_ERROR(read_dim(file, "llama.embedding_length", {}, &config->embed_dim));
  LETHE_RETURN_IF_ERROR(read_dim(file, "llama.feed_forward_length", {}, &config->ffn_dim));
  LETHE_RETURN_IF_ERROR(read_dim(file, "llama.attention.head_count", {}, &config->heads));
  LETHE_RETURN_IF_ERROR(read_dim(file, "llama.attention.head_count_kv", config->heads, &config->kv_heads));
  const uint32_t even_share = config->heads == 0 ? 0 : config->embed_dim / config->heads;
  LETHE_RETURN_IF_ERROR(read_dim(file, "llama.attention.key_length", even_share, &config->head_dim));
  LETHE_RETURN_IF_ERROR(read_dim(file, "llama.rope.dimension_count", config->head_dim, &config->rotary_dim));
  uint32_t value_dim = 0;
  uint32_t declared_vocab = 0;
  LETHE_RETURN_IF_ERROR(read_dim(file, "llama.attention.value_length", config->head_dim, &value_dim));
  LETHE_RETURN_IF_ERROR(read_dim(file, "llama.vocab_size", vocab, &declared_vocab));
  if (value_dim != config->head_dim) {
    return Status::error(ErrorCode::kUnsupported, "keys of %u and values of %u dimensions", config->head_dim,
                         value_dim);
  }
  if (declared_vocab != vocab) {
    return Status::error(ErrorCode::kCorruptModel, "llama.vocab_size is %u, the tokenizer has %u tokens",
                         declared_vocab, vocab);
  }
  std::optional<double> eps;
  std::optional<double> rope_base;
  LETHE_RETURN_IF_ERROR(file.read_float("llama.attention.layer_norm_rms_epsilon", &eps));
  LETHE_RETURN_IF_ERROR(file.read_float("llama.rope.freq_base", &rope_base));
  if (!eps.has_value()) return missing("llama.attention.layer_norm_rms_epsilon");
  config->norm_eps = static_cast<float>(*eps);
  config->rope_base = static_cast<float>(rope_base.value_or(10000));
  return check_config(*config);
}

bool parse_llama_tensor_name(std::string_view name, Role* role, uint32_t* layer) {
  *layer = 0;
  if (find_role(kModelTensors, name, role)) return true;
  if (!name.starts_with("blk.")) return false;
  const char* end = name.data() + name.size();
  const auto [after, error] = std::from_chars(name.data() + 4, end, *layer);
  // A number past the last layer is refused by role_slot; one with a leading zero would be a second name.
  if (error != std::errc() || after == end || *after != '.' || (name[4] == '0' && after != name.data() + 5)) {
    return false;
  }
  return find_role(kLayerTensors, {after + 1, static_cast<size_t>(end - after - 1)}, role);
}

uint64_t llama_source_row(Role role, const ModelConfig& config, uint64_t row) {
  if (role != Role::kAttentionQ && role != Role::kAttentionK) return row;
  const uint64_t in_head = row % config.head_dim;
  if (in_head >= config.rotary_dim) return row;
  const uint64_t half = config.rotary_dim / 2;
  return row - in_head + in_head % half * 2 + in_head / half;
}

}  // namespace lethe
