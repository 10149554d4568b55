#include "runtime/model/roles.h"

#include <cmath>

#include "runtime/model/frame.h"

namespace lethe {
namespace {

constexpr RoleInfo kRoles[] = {
    {Role::kTokenEmbedding, "token_embedding", false, false, true},
    {Role::kOutputNorm, "output_norm", false, true, true},
    {Role::kOutput, "output", false, false, false},  // absent: the embedding is used (tied)
    {Role::kAttentionNorm, "attention.norm", true, true, true},
    {Role::kAttentionQ, "attention.q", true, false, true},
    {Role::kAttentionK, "attention.k", true, false, true},
    {Role::kAttentionV, "attention.v", true, false, true},
    {Role::kAttentionO, "attention.o", true, false, true},
    {Role::kFfnNorm, "ffn.norm", true, true, true},
    {Role::kFfnGate, "ffn.gate", true, false, true},
    {Role::kFfnUp, "ffn.up", true, false, true},
    {Role::kFfnDown, "ffn.down", true, false, true},
};
static_assert(std::size(kRoles) == kModelRoles + kLayerRoles);

// Index into kRoles, or -1.
constexpr int32_t role_index(Role role) {
  const int32_t value = static_cast<int32_t>(role);
  if (value <= 2) return value;
  if (value >= 10 && value <= 14) return value - 7;
  if (value >= 20 && value <= 23) return value - 12;
  return -1;
}
constexpr bool indices_match() {
  for (size_t i = 0; i < std::size(kRoles); ++i) {
    if (role_index(kRoles[i].role) != static_cast<int32_t>(i)) return false;
  }
  return true;
}
static_assert(indices_match());

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
    case Role::kOutputNorm:
    case Role::kAttentionNorm:
    case Role::kFfnNorm: return {1, config.embed_dim};
    case Role::kAttentionQ: return {query_dim, config.embed_dim};
    case Role::kAttentionK:
    case Role::kAttentionV: return {kv_dim, config.embed_dim};
    case Role::kAttentionO: return {config.embed_dim, query_dim};
    case Role::kFfnGate:
    case Role::kFfnUp: return {config.ffn_dim, config.embed_dim};
    case Role::kFfnDown: return {config.embed_dim, config.ffn_dim};
  }
  return {0, 0};
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
  return {};
}

}  // namespace lethe
