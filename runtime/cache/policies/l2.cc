// Keys of small norm draw attention, so those stay (Devoto et al. 2024, "A Simple and Effective L2 Norm-Based Strategy
// for KV Cache Compression", arXiv 2406.11430, section 4): score = -|k|. RoPE does not change a norm.
#include <cmath>

#include "runtime/cache/list_reader.h"
#include "runtime/cache/policy.h"

namespace lethe {
namespace {

void score_l2(const ScoreArgs& args, std::span<float> scores) {
  const KvLayout& layout = args.pool.layout;
  for_each_block(args.pool, args.list, [&](const uint8_t* block, uint32_t rank, uint32_t count) {
    float squares[kBlockSlots];
    read_keys(layout, block, args.work.data());
    square_norms(args.work.data(), layout.head_dim, squares);
    for (uint32_t slot = 0; slot < count; ++slot) scores[rank + slot] = -std::sqrt(squares[slot]);
  });
}

}  // namespace

constexpr Policy kL2Policy = {.name = "l2", .score = score_l2};

}  // namespace lethe
