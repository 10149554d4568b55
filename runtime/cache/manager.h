// CacheManager: makes room in a KvPool by a policy, so that the cache never outgrows its blocks.
//
// An eviction rates the tokens of every list (first, pinned and newest ones stay, the policy's wishes go, the others
// count by score), cuts the order where the budget ends, and compacts the lists.
#pragma once

#include <cstdint>
#include <span>

#include "runtime/base/status.h"
#include "runtime/cache/hand_over.h"
#include "runtime/cache/kv_pool.h"
#include "runtime/cache/pins.h"
#include "runtime/cache/policy.h"
#include "runtime/cache/select.h"
#include "runtime/memory/arena.h"

namespace lethe {

struct CacheOptions {
  uint32_t sinks = 4;  // first tokens that are never dropped
  // An eviction leaves at most this many eighths of the capacity, so that its cost is shared by many tokens. 1-8.
  uint32_t low_water_eighths = 7;
  Retention retention = {};  // Policy::retention, or what the user wants instead
  // Of what the policy drops. Lists with a window hand nothing over: what they drop would soon be out of sight anyway.
  HandOver hand_over = HandOver::kNone;
  // Where lists compete: the share of an even budget that no list loses to others (alpha of Ada-KV).
  uint32_t guaranteed_percent = 20;
  uint64_t seed = 0;  // for policies that draw
  // What no query sees any more is dropped, and nothing is lost by it. Empty: all is seen. Outlives the manager.
  std::span<const Sight> sights = {};              // [layers * kv_heads]
  std::span<const LayerAttention> attention = {};  // [layers], for policies that see queries. Outlives the manager.
  uint32_t longest_step = 0;                       // most tokens of make_room, for lists with a window and for pins
};

// One eviction. A list counts when it lost tokens.
struct EvictionReport {
  uint32_t lists = 0;
  uint64_t tokens = 0;  // that they lost, summed
  uint32_t fewest = 0;  // that one of them lost
  uint32_t most = 0;
  uint64_t ns = 0;
  uint64_t began_ns = 0;  // os::monotonic_ns
};

struct CacheStats {
  uint64_t evictions = 0;       // times that lists lost tokens to the policy
  uint64_t evicted_tokens = 0;  // mean over all lists, rounded down
  uint64_t eviction_ns = 0;     // of all evictions
  uint32_t last_length = 0;     // tokens of the longest list after the last eviction
  EvictionReport last = {};
};

// Owns nothing: pool and policy must outlive it. Deterministic, allocates nothing, one thread at a time.
class CacheManager {
 public:
  CacheManager() = default;
  CacheManager(const CacheManager&) = delete;
  CacheManager& operator=(const CacheManager&) = delete;

  // Takes work space from `arena` (or measures it); `pool` has been carved with a token capacity of
  // longest_list(retention.budget, even share). kInvalidArgument for impossible options, kInternal when the arena is
  // too small.
  Status carve(Arena& arena, KvPool& pool, const Policy& policy, const CacheOptions& options);

  // Sees to it that KvPool::begin_append(n) will succeed, between steps; `position` is that of the first of the n
  // tokens. Errors, with nothing changed:
  //   kPromptTooLong  not even an empty cache takes n tokens (with an evicting policy: besides what always stays)
  //   kKvFull         the cache is full and the policy never evicts
  Status make_room(uint32_t n, uint32_t position);

  // Between steps: brings the lists to an even share of `share` tokens (a multiple of 32 above reserved(), at most the
  // pool's), by the policy. kKvFull when the policy never evicts and a list is longer; then nothing changes.
  Status shrink(uint32_t share, uint32_t position);

  // Never drops the tokens of a range of positions, of those that are still there and of those to come. (Lists with a
  // window lose what no query can see all the same.) kRamTooSmall when no room would be left for a step;
  // kInvalidArgument for an empty range or too many of them. On an error nothing changes.
  Status pin(TokenRange range);
  const Pins& pins() const { return pins_; }
  Status check_pins(const Pins& pins) const;         // kRamTooSmall as above
  void set_pins(const Pins& pins) { pins_ = pins; }  // checked before
  // Tokens of a list that always stay: the first and the pinned ones.
  uint64_t reserved() const { return reserved(pins_); }

