#include "runtime/model/roles.h"

#include <array>
#include <cmath>
#include <utility>

#include "runtime/model/frame.h"

namespace lethe {
namespace {

constexpr RoleInfo kRoles[] = {
    {Role::kTokenEmbedding, "token_embedding", false, false, true},
    {Role::kPositionEmbedding, "position_embedding", false, false, false},
    {Role::kRopeFactors, "rope_factors", false, true, false},
    {Role::kOutputNorm, "output_norm", false, true, true},
    {Role::kOutputNormBias, "output_norm.bias", false, true, false},
    {Role::kOutput, "output", false, false, false},  // absent: the embedding is used (tied)
    {Role::kAttentionNorm, "attention.norm", true, true, false},
    {Role::kAttentionNormBias, "attention.norm.bias", true, true, false},
    {Role::kAttentionQ, "attention.q", true, false, true},
    {Role::kAttentionQBias, "attention.q.bias", true, true, false},
    {Role::kAttentionQNorm, "attention.q.norm", true, true, false},
    {Role::kAttentionK, "attention.k", true, false, true},
    {Role::kAttentionKBias, "attention.k.bias", true, true, false},
    {Role::kAttentionKNorm, "attention.k.norm", true, true, false},
    {Role::kAttentionV, "attention.v", true, false, true},
    {Role::kAttentionVBias, "attention.v.bias", true, true, false},
    {Role::kAttentionO, "attention.o", true, false, true},
    {Role::kAttentionOBias, "attention.o.bias", true, true, false},
    {Role::kAttentionPostNorm, "attention.post_norm", true, true, false},
    {Role::kFfnNorm, "ffn.norm", true, true, false},
    {Role::kFfnNormBias, "ffn.norm.bias", true, true, false},
    {Role::kFfnGate, "ffn.gate", true, false, false},
    {Role::kFfnGateBias, "ffn.gate.bias", true, true, false},
    {Role::kFfnUp, "ffn.up", true, false, true},
    {Role::kFfnUpBias, "ffn.up.bias", true, true, false},
    {Role::kFfnDown, "ffn.down", true, false, true},
    {Role::kFfnDownBias, "ffn.down.bias", true, true, false},
    {Role::kFfnPostNorm, "ffn.post_norm", true, true, false},
};
static_assert(std::size(kRoles) == kModelRoles + kLayerRoles);

// Index into kRoles of every role's value, -1 where there is none.
constexpr size_t kRoleValues = 64;
constexpr auto kRoleIndex = [] {
  std::array<int8_t, kRoleValues> index{};
  index.fill(-1);
  for (size_t i = 0; i < std::size(kRoles); ++i) index[static_cast<size_t>(kRoles[i].role)] = static_cast<int8_t>(i);
  return index;
}();

int32_t role_index(Role role) {
  const auto value = static_cast<size_t>(role);
  return value < kRoleValues ? kRoleIndex[value] : -1;
}

Status check_range(const char* name, uint32_t value, uint32_t low, uint32_t high) {
  if (value >= low && value <= high) return {};
  return Status::error(ErrorCode::kCorruptModel, "architecture: %s is %u, must be %u to %u", name, value, low, high);
}

}  // namespace

std::span<const RoleInfo> all_roles() { return kRoles; }

const char* role_name(Role role) {
  const int32_t index = role_index(role);
  return index < 0 ? "unknown" : kRoles[index].name;
}

bool role_is_per_layer(Role role) {
  const int32_t index = role_index(role);
  return index >= 0 && kRoles[index].per_layer;
}

bool role_is_vector(Role role) {
  const int32_t index = role_index(role);
  return index >= 0 && kRoles[index].is_vector;
}

int32_t role_slot(Role role, uint32_t layer, uint32_t layers) {
  const int32_t index = role_index(role);
  if (index < 0) return -1;
  if (!kRoles[index].per_layer) return layer == 0 ? index : -1;
  if (layer >= layers) return -1;
  return index + static_cast<int32_t>(layer * kLayerRoles);
}

Shape role_shape(Role role, const ModelConfig& config) {
  const uint32_t query_dim = config.heads * config.head_dim;
  const uint32_t kv_dim = config.kv_heads * config.head_dim;
  switch (role) {
    case Role::kTokenEmbedding:
    case Role::kOutput: return {config.vocab, config.embed_dim};
    case Role::kPositionEmbedding: return {config.context_length, config.embed_dim};
    case Role::kRopeFactors: return {1, config.rotary_dim / 2};
    case Role::kOutputNorm:
    case Role::kOutputNormBias:
    case Role::kAttentionNorm:
    case Role::kAttentionNormBias:
    case Role::kAttentionPostNorm:
    case Role::kFfnNorm:
    case Role::kFfnNormBias:
    case Role::kFfnPostNorm:
    case Role::kAttentionOBias:
    case Role::kFfnDownBias: return {1, config.embed_dim};
    case Role::kAttentionQ: return {query_dim, config.embed_dim};
    case Role::kAttentionQBias: return {1, query_dim};
    case Role::kAttentionK:
    case Role::kAttentionV: return {kv_dim, config.embed_dim};
    case Role::kAttentionKBias:
    case Role::kAttentionVBias: return {1, kv_dim};
    case Role::kAttentionQNorm:
    case Role::kAttentionKNorm: return {1, config.head_dim};
    case Role::kAttentionO: return {config.embed_dim, query_dim};
    case Role::kFfnGate:
    case Role::kFfnUp: return {config.ffn_dim, config.embed_dim};
    case Role::kFfnGateBias:
    case Role::kFfnUpBias: return {1, config.ffn_dim};
    case Role::kFfnDown: return {config.embed_dim, config.ffn_dim};
  }
  return {0, 0};
}

Status check_head_plan(const ModelConfig& config, std::span<const HeadWindow> plan) {
  for (uint32_t i = 0; i < plan.size(); ++i) {
    const auto [sinks, window] = plan[i];
    const uint32_t layer = i / config.kv_heads, kv_head = i % config.kv_heads;
    if (sinks > kMaxHeadSinks || window > kMaxContext || (window == 0 && sinks != 0)) {
      return Status::error(
          ErrorCode::kCorruptModel,
          "head plan: layer %u, KV head %u: a window of %u and %u first tokens: at most %u and %u, and "
          "first tokens with a window only",
          layer, kv_head, window, sinks, kMaxContext, kMaxHeadSinks);
    }
    if (window != 0 && config.is_local(layer)) {
      return Status::error(ErrorCode::kCorruptModel,
                           "head plan: layer %u, KV head %u: the layer has a window of %u itself", layer, kv_head,
                           config.window);
    }
  }
  return {};
}

Status check_config(const ModelConfig& config) {
  LETHE_RETURN_IF_ERROR(check_range("layers", config.layers, 1, kMaxLayers));
  LETHE_RETURN_IF_ERROR(check_range("embed_dim", config.embed_dim, 1, kMaxDim));
  LETHE_RETURN_IF_ERROR(check_range("ffn_dim", config.ffn_dim, 1, kMaxDim));
  LETHE_RETURN_IF_ERROR(check_range("head_dim", config.head_dim, 2, kMaxHeadDim));
  LETHE_RETURN_IF_ERROR(check_range("heads", config.heads, 1, kMaxDim / config.head_dim));
  LETHE_RETURN_IF_ERROR(check_range("kv_heads", config.kv_heads, 1, config.heads));
  LETHE_RETURN_IF_ERROR(check_range("vocab", config.vocab, 1, kMaxVocab));
  LETHE_RETURN_IF_ERROR(check_range("context_length", config.context_length, 1, kMaxContext));
  LETHE_RETURN_IF_ERROR(check_range("rotary_dim", config.rotary_dim, 0, config.head_dim));
  if (config.heads % config.kv_heads != 0) {
    return Status::error(ErrorCode::kCorruptModel, "architecture: %u heads cannot share %u KV heads evenly",
                         config.heads, config.kv_heads);
  }
  if (config.head_dim % 2 != 0 || config.rotary_dim % 2 != 0) {
    return Status::error(ErrorCode::kCorruptModel, "architecture: head_dim %u and rotary_dim %u must be even",
                         config.head_dim, config.rotary_dim);
  }
  if (!std::isfinite(config.norm_eps) || config.norm_eps <= 0) {
    return Status::error(ErrorCode::kCorruptModel, "architecture: norm_eps is %g, must be positive",
                         static_cast<double>(config.norm_eps));
  }
  if (!std::isfinite(config.rope_base) || config.rope_base <= 0) {
    return Status::error(ErrorCode::kCorruptModel, "architecture: rope_base is %g, must be positive",
                         static_cast<double>(config.rope_base));
  }
  for (const auto& [name, value] : {std::pair{"rope_local_base", config.rope_local_base},
                                    {"rope_magnitude", config.rope_magnitude},
                                    {"attention_scale", config.attention_scale},
                                    {"attention_softcap", config.attention_softcap},
                                    {"logit_softcap", config.logit_softcap},
                                    {"embedding_scale", config.embedding_scale}}) {
    if (!std::isfinite(value) || value < 0) {
      return Status::error(ErrorCode::kCorruptModel, "architecture: %s is %g, must not be negative", name,
                           static_cast<double>(value));
    }
  }
  for (uint32_t layer = 0; layer < kMaxLayers; ++layer) {
    if (config.is_local(layer) && (config.window == 0 || layer >= config.layers)) {
      return Status::error(ErrorCode::kCorruptModel, "architecture: layer %u of %u is local, the window is %u", layer,
                           config.layers, config.window);
    }
  }
  return {};
}

Status missing_tensor(Role role, uint32_t layer) {
  return Status::error(ErrorCode::kCorruptModel, "tensor %s of layer %u is missing", role_name(role), layer);
}

const char* norm_name(Norm norm) { return norm == Norm::kRms ? "rms-norm" : "layer-norm"; }

const char* activation_name(Activation activation) {
  switch (activation) {
    case Activation::kSilu: return "silu";
    case Activation::kGeluTanh: return "gelu-tanh";
    case Activation::kGelu: return "gelu";
    case Activation::kRelu: return "relu";
  }
  return "unknown";
}

float ModelConfig::score_scale() const {
  return attention_scale != 0 ? attention_scale : 1.0f / std::sqrt(static_cast<float>(head_dim));
}

}  // namespace lethe
