#include "tools/pack/architectures.h"

#include <algorithm>
#include <charconv>
#include <string>

#include "runtime/model/roles.h"

namespace lethe {
namespace {

// ---- names of tensors ----

constexpr TensorName kGgufNames[] = {
    {"token_embd", Role::kTokenEmbedding},
    {"position_embd", Role::kPositionEmbedding},
    {"rope_freqs", Role::kRopeFactors},
    {"output_norm", Role::kOutputNorm},
    {"output", Role::kOutput},
    {"attn_norm", Role::kAttentionNorm},
    {"attn_q", Role::kAttentionQ},
    {"attn_k", Role::kAttentionK},
    {"attn_v", Role::kAttentionV},
    {"attn_qkv", Role::kAttentionQ, Role::kAttentionK, Role::kAttentionV},
    {"attn_q_norm", Role::kAttentionQNorm},
    {"attn_k_norm", Role::kAttentionKNorm},
    {"attn_output", Role::kAttentionO},
    {"post_attention_norm", Role::kAttentionPostNorm},
    {"ffn_norm", Role::kFfnNorm},
    {"ffn_gate", Role::kFfnGate},
    {"ffn_up", Role::kFfnUp},
    {"ffn_down", Role::kFfnDown},
    {"post_ffw_norm", Role::kFfnPostNorm},
};
constexpr TensorName kHfNames[] = {
    // Llama's, which most others use
    {"embed_tokens", Role::kTokenEmbedding},
    {"norm", Role::kOutputNorm},
    {"lm_head", Role::kOutput},
    {"input_layernorm", Role::kAttentionNorm},
    {"self_attn.q_proj", Role::kAttentionQ},
    {"self_attn.k_proj", Role::kAttentionK},
    {"self_attn.v_proj", Role::kAttentionV},
    {"self_attn.q_norm", Role::kAttentionQNorm},
    {"self_attn.k_norm", Role::kAttentionKNorm},
    {"self_attn.o_proj", Role::kAttentionO},
    {"post_attention_layernorm", Role::kFfnNorm},
    {"mlp.gate_proj", Role::kFfnGate},
    {"mlp.up_proj", Role::kFfnUp},
    {"mlp.down_proj", Role::kFfnDown},
};

constexpr TensorName kGemmaHf[] = {
    {"post_attention_layernorm", Role::kAttentionPostNorm},
    {"pre_feedforward_layernorm", Role::kFfnNorm},
    {"post_feedforward_layernorm", Role::kFfnPostNorm},
};
constexpr TensorName kGpt2Hf[] = {
    {"wte", Role::kTokenEmbedding},
    {"wpe", Role::kPositionEmbedding},
    {"ln_f", Role::kOutputNorm},
    {"ln_1", Role::kAttentionNorm},
    TensorName("attn.c_attn", Role::kAttentionQ, Role::kAttentionK, Role::kAttentionV).as_transposed(),
    TensorName("attn.c_proj", Role::kAttentionO).as_transposed(),
    {"ln_2", Role::kFfnNorm},
    TensorName("mlp.c_fc", Role::kFfnUp).as_transposed(),
    TensorName("mlp.c_proj", Role::kFfnDown).as_transposed(),
};
constexpr TensorName kPhi3Hf[] = {
    {"self_attn.qkv_proj", Role::kAttentionQ, Role::kAttentionK, Role::kAttentionV},
    {"mlp.gate_up_proj", Role::kFfnGate, Role::kFfnUp},
};
constexpr TensorName kPhi3Gguf[] = {{"ffn_up", Role::kFfnGate, Role::kFfnUp}};
constexpr TensorName kStarcoder2Hf[] = {{"mlp.c_fc", Role::kFfnUp}, {"mlp.c_proj", Role::kFfnDown}};

// ---- roles without which the decoder would compute something else ----

constexpr Role kGated[] = {Role::kAttentionNorm, Role::kFfnNorm, Role::kFfnGate};
constexpr Role kQwen2Roles[] = {Role::kAttentionNorm,  Role::kFfnNorm,        Role::kFfnGate,
                                Role::kAttentionQBias, Role::kAttentionKBias, Role::kAttentionVBias};
constexpr Role kQwen3Roles[] = {Role::kAttentionNorm, Role::kFfnNorm, Role::kFfnGate, Role::kAttentionQNorm,
                                Role::kAttentionKNorm};
constexpr Role kGemma2Roles[] = {Role::kAttentionNorm, Role::kFfnNorm, Role::kFfnGate, Role::kAttentionPostNorm,
                                 Role::kFfnPostNorm};
constexpr Role kGemma3Roles[] = {Role::kAttentionNorm,     Role::kFfnNorm,     Role::kFfnGate,
                                 Role::kAttentionPostNorm, Role::kFfnPostNorm, Role::kAttentionQNorm,
                                 Role::kAttentionKNorm};
constexpr Role kGpt2Roles[] = {Role::kPositionEmbedding, Role::kOutputNormBias, Role::kAttentionNorm,
                               Role::kAttentionNormBias, Role::kAttentionQBias, Role::kAttentionKBias,
                               Role::kAttentionVBias,    Role::kAttentionOBias, Role::kFfnNorm,
                               Role::kFfnNormBias,       Role::kFfnUpBias,      Role::kFfnDownBias};

// ---- the table ----

constexpr Architecture kArchitectures[] = {
    {.name = "llama", .gguf = "llama", .hf = {"llama"}, .gguf_interleaved = true, .required = kGated},
    {.name = "mistral",
     .hf = {"mistral"},
     .hf_defaults = R"({"sliding_window": 4096, "num_key_value_heads": 8})",
     .required = kGated},
    {.name = "qwen2",
     .gguf = "qwen2",
     .hf = {"qwen2"},
     .hf_defaults = R"({"use_sliding_window": false, "max_window_layers": 28})",
     .required = kQwen2Roles},
    {.name = "qwen3",
     .gguf = "qwen3",
     .hf = {"qwen3"},
     .hf_defaults = R"({"use_sliding_window": false, "max_window_layers": 28, "head_dim": 128})",
     .required = kQwen3Roles},
    {.name = "gemma2",
     .gguf = "gemma2",
     .hf = {"gemma2"},
     .activation = Activation::kGeluTanh,
     .scaled_embeddings = true,
     .local_period = 2,
     .hf_norm_offset = 1,
     .gguf_window = 4096,
     .gguf_wide_layers = 46,
     .hf_defaults = R"({"head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 4096, "rms_norm_eps": 1e-6,
                        "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0})",
     .hf_tensors = kGemmaHf,
     .required = kGemma2Roles},
    {.name = "gemma3",
     .gguf = "gemma3",
     .hf = {"gemma3_text", "gemma3"},
     .activation = Activation::kGeluTanh,
     .scaled_embeddings = true,
     .local_period = 6,
     .hf_norm_offset = 1,
     .gguf_local_rope_base = 10000,
     .gguf_wide_layers = 62,
     .hf_defaults = R"({"vocab_size": 262208, "max_position_embeddings": 131072, "num_attention_heads": 8,
                        "num_key_value_heads": 4, "head_dim": 256, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-6,
                        "sliding_window": 4096, "rope_theta": 1e6, "rope_local_base_freq": 1e4})",
     .hf_tensors = kGemmaHf,
     .required = kGemma3Roles},
    {.name = "gpt2",
     .gguf = "gpt2",
     .hf = {"gpt2"},
     .norm = Norm::kLayer,
     .activation = Activation::kGeluTanh,
     .learned_positions = true,
     .ffn_ratio = 4,
     .hf_tensors = kGpt2Hf,
     .required = kGpt2Roles},
    {.name = "phi3",
     .gguf = "phi3",
     .hf = {"phi3"},
     .gguf_tensors = kPhi3Gguf,
     .hf_tensors = kPhi3Hf,
     .required = kGated},
    {.name = "starcoder2",
     .gguf = "starcoder2",
     .hf = {"starcoder2"},
     .norm = Norm::kLayer,
     .activation = Activation::kGeluTanh,
     .hf_tensors = kStarcoder2Hf,
     .required = std::span(kGpt2Roles).subspan(1)},  // all but the learned positions
};

