// Eviction policies: how much each token of a list is worth when the cache needs room. One small file each in
// policies/; the table in policies.cc names them all.
//
// A policy is constant data and pure functions. What it must remember of a token lives in the token's slot (the state
// section of the block), moves with it when the list is compacted, starts as zero and is charged to the same cap as
// keys and values: policies are compared at equal total bytes.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "runtime/cache/kv_layout.h"
#include "runtime/cache/observe.h"

namespace lethe {

// One list whose tokens are to be scored.
struct ScoreArgs {
  KvPoolView pool;
  KvList list;
  uint32_t layer;
  uint32_t kv_head;
  uint64_t seed;          // for policies that draw
  std::span<float> work;  // [policy_work_floats(head_dim)]
};

// A block of keys or values as floats, and four rows.
constexpr size_t policy_work_floats(size_t head_dim) { return head_dim * (kBlockSlots + 4); }

struct Policy {
  const char* name;
  PositionMode default_positions;
  uint32_t state_bytes_per_slot;
  // Share of what stays, besides the sinks, that is simply the newest tokens; 100: nothing is scored. The rest are the
  // tokens of the highest scores. A user may choose another share.
  uint32_t recent_percent;
  // Higher is worth more; what is not a number counts as least. Null: nothing is scored.
  //   scores [list.length]
  void (*score)(const ScoreArgs& args, std::span<float> scores);
  Observer observer = {};

  // False: a full cache is an error.
  bool evicts() const { return score != nullptr || recent_percent == 100; }
};

extern const Policy kFullPolicy;
extern const Policy kWindowPolicy;
extern const Policy kRandomPolicy;
extern const Policy kL2Policy;
extern const Policy kKeyDiffPolicy;
extern const Policy kH2oPolicy;
extern const Policy kTovaPolicy;
extern const Policy kSnapKvPolicy;

std::span<const Policy* const> policies();
// Null when there is none of this name.
const Policy* find_policy(std::string_view name);

}  // namespace lethe
