// Keys that differ from the average stay (Park et al. 2025, "KeyDiff: Key Similarity-Based KV Cache Eviction for
// Long-Context LLM Inference in Resource-Constrained Environments", arXiv 2504.15364, section 3): the anchor is the
// mean of all unit keys of the list, score = -cos(key, anchor).
#include <algorithm>
#include <cmath>

#include "runtime/cache/list_reader.h"
#include "runtime/cache/policy.h"

namespace lethe {
namespace {

constexpr float kTiny = 1e-12f;  // below it a key has no direction

void score_keydiff(const ScoreArgs& args, std::span<float> scores) {
  const KvLayout& layout = args.pool.layout;
  const uint32_t dim = layout.head_dim;
  float* const keys = args.work.data();
  float* const anchor = keys + size_t{dim} * kBlockSlots;
  std::fill_n(anchor, dim, 0.0f);
  // 1 / |key| of the slots in use of the block in `keys`.
  const auto inverse_norms = [&](uint32_t count, float* out) {
    square_norms(keys, dim, out);
    for (uint32_t slot = 0; slot < count; ++slot) out[slot] = 1.0f / std::max(std::sqrt(out[slot]), kTiny);
  };
  for_each_block(args.pool, args.list, [&](const uint8_t* block, uint32_t, uint32_t count) {
    float inverse[kBlockSlots];
    read_keys(layout, block, keys);
    inverse_norms(count, inverse);
    for (uint32_t d = 0; d < dim; ++d) {
      const float* row = keys + size_t{d} * kBlockSlots;
      for (uint32_t slot = 0; slot < count; ++slot) anchor[d] += row[slot] * inverse[slot];
    }
  });
  // The anchor's length does not change the order, but scores are to be cosines.
  float square = 0;
  for (uint32_t d = 0; d < dim; ++d) square += anchor[d] * anchor[d];
  const float anchor_norm = std::max(std::sqrt(square), kTiny);
  for_each_block(args.pool, args.list, [&](const uint8_t* block, uint32_t rank, uint32_t count) {
    float inverse[kBlockSlots], dots[kBlockSlots] = {};
    read_keys(layout, block, keys);
    inverse_norms(count, inverse);
    for (uint32_t d = 0; d < dim; ++d) {
      const float* row = keys + size_t{d} * kBlockSlots;
      for (uint32_t slot = 0; slot < kBlockSlots; ++slot) dots[slot] += row[slot] * anchor[d];
    }
    for (uint32_t slot = 0; slot < count; ++slot) scores[rank + slot] = -dots[slot] * inverse[slot] / anchor_norm;
  });
}

}  // namespace

constexpr Policy kKeyDiffPolicy = {.name = "keydiff", .score = score_keydiff};

}  // namespace lethe