// ---- from names to places ----

const TensorName* find_name(std::span<const TensorName> table, std::string_view name) {
  const auto found = std::find_if(table.begin(), table.end(), [name](const TensorName& t) { return t.name == name; });
  return found == table.end() ? nullptr : &*found;
}

// Takes "PREFIX", a number and a point from the front of `name`; false when it does not begin so.
bool take_layer(std::string_view prefix, std::string_view* name, uint32_t* layer) {
  if (!name->starts_with(prefix)) return false;
  const char* begin = name->data() + prefix.size();
  const char* end = name->data() + name->size();
  const auto [after, error] = std::from_chars(begin, end, *layer);
  // A number past the last layer is refused by role_slot; one with a leading zero would be a second name.
  if (error != std::errc() || after == end || *after != '.' || (*begin == '0' && after != begin + 1)) return false;
  *name = {after + 1, static_cast<size_t>(end - after - 1)};
  return true;
}

bool take_suffix(std::string_view suffix, std::string_view* name) {
  if (!name->ends_with(suffix)) return false;
  name->remove_suffix(suffix.size());
  return true;
}

bool find_tensor(std::span<const TensorName> own, std::span<const TensorName> common, std::string_view name,
                 bool in_layer, TensorPlace* out) {
  out->is_bias = take_suffix(".bias", &name);
  if (!out->is_bias && !take_suffix(".weight", &name)) return false;
  out->name = find_name(own, name);
  if (out->name == nullptr) out->name = find_name(common, name);
  Role ignored;
  return out->name != nullptr && role_is_per_layer(out->name->roles[0]) == in_layer &&
         (!out->is_bias || bias_role(out->name->roles[0], &ignored));
}

}  // namespace

