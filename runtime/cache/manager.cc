#include "runtime/cache/manager.h"

#include <algorithm>

#include "runtime/os/process.h"

namespace lethe {

Status CacheManager::carve(Arena& arena, KvPool& pool, const Policy& policy, const CacheOptions& options) {
  if (options.low_water_eighths < 1 || options.low_water_eighths > 8) {
    return Status::error(ErrorCode::kInvalidArgument, "a low water mark of %u eighths: it must be 1 to 8",
                         options.low_water_eighths);
  }
  pool_ = &pool;
  policy_ = &policy;
  options_ = options;
  keep_bits_ = arena.take<uint64_t>((uint64_t{pool.block_count()} * kBlockSlots + 63) / 64);
  if (!arena.ok()) return Status::error(ErrorCode::kInternal, "the arena is too small for the cache's work space");
  reset_stats();
  return {};
}

Status CacheManager::make_room(uint32_t n) {
  if (n > longest_step()) {
    return Status::error(ErrorCode::kPromptTooLong,
                         "a step of %u tokens: the cache of %llu bytes holds %u tokens and policy %s takes at most %u "
                         "at once",
                         n, static_cast<unsigned long long>(pool_->blocks_bytes()), pool_->token_capacity(),
                         policy_->name, longest_step());
  }
  // No list outgrows an even share of the pool: attention's work space is planned for that length.
  if (pool_->longest() + n <= pool_->token_capacity() && pool_->blocks_needed(n) <= pool_->free_blocks()) return {};
  if (!policy_->evicts()) {
    return Status::error(ErrorCode::kKvFull,
                         "the cache is full: %u tokens are cached, %u more do not fit its %u tokens (%llu bytes), and "
                         "policy %s never evicts",
                         pool_->longest(), n, pool_->token_capacity(),
                         static_cast<unsigned long long>(pool_->blocks_bytes()), policy_->name);
  }
  const uint64_t begin_ns = os::monotonic_ns();
  for (uint32_t layer = 0; layer < pool_->layers(); ++layer) {
    for (uint32_t kv_head = 0; kv_head < pool_->kv_heads(); ++kv_head) {
      const uint32_t length = pool_->list(layer, kv_head).length;
      const uint32_t target = target_length(length, n);
      if (length > target) LETHE_RETURN_IF_ERROR(shrink_list(layer, kv_head, target));
    }
  }
  ++stats_.evictions;
  stats_.eviction_ns += os::monotonic_ns() - begin_ns;
  stats_.last_length = pool_->longest();
  return {};
}

uint32_t CacheManager::longest_step() const {
  const uint32_t capacity = pool_->token_capacity();
  const uint32_t reserved = policy_->evicts() ? options_.sinks : 0;
  return capacity > reserved ? capacity - reserved : 0;
}

CacheStats CacheManager::stats() const {
  CacheStats stats = stats_;
  stats.evicted_tokens = evicted_slots_ / pool_->list_count();
  return stats;
}

void CacheManager::reset_stats() {
  stats_ = {};
  evicted_slots_ = 0;
}

// Tokens that a list may keep when n more must fit. Lists of at most capacity - n tokens leave room for n tokens in
// every list, because the capacity is a whole number of blocks per list.
uint32_t CacheManager::target_length(uint32_t length, uint32_t n) const {
  const uint32_t capacity = pool_->token_capacity();
  const auto low_water = static_cast<uint32_t>(uint64_t{capacity} * options_.low_water_eighths / 8);
  const uint32_t target = std::max(options_.sinks, std::min(low_water, capacity - n));
  if (length <= target) return target;
  // Dropping whole blocks lets a window be compacted by relinking blocks, without moving bytes.
  const uint32_t dropped = (length - target + kBlockSlots - 1) / kBlockSlots * kBlockSlots;
  return dropped <= length - options_.sinks ? length - dropped : target;
}

Status CacheManager::shrink_list(uint32_t layer, uint32_t kv_head, uint32_t target) {
  const KvList before = pool_->list(layer, kv_head);
  const std::span<uint64_t> keep = keep_bits_.first((before.length + 63) / 64);
  std::fill(keep.begin(), keep.end(), 0);
  policy_->select({pool_->view(), before, layer, kv_head, target, options_.sinks}, keep);
  LETHE_RETURN_IF_ERROR(pool_->compact(layer, kv_head, keep));
  const uint32_t after = pool_->list(layer, kv_head).length;
  evicted_slots_ += before.length - after;
  if (after <= target) return {};
  return Status::error(ErrorCode::kInternal, "policy %s kept %u of %u tokens where %u may stay", policy_->name, after,
                       before.length, target);
}

}  // namespace lethe
