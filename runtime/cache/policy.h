// Eviction policies: how much each token of a list is worth when the cache needs room. One small file each in
// policies/; the table in policies.cc names them all.
//
// A policy is constant data and pure functions. What it must remember of a token lives in the token's slot (the state
// section of the block), moves with it when the list is compacted, starts as zero and is charged to the same cap as
// keys and values: policies are compared at equal total bytes. So is what it remembers of a whole list.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

#include "runtime/cache/kv_layout.h"
#include "runtime/cache/observe.h"

namespace lethe {

namespace namm {
class Scorer;
}
struct Policy;

// How the lists share the cache when it is full.
enum class Budget : uint8_t {
  kList,     // every list keeps the same number of tokens
  kPyramid,  // as kList, but early layers keep more than late ones (PyramidKV, arXiv 2406.02069, section 3.2)
  kLayer,   // the lists of a layer compete: the highest scores of them all stay (Ada-KV, arXiv 2407.11550, section 3.3)
  kGlobal,  // all lists compete
};

// Tokens of the longest list when the even share is `share`. Attention's work space is planned for it, so a list that
// wins tokens from others stops here.
constexpr uint32_t longest_list(Budget budget, uint32_t share) { return budget == Budget::kList ? share : 2 * share; }
// The tokens that lists of different lengths may waste, each, in blocks that are not full.
constexpr uint32_t budget_slack(Budget budget) { return budget == Budget::kList ? 0 : kBlockSlots - 1; }

// Smooths scores over neighbours, so that what stays are pieces of text (SnapKV, arXiv 2404.14469, section 4.2). Ranks
// outside of what is scored count as 0 in a mean, as in the authors' code.
enum class PoolKind : uint8_t { kNone, kMean, kMax };
struct Pooling {
  PoolKind kind = PoolKind::kNone;
  uint32_t width = 1;  // odd, at most kMaxPoolWidth
};
inline constexpr uint32_t kMaxPoolWidth = 255;

// How the tokens that stay follow from the scores.
struct Retention {
  // Share of what stays, besides the first and the pinned tokens, that is simply the newest; 100: nothing is scored.
  // The rest are the tokens of the highest scores.
  uint32_t recent_percent = 50;
  Budget budget = Budget::kList;
  Pooling pooling = {};
  // Multiplies every score by the sum of the magnitudes of the token's value (VATP, arXiv 2406.12335, section 3.2).
  bool value_norm = false;
  // Of the tokens below Policy::drop_below the best stay after all, as many as make every list of a layer as long as
  // the one that has the most above it: what the code of NAMM's authors does. With Budget::kList only.
  bool rectangular = false;
};

// How a layer turns a query and a key into a score.
struct LayerAttention {
  uint32_t group = 1;  // query heads that share a KV head
  float scale = 1;
  uint32_t rotary_dim = 0;
  const float* inv_freq = nullptr;  // [rotary_dim / 2], of RoPE
};

// One list whose tokens are to be scored.
struct ScoreArgs {
  KvPoolView pool;
  KvList list;
  uint32_t layer;
  uint32_t kv_head;
  uint32_t next_position;  // of the token that comes next
  uint32_t sinks;          // first ranks that stay in any case
  uint64_t seed;           // for policies that draw
  std::span<float> work;   // [policy_work_floats]
  // For policies that see queries.
  std::span<const float> list_state = {};
  LayerAttention attention = {};
  const namm::Scorer* namm = nullptr;  // of learned policies
};

// What a policy works in to score a list of at most `tokens` tokens: as it says, or a block of keys or values as
// floats, and four rows.
size_t policy_work_floats(const Policy& policy, size_t tokens, size_t head_dim);

struct Policy {
  const char* name;
  PositionMode default_positions = PositionMode::kClamped;
  bool evicts = true;        // false: a full cache is an error
  Retention retention = {};  // a user may choose otherwise
  bool is_share = false;     // scores are not negative, like shares of attention: they may be weighted by value_norm

  // Whatever room there is, tokens of a score below this go: when room is made, and when the conversation has come to a
  // multiple of `interval` tokens (0: only then).
  float drop_below = -std::numeric_limits<float>::infinity();
  uint32_t interval = 0;

  uint32_t state_bytes_per_slot = 0;
  uint32_t state_rows = 1;  // KvLayout::state_rows
  // What it remembers of every list, zero at first; null: nothing.
  uint32_t (*list_state_floats)(uint32_t group, uint32_t head_dim) = nullptr;
  Observer observer = {};
  // Higher is worth more; what is not a number counts as least. Null: nothing is scored.
  //   scores [list.length]
  void (*score)(const ScoreArgs& args, std::span<float> scores) = nullptr;
  size_t (*work_floats)(const Policy& policy, size_t tokens, size_t head_dim) = nullptr;

  // Scores by parameters that a session must be given; what its state holds and when it acts follow from them
  // (namm/policy.h), so this is only the name and the defaults.
  bool is_learned = false;
  const namm::Scorer* namm = nullptr;
};

extern const Policy kFullPolicy;
extern const Policy kWindowPolicy;
extern const Policy kRandomPolicy;
extern const Policy kL2Policy;
extern const Policy kKeyDiffPolicy;
extern const Policy kH2oPolicy;
extern const Policy kTovaPolicy;
extern const Policy kSnapKvPolicy;
extern const Policy kPyramidKvPolicy;
extern const Policy kPyramidInferPolicy;
extern const Policy kScissorhandsPolicy;
extern const Policy kFastGenPolicy;
extern const Policy kLagKvPolicy;
extern const Policy kExpectedAttentionPolicy;
extern const Policy kNammPolicy;

std::span<const Policy* const> policies();
// Null when there is none of this name.
const Policy* find_policy(std::string_view name);

}  // namespace lethe