std::span<const Architecture> architectures() { return kArchitectures; }

const Architecture* find_gguf_architecture(std::string_view name) {
  for (const Architecture& a : kArchitectures) {
    if (!name.empty() && name == a.gguf) return &a;
  }
  return nullptr;
}

const Architecture* find_hf_architecture(std::string_view model_type) {
  for (const Architecture& a : kArchitectures) {
    for (const char* type : a.hf) {
      if (type != nullptr && model_type == type) return &a;
    }
  }
  return nullptr;
}

Status unknown_architecture(std::string_view name, bool gguf) {
  std::string known;
  for (const Architecture& a : kArchitectures) {
    const char* label = gguf ? a.gguf : a.hf[0];
    if (*label != '\0') known += (known.empty() ? "" : ", ") + std::string(label);
  }
  return Status::error(ErrorCode::kUnsupported, "architecture %.*s; supported: %s",
                       static_cast<int>(std::min<size_t>(name.size(), 64)), name.data(), known.c_str());
}

bool find_gguf_tensor(const Architecture& architecture, std::string_view name, TensorPlace* out) {
  out->layer = 0;
  const bool in_layer = take_layer("blk.", &name, &out->layer);
  return find_tensor(architecture.gguf_tensors, kGgufNames, name, in_layer, out);
}

bool find_hf_tensor(const Architecture& architecture, std::string_view name, TensorPlace* out) {
  // The text model, inside a model with a head or inside one that sees as well.
  for (const std::string_view prefix : {"language_model.", "model.", "language_model.", "transformer."}) {
    if (name.starts_with(prefix)) name.remove_prefix(prefix.size());
  }
  out->layer = 0;
  const bool in_layer = take_layer("layers.", &name, &out->layer) || take_layer("h.", &name, &out->layer);
  return find_tensor(architecture.hf_tensors, kHfNames, name, in_layer, out);
}

bool bias_role(Role role, Role* out) {
  switch (role) {
    case Role::kOutputNorm: *out = Role::kOutputNormBias; return true;
    case Role::kAttentionNorm: *out = Role::kAttentionNormBias; return true;
    case Role::kAttentionQ: *out = Role::kAttentionQBias; return true;
    case Role::kAttentionK: *out = Role::kAttentionKBias; return true;
    case Role::kAttentionV: *out = Role::kAttentionVBias; return true;
    case Role::kAttentionO: *out = Role::kAttentionOBias; return true;
    case Role::kFfnNorm: *out = Role::kFfnNormBias; return true;
    case Role::kFfnGate: *out = Role::kFfnGateBias; return true;
    case Role::kFfnUp: *out = Role::kFfnUpBias; return true;
    case Role::kFfnDown: *out = Role::kFfnDownBias; return true;
    default: return false;
  }
}

}  // namespace lethe
