// The inputs of a NAMM's network, read from a list: its state, its positions, its keys and values.
#pragma once

#include <cstdint>
#include <span>

#include "runtime/cache/key_geometry.h"
#include "runtime/cache/kv_layout.h"
#include "runtime/cache/namm/parameters.h"

namespace lethe::namm {

// Frozen moments as they are applied: (x - mean) * inverse_deviation.
struct Moments {
  std::span<const float> means;               // [Shape::moments]
  std::span<const float> inverse_deviations;  // [Shape::moments]
};

struct FeatureWork {
  std::span<float> tokens;  // [list.length]
  std::span<float> block;   // [feature_block_floats]
};
// Keys and values of two blocks.
constexpr size_t feature_block_floats(size_t head_dim) { return 2 * 2 * head_dim * kBlockSlots; }
static_assert(feature_block_floats(1) >= key_work_floats(1));

// Reads the inputs of every token of a list that is not empty; as they are when `moments` is null (for a pass that
// collects moments). The state was written by observer_of(shape.state_parts()).
//   out  [blocks][width][32], as network.h has it
void read_features(const Shape& shape, const Moments* moments, const KvPoolView& pool, const KvList& list,
                   const FeatureWork& work, float* out);

}  // namespace lethe::namm