  // The longest step that make_room can ever grant. 0 when the pool cannot hold what always stays and one token.
  uint32_t longest_step() const;
  // The longest one from `position` on that leaves no multiple of the policy's interval behind: whoever takes longer
  // steps lets the policy act later than it asks for.
  uint32_t longest_step(uint32_t position) const;

  // Multiples of the policy's interval at which it has acted: what a saved conversation must know besides its lists.
  uint32_t intervals() const { return intervals_; }
  void set_intervals(uint32_t count) { intervals_ = count; }

  // Whether a conversation may go on for ever: the policy evicts, or windows bound every list.
  bool endless() const;

  const Policy& policy() const { return *policy_; }
  CacheStats stats() const;
  void clear();  // forgets pins and figures

 private:
  // What an eviction brings the lists to.
  struct Aim {
    uint32_t position;  // of the next token
    uint32_t share;     // even share that the pool has
    uint32_t target;    // tokens that a list keeps, the mean where they compete
    uint32_t longest;   // of any list
    bool only_wishes;   // no list is too long: only what the policy wants to drop goes
  };

  Sight sight(uint32_t list_index) const { return options_.sights.empty() ? Sight{} : options_.sights[list_index]; }
  Budget budget() const { return options_.retention.budget; }
  uint32_t share() const { return pool_->token_capacity() / longest_list(budget(), 1); }
  uint64_t reserved(const Pins& pins) const { return options_.sinks + pins.tokens_from(options_.sinks); }
  uint32_t interval() const { return scores() ? policy_->interval : 0; }
  bool scores() const { return policy_->score != nullptr && options_.retention.recent_percent < 100; }
  bool is_bounded(uint32_t list_index, uint32_t share) const;
  bool is_bounded_layer(uint32_t layer, uint32_t share) const;
  Status drop_unseen();

  Aim aim_for(uint32_t n, uint32_t position, uint32_t share, bool only_wishes) const;
  uint32_t layer_target(uint32_t layer, const Aim& aim) const;
  uint32_t recent_tokens(uint32_t target) const;
  Status evict(const Aim& aim);
  Status evict_among(uint32_t first_list, uint32_t end_list, uint32_t competing, const Aim& aim);
  uint64_t allowed_tokens(uint32_t first_list, uint32_t end_list, const Aim& aim) const;
  Status cut_among(uint32_t first_list, uint32_t end_list, std::span<Worth> worths, const Aim& aim);
  void make_rectangular(uint32_t first_list, uint32_t end_list, const Aim& aim);
  void rate(uint32_t list_index, const Aim& aim, std::span<Worth> worths);
  void rate_by_score(uint32_t list_index, const Aim& aim, uint32_t end, std::span<Worth> worths);
  Status compact(uint32_t list_index, std::span<const Worth> worths, Cut& cut);
  std::span<uint64_t> clear_keep_bits(uint32_t length);
  const KvList& list_at(uint32_t index) const {
    return pool_->list(index / pool_->kv_heads(), index % pool_->kv_heads());
  }
  template <typename Visit>  // visit(list index) for the lists of [first, end) that the policy governs
  void for_each_list(uint32_t first, uint32_t end, const Aim& aim, Visit visit) const;
  template <typename Visit>  // visit(list index, the list's part of `worths`), likewise
  void for_each_list(uint32_t first, uint32_t end, const Aim& aim, std::span<Worth> worths, Visit visit) const;

  KvPool* pool_ = nullptr;
  const Policy* policy_ = nullptr;
  CacheOptions options_;
  Pins pins_;
  std::span<uint64_t> keep_bits_;    // [token capacity / 64]
  std::span<Worth> worths_;          // [tokens of all lists that are rated together]
  std::span<float> scores_;          // [token capacity] of one list, when the policy scores
  std::span<float> work_;            // [policy_work_floats] likewise
  std::span<float> hand_over_work_;  // [hand_over_work_floats]
  uint32_t intervals_ = 0;
  CacheStats stats_;
  uint64_t evicted_slots_ = 0;  // summed over lists
};

}  // namespace lethe
