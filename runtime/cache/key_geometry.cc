#include "runtime/cache/key_geometry.h"

#include <algorithm>
#include <cmath>

#include "runtime/cache/list_reader.h"

namespace lethe {
namespace {

constexpr float kTiny = 1e-12f;  // below it a key has no direction

}  // namespace

void key_norms(const KvPoolView& pool, const KvList& list, std::span<float> work, std::span<float> out) {
  for_each_block(pool, list, [&](const uint8_t* block, uint32_t rank, uint32_t count) {
    float squares[kBlockSlots];
    read_keys(pool.layout, block, work.data());
    square_norms(work.data(), pool.layout.head_dim, squares);
    for (uint32_t slot = 0; slot < count; ++slot) out[rank + slot] = std::sqrt(squares[slot]);
  });
}

void key_cosines(const KvPoolView& pool, const KvList& list, std::span<float> work, std::span<float> out) {
  const KvLayout& layout = pool.layout;
  const uint32_t dim = layout.head_dim;
  float* const keys = work.data();
  float* const anchor = keys + size_t{dim} * kBlockSlots;
  std::fill_n(anchor, dim, 0.0f);
  // 1 / |key| of the slots in use of the block in `keys`.
  const auto inverse_norms = [&](uint32_t count, float* inverse) {
    square_norms(keys, dim, inverse);
    for (uint32_t slot = 0; slot < count; ++slot) inverse[slot] = 1.0f / std::max(std::sqrt(inverse[slot]), kTiny);
  };
  for_each_block(pool, list, [&](const uint8_t* block, uint32_t, uint32_t count) {
    float inverse[kBlockSlots];
    read_keys(layout, block, keys);
    inverse_norms(count, inverse);
    for (uint32_t d = 0; d < dim; ++d) {
      const float* row = keys + size_t{d} * kBlockSlots;
      for (uint32_t slot = 0; slot < count; ++slot) anchor[d] += row[slot] * inverse[slot];
    }
  });
  float square = 0;
  for (uint32_t d = 0; d < dim; ++d) square += anchor[d] * anchor[d];
  const float anchor_norm = std::max(std::sqrt(square), kTiny);
  for_each_block(pool, list, [&](const uint8_t* block, uint32_t rank, uint32_t count) {
    float inverse[kBlockSlots], dots[kBlockSlots] = {};
    read_keys(layout, block, keys);
    inverse_norms(count, inverse);
    for (uint32_t d = 0; d < dim; ++d) {
      const float* row = keys + size_t{d} * kBlockSlots;
      for (uint32_t slot = 0; slot < kBlockSlots; ++slot) dots[slot] += row[slot] * anchor[d];
    }
    for (uint32_t slot = 0; slot < count; ++slot) out[rank + slot] = dots[slot] * inverse[slot] / anchor_norm;
  });
}

}  // namespace lethe
