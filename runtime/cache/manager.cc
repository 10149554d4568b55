#include "runtime/cache/manager.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "runtime/os/process.h"

namespace lethe {
namespace {

// Sets the bits [begin, end).
void keep_ranks(std::span<uint64_t> keep_bits, uint32_t begin, uint32_t end) {
  for (uint32_t rank = begin; rank < end; ++rank) keep_bits[rank / 64] |= uint64_t{1} << rank % 64;
}

}  // namespace

Status CacheManager::carve(Arena& arena, KvPool& pool, const Policy& policy, const CacheOptions& options) {
  if (options.low_water_eighths < 1 || options.low_water_eighths > 8) {
    return Status::error(ErrorCode::kInvalidArgument, "a low water mark of %u eighths: it must be 1 to 8",
                         options.low_water_eighths);
  }
  if (options.recent_percent > 100) {
    return Status::error(ErrorCode::kInvalidArgument, "%u percent of the cache for recent tokens: at most 100",
                         options.recent_percent);
  }
  pool_ = &pool;
  policy_ = &policy;
  options_ = options;
  keep_bits_ = arena.take<uint64_t>((uint64_t{pool.block_count()} * kBlockSlots + 63) / 64);
  const bool scores = policy.score != nullptr;
  scores_ = arena.take<float>(scores ? pool.token_capacity() : 0);
  ranks_ = arena.take<uint32_t>(scores ? pool.token_capacity() : 0);
  work_ = arena.take<float>(scores ? policy_work_floats(pool.layout().head_dim) : 0);
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
  LETHE_RETURN_IF_ERROR(drop_unseen());
  // No list outgrows the capacity: attention's work space is planned for that length.
  if (pool_->longest() + n <= pool_->token_capacity() && pool_->blocks_needed(n) <= pool_->free_blocks()) return {};
  if (!policy_->evicts()) {
    return Status::error(ErrorCode::kKvFull,
                         "the cache is full: %u tokens are cached, %u more do not fit its %u tokens (%llu bytes), and "
                         "policy %s never evicts",
                         pool_->longest(), n, pool_->token_capacity(),
                         static_cast<unsigned long long>(pool_->blocks_bytes()), policy_->name);
  }
  // The blocks of a bounded list are its own: dropping more would only lose what can be seen.
  return evict(n, pool_->token_capacity(), [this](uint32_t layer) { return !is_bounded(layer); });
}

Status CacheManager::shrink(uint32_t capacity) {
  LETHE_RETURN_IF_ERROR(drop_unseen());
  if (pool_->longest() <= capacity) return {};
  if (!policy_->evicts()) {
    return Status::error(ErrorCode::kKvFull, "%u tokens are cached, %u would fit, and policy %s never evicts",
                         pool_->longest(), capacity, policy_->name);
  }
  return evict(0, capacity, [](uint32_t) { return true; });
}

// Shrinks the lists of the layers that are wanted, so that n more tokens fit a capacity.
template <typename Wanted>
Status CacheManager::evict(uint32_t n, uint32_t capacity, Wanted wanted) {
  const uint64_t begin_ns = os::monotonic_ns();
  for (uint32_t layer = 0; layer < pool_->layers(); ++layer) {
    if (!wanted(layer)) continue;
    for (uint32_t kv_head = 0; kv_head < pool_->kv_heads(); ++kv_head) {
      const uint32_t length = pool_->list(layer, kv_head).length;
      const uint32_t target = target_length(length, n, capacity);
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

// A list that never needs all the blocks that others have.
bool CacheManager::is_bounded(uint32_t layer) const {
  const uint32_t seen = window(layer);
  return seen != 0 && kv_window_blocks(seen, options_.longest_step) <= pool_->token_capacity() / kBlockSlots;
}

bool CacheManager::endless() const {
  if (policy_->evicts()) return true;
  for (uint32_t layer = 0; layer < pool_->layers(); ++layer) {
    if (!is_bounded(layer)) return false;
  }
  return true;
}

// Drops whole blocks that lie behind the windows of all queries to come. By rank: positions are at least as far apart.
Status CacheManager::drop_unseen() {
  for (uint32_t layer = 0; layer < options_.windows.size(); ++layer) {
    if (window(layer) == 0) continue;
    for (uint32_t kv_head = 0; kv_head < pool_->kv_heads(); ++kv_head) {
      const uint32_t length = pool_->list(layer, kv_head).length, needed = window(layer) - 1;
      const uint32_t unseen = length > needed ? (length - needed) / kBlockSlots * kBlockSlots : 0;
      if (unseen == 0) continue;
      const std::span<uint64_t> keep = clear_keep_bits(length);
      keep_ranks(keep, unseen, length);
      LETHE_RETURN_IF_ERROR(pool_->compact(layer, kv_head, keep));
    }
  }
  return {};
}

std::span<uint64_t> CacheManager::clear_keep_bits(uint32_t length) {
  const std::span<uint64_t> keep = keep_bits_.first((length + 63) / 64);
  std::fill(keep.begin(), keep.end(), 0);
  return keep;
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
uint32_t CacheManager::target_length(uint32_t length, uint32_t n, uint32_t capacity) const {
  const auto low_water = static_cast<uint32_t>(uint64_t{capacity} * options_.low_water_eighths / 8);
  const uint32_t target = std::max(options_.sinks, std::min(low_water, capacity - n));
  if (length <= target || policy_->score != nullptr) return target;
  // Dropping whole blocks lets a window be compacted by relinking blocks, without moving bytes.
  const uint32_t dropped = (length - target + kBlockSlots - 1) / kBlockSlots * kBlockSlots;
  return dropped <= length - options_.sinks ? length - dropped : target;
}

Status CacheManager::shrink_list(uint32_t layer, uint32_t kv_head, uint32_t target) {
  const KvList before = pool_->list(layer, kv_head);
  const std::span<uint64_t> keep = clear_keep_bits(before.length);
  select(layer, kv_head, target, keep);
  LETHE_RETURN_IF_ERROR(pool_->compact(layer, kv_head, keep));
  const uint32_t after = pool_->list(layer, kv_head).length;
  evicted_slots_ += before.length - after;
  return {};
}

// Sets the bits of the `target` tokens that stay: sinks, the newest, and of the others those of the highest scores, the
// newer of equals.
void CacheManager::select(uint32_t layer, uint32_t kv_head, uint32_t target, std::span<uint64_t> keep) {
  const KvList list = pool_->list(layer, kv_head);
  const uint32_t percent = policy_->score == nullptr ? 100 : options_.recent_percent;
  const auto recent = static_cast<uint32_t>(uint64_t{target - options_.sinks} * percent / 100);
  const uint32_t begin = options_.sinks, end = list.length - recent;
  keep_ranks(keep, 0, begin);
  keep_ranks(keep, end, list.length);
  const uint32_t chosen = target - options_.sinks - recent;
  if (chosen == 0) return;
  const std::span<float> scores = scores_.first(list.length);
  policy_->score({pool_->view(), list, layer, kv_head, options_.seed, work_}, scores);
  for (float& score : scores) {
    if (!(score == score)) score = -std::numeric_limits<float>::infinity();  // so that the order below is one
  }
  const std::span<uint32_t> ranks = ranks_.first(end - begin);
  std::iota(ranks.begin(), ranks.end(), begin);
  const auto stays_before = [&](uint32_t a, uint32_t b) {
    return scores[a] != scores[b] ? scores[a] > scores[b] : a > b;
  };
  std::nth_element(ranks.begin(), ranks.begin() + chosen, ranks.end(), stays_before);
  for (const uint32_t rank : ranks.first(chosen)) keep_ranks(keep, rank, rank + 1);
}

}  // namespace lethe
