// CacheManager: makes room in a KvPool by a policy, so that the cache never outgrows its blocks.
#pragma once

#include <cstdint>
#include <span>

#include "runtime/base/status.h"
#include "runtime/cache/kv_pool.h"
#include "runtime/cache/policy.h"
#include "runtime/memory/arena.h"

namespace lethe {

struct CacheOptions {
  uint32_t sinks = 4;  // first tokens that are never dropped
  // An eviction leaves at most this many eighths of the capacity, so that its cost is shared by many tokens. 1-8.
  uint32_t low_water_eighths = 7;
  uint32_t recent_percent = 100;  // Policy::recent_percent, or what the user wants instead
  uint64_t seed = 0;              // for policies that draw
  // Tokens that a query of a layer sees, itself included; 0: all. What lies behind a window is dropped, and nothing is
  // lost by it. Empty: no layer has a window. Outlives the manager.
  std::span<const uint32_t> windows = {};  // [layers]
  uint32_t longest_step = 0;               // most tokens of make_room, for lists with a window
};

struct CacheStats {
  uint64_t evictions = 0;       // times that make_room shrank lists
  uint64_t evicted_tokens = 0;  // mean over the lists, rounded down
  uint64_t eviction_ns = 0;
  uint32_t last_length = 0;  // tokens of the longest list after the last eviction
};

// Owns nothing: pool and policy must outlive it. Deterministic, allocates nothing, one thread at a time.
class CacheManager {
 public:
  CacheManager() = default;
  CacheManager(const CacheManager&) = delete;
  CacheManager& operator=(const CacheManager&) = delete;

  // Takes work space from `arena` (or measures it); `pool` has been carved. kInvalidArgument for impossible options,
  // kInternal when the arena is too small.
  Status carve(Arena& arena, KvPool& pool, const Policy& policy, const CacheOptions& options);

  // Sees to it that KvPool::begin_append(n) will succeed, between steps. Errors, with nothing changed:
  //   kPromptTooLong  not even an empty cache takes n tokens (with an evicting policy: besides the sinks)
  //   kKvFull         the cache is full and the policy never evicts
  Status make_room(uint32_t n);

  // Between steps: brings every list below `capacity` tokens (above sinks, at most the pool's capacity), by the policy.
  // kKvFull when the policy never evicts and a list is longer; then nothing changes.
  Status shrink(uint32_t capacity);

  // The longest step that make_room can ever grant. 0 when the pool cannot even hold the sinks and one token.
  uint32_t longest_step() const;

  // Whether a conversation may go on for ever: the policy evicts, or windows bound every list.
  bool endless() const;

  const Policy& policy() const { return *policy_; }
  CacheStats stats() const;
  void reset_stats();

 private:
  uint32_t window(uint32_t layer) const { return options_.windows.empty() ? 0 : options_.windows[layer]; }
  bool is_bounded(uint32_t layer) const;
  Status drop_unseen();
  std::span<uint64_t> clear_keep_bits(uint32_t length);
  uint32_t target_length(uint32_t length, uint32_t n, uint32_t capacity) const;
  void select(uint32_t layer, uint32_t kv_head, uint32_t target, std::span<uint64_t> keep);
  template <typename Wanted>
  Status evict(uint32_t n, uint32_t capacity, Wanted wanted);
  Status shrink_list(uint32_t layer, uint32_t kv_head, uint32_t target);

  KvPool* pool_ = nullptr;
  const Policy* policy_ = nullptr;
  CacheOptions options_;
  std::span<uint64_t> keep_bits_;  // [tokens of all blocks / 64]: one list may own them all
  std::span<float> scores_;        // [token capacity] of the list that shrinks, when the policy scores
  std::span<uint32_t> ranks_;      // [token capacity] likewise
  std::span<float> work_;          // [policy_work_floats] likewise
  CacheStats stats_;
  uint64_t evicted_slots_ = 0;  // summed over lists
};

}  // namespace lethe
