// Forgets at random: the control that every policy has to beat. A token's lot is drawn once, from its place and the
// seed, so it does not depend on when the cache was full.
#include "runtime/cache/list_reader.h"
#include "runtime/cache/policy.h"

namespace lethe {
namespace {

// splitmix64 (Steele et al., "Fast Splittable Pseudorandom Number Generators", 2014).
uint64_t mix(uint64_t z) {
  z += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

void score_random(const ScoreArgs& args, std::span<float> scores) {
  const uint64_t list_seed = mix(mix(args.seed) + (uint64_t{args.layer} << 32 | args.kv_head));
  for_each_block(args.pool, args.list, [&](const uint8_t* block, uint32_t rank, uint32_t count) {
    const uint32_t* positions = block_positions(args.pool.layout, block);
    for (uint32_t slot = 0; slot < count; ++slot) {
      scores[rank + slot] = static_cast<float>(mix(list_seed + positions[slot]) >> 40) * 0x1p-24f;
    }
  });
}

}  // namespace

constexpr Policy kRandomPolicy = {.name = "random", .is_share = true, .score = score_random};

}  // namespace lethe
