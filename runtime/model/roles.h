// The roles of tensors: names, where they occur, and the shape that the architecture gives them.
#pragma once

#include <cstdint>
#include <span>

#include "runtime/base/status.h"
#include "runtime/model/model.h"

namespace lethe {

struct RoleInfo {
  Role role;
  const char* name;
  bool per_layer;
  bool is_vector;  // stored as kF32Vector; all others are matrices
  bool required;   // in every layer where per_layer
};

// Roles of the whole model first, then those of a layer, in the order in which files store them.
std::span<const RoleInfo> all_roles();

bool role_is_vector(Role role);  // false for an unknown role

inline constexpr uint32_t kModelRoles = 3;
inline constexpr uint32_t kLayerRoles = 9;

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

}  // namespace lethe
