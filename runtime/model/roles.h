// The roles of tensors: names, where they occur, and the shape that the architecture gives them.
#pragma once

#include <cstdint>
#include <span>
#include <utility>

#include "runtime/base/status.h"
#include "runtime/model/model.h"

namespace lethe {

struct RoleInfo {
  Role role;
  const char* name;
  bool per_layer;
  bool is_vector;  // stored as kF32Vector; all others are matrices
  bool required;   // other roles of layers are present in all layers or in none
};

// Roles of the whole model first, then those of a layer, in the order in which files store them.
std::span<const RoleInfo> all_roles();

bool role_is_vector(Role role);  // false for an unknown role

inline constexpr uint32_t kModelRoles = 6;
inline constexpr uint32_t kLayerRoles = 22;

constexpr uint32_t role_slot_count(uint32_t layers) { return kModelRoles + layers * kLayerRoles; }

// Place of a tensor in a table of role_slot_count(layers) entries; -1 for an unknown role or a layer it cannot have.
int32_t role_slot(Role role, uint32_t layer, uint32_t layers);

struct Shape {
  uint32_t rows, cols;
};
// Shape of a known role's tensor [rows = outputs, cols = inputs]; vectors are [1, n].
Shape role_shape(Role role, const ModelConfig& config);

// Whether the numbers of an architecture are possible: kCorruptModel names the first that is not.
Status check_config(const ModelConfig& config);

// Whether a model of this architecture can have the head plan [layers * kv_heads]: kCorruptModel names the KV head that
// it cannot.
inline constexpr uint32_t kMaxHeadSinks = 4096;
Status check_head_plan(const ModelConfig& config, std::span<const HeadWindow> plan);

// kCorruptModel: the architecture needs this tensor.
Status missing_tensor(Role role, uint32_t layer);

// Whether a model has the tensors that a decoder needs: the required ones; a norm before or after attention and
// feed-forward network; and of every role the same in all layers, so that one list of steps serves them all.
// kCorruptModel names the tensor. `present(role, layer)` says what there is.
template <typename Present>
Status check_roles(const ModelConfig& config, Present present) {
  for (const RoleInfo& info : all_roles()) {
    const uint32_t layers = info.per_layer ? config.layers : 1;
    uint32_t first_missing = layers, count = 0;
    for (uint32_t layer = layers; layer-- > 0;) {
      if (present(info.role, layer)) {
        ++count;
      } else {
        first_missing = layer;
      }
    }
    if (count != layers && (info.required || count != 0)) return missing_tensor(info.role, first_missing);
  }
  for (const auto& [before, after] :
       {std::pair{Role::kAttentionNorm, Role::kAttentionPostNorm}, std::pair{Role::kFfnNorm, Role::kFfnPostNorm}}) {
    if (!present(before, 0) && !present(after, 0)) return missing_tensor(before, 0);
  }
  return {};
}

}  // namespace lethe
