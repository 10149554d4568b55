#include "runtime/cache/manager.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/cache/list_reader.h"
#include "runtime/os/process.h"

namespace lethe {
namespace {

// Between the most and the least that a layer keeps of the tokens that are chosen by score (PyramidKV, beta).
constexpr uint32_t kPyramidSteepness = 20;

// Sets the bits [begin, end).
void keep_ranks(std::span<uint64_t> keep_bits, uint32_t begin, uint32_t end) {
  for (uint32_t rank = begin; rank < end; ++rank) keep_bits[rank / 64] |= uint64_t{1} << rank % 64;
}

// Calls visit(entry) for every token of one list, in order.
template <typename Visit>
void for_each_entry(std::span<const Worth> worths, Visit visit) {
  auto newer = static_cast<uint32_t>(worths.size());
  for (const Worth worth : worths) visit(entry_of(worth, --newer));
}

// Of one list: gives `mark` to the tokens that are (or are not) among the best `count`.
void mark_best(std::span<Worth> worths, uint64_t count, bool best, Worth mark) {
  if (worths.size() - static_cast<size_t>(std::count(worths.begin(), worths.end(), kGone)) <= count) {
    if (!best) return;
    for (Worth& worth : worths) worth = worth == kGone ? kGone : mark;
    return;
  }
  Cut cut = find_cut(count, [&](auto visit) { for_each_entry(worths, visit); });
  auto newer = static_cast<uint32_t>(worths.size());
  for (Worth& worth : worths) {
    if (cut.keeps(entry_of(worth, --newer)) == best) worth = mark;
  }
}

float pooled(const Pooling& pooling, std::span<const float> scores, uint32_t rank) {
  if (pooling.kind == PoolKind::kNone) return scores[rank];
  const uint32_t reach = pooling.width / 2;
  const uint32_t begin = rank - std::min(rank, reach);
  const auto end = static_cast<uint32_t>(std::min<uint64_t>(uint64_t{rank} + reach + 1, scores.size()));
  float sum = 0, most = -std::numeric_limits<float>::infinity();
  for (uint32_t i = begin; i < end; ++i) {
    sum += scores[i];
    most = std::max(most, scores[i]);
  }
  return pooling.kind == PoolKind::kMax ? most : sum / static_cast<float>(pooling.width);
}

Status check_options(const Policy& policy, const CacheOptions& options) {
  const Retention& retention = options.retention;
  const auto refuse = [](const char* what, uint32_t value, const char* allowed) {
    return Status::error(ErrorCode::kInvalidArgument, "%s is %u: %s", what, value, allowed);
  };
  if (options.low_water_eighths < 1 || options.low_water_eighths > 8) {
    return refuse("the low water mark, in eighths,", options.low_water_eighths, "it must be 1 to 8");
  }
  if (retention.recent_percent > 100) {
    return refuse("the share of recent tokens, in percent,", retention.recent_percent, "at most 100");
  }
  if (options.guaranteed_percent > 100) {
    return refuse("the guaranteed share, in percent,", options.guaranteed_percent, "at most 100");
  }
  if (retention.pooling.width % 2 == 0 || retention.pooling.width > kMaxPoolWidth) {
    return refuse("the width of pooling", retention.pooling.width, "it must be odd, and at most 255");
  }
  if (retention.rectangular && retention.budget != Budget::kList) {
    return Status::error(ErrorCode::kInvalidArgument,
                         "lists that compete have different lengths: they cannot be rectangular");
  }
  if (policy.is_learned && policy.namm == nullptr) {
    return Status::error(ErrorCode::kInvalidArgument, "policy %s has no parameters", policy.name);
  }
  if (retention.value_norm && !policy.is_share) {
    return Status::error(ErrorCode::kInvalidArgument,
                         "scores of policy %s may be negative: they cannot be weighted by the norm of the values",
                         policy.name);
  }
  return {};
}

}  // namespace

// ---- Room --------------------------------------------------------------------------------------------------------

Status CacheManager::carve(Arena& arena, KvPool& pool, const Policy& policy, const CacheOptions& options) {
  LETHE_RETURN_IF_ERROR(check_options(policy, options));
  pool_ = &pool;
  policy_ = &policy;
  options_ = options;
  const uint64_t longest = pool.token_capacity(), all = uint64_t{pool.block_count()} * kBlockSlots;
  uint64_t competing = longest;
  if (budget() == Budget::kLayer || options.retention.rectangular) {
    competing = std::min(all, longest * pool.kv_heads());
  }
  if (budget() == Budget::kGlobal) competing = all;
  keep_bits_ = arena.take<uint64_t>((longest + 63) / 64);
  worths_ = arena.take<Worth>(policy.evicts ? competing : 0);
  scores_ = arena.take<float>(scores() ? longest : 0);
  work_ = arena.take<float>(scores() ? policy_work_floats(policy, longest, pool.layout().head_dim) : 0);
  const bool hands_over = policy.evicts && options.hand_over != HandOver::kNone;
  hand_over_work_ = arena.take<float>(
      hands_over ? hand_over_work_floats(options.hand_over, pool.layout().head_dim, pool.token_capacity()) : 0);
  if (!arena.ok()) return Status::error(ErrorCode::kInternal, "the arena is too small for the cache's work space");
  clear();
  return {};
}

Status CacheManager::make_room(uint32_t n, uint32_t position) {
  if (n > longest_step()) {
    return Status::error(ErrorCode::kPromptTooLong,
                         "a step of %u tokens: the cache of %llu bytes holds %u tokens and policy %s takes at most %u "
                         "at once",
                         n, static_cast<unsigned long long>(pool_->blocks_bytes()), share(), policy_->name,
                         longest_step());
  }
  LETHE_RETURN_IF_ERROR(drop_unseen());
  // No list outgrows the capacity: attention's work space is planned for that length.
  const bool fits =
      uint64_t{pool_->longest()} + n <= pool_->token_capacity() && pool_->blocks_needed(n) <= pool_->free_blocks();
  const uint32_t passed = interval() == 0 ? 0 : position / interval();
  if (fits && passed <= intervals_) return {};
  if (!policy_->evicts) {
    return Status::error(ErrorCode::kKvFull,
                         "the cache is full: %u tokens are cached, %u more do not fit its %u tokens (%llu bytes), and "
                         "policy %s never evicts",
                         pool_->longest(), n, share(), static_cast<unsigned long long>(pool_->blocks_bytes()),
                         policy_->name);
  }
  intervals_ = passed;
  return evict(aim_for(n, position, share(), fits));
}

Status CacheManager::shrink(uint32_t share, uint32_t position) {
  LETHE_RETURN_IF_ERROR(drop_unseen());
  const Aim aim = aim_for(0, position, share, false);
  uint64_t blocks = 0, fit = 0;
  uint32_t longest = 0;
  for_each_list(0, pool_->list_count(), aim, [&](uint32_t index) {
    longest = std::max(longest, list_at(index).length);
    blocks += kv_blocks_of_tokens(list_at(index).length);
    fit += share / kBlockSlots;
  });
  if (longest <= longest_list(budget(), share) && blocks <= fit) return {};
  if (!policy_->evicts) {
    return Status::error(ErrorCode::kKvFull, "%u tokens are cached, %u would fit, and policy %s never evicts", longest,
                         share, policy_->name);
  }
  return evict(aim);
}

Status CacheManager::pin(TokenRange range) {
  Pins pins = pins_;
  LETHE_RETURN_IF_ERROR(pins.add(range));
  LETHE_RETURN_IF_ERROR(check_pins(pins));
  pins_ = pins;
  return {};
}

Status CacheManager::check_pins(const Pins& pins) const {
  const uint32_t step = std::max(options_.longest_step, 1u) + budget_slack(budget());
  if (!policy_->evicts || reserved(pins) + step <= share()) return {};
  return Status::error(
      ErrorCode::kRamTooSmall,
      "%llu first and pinned tokens and a step of %u do not fit the cache of %u tokens: raise the cap, "
      "take a smaller prefill chunk or pin less",
      static_cast<unsigned long long>(reserved(pins)), step, share());
}

uint32_t CacheManager::longest_step() const {
  const uint64_t taken = policy_->evicts ? reserved() + budget_slack(budget()) : 0;
  return share() > taken ? static_cast<uint32_t>(share() - taken) : 0;
}

uint32_t CacheManager::longest_step(uint32_t position) const {
  const uint32_t longest = longest_step();
  return interval() == 0 ? longest : std::min(longest, interval() - position % interval());
}

// A list that never needs all the blocks that others have. They are its own: to drop more would only lose what can be
// seen.
bool CacheManager::is_bounded(uint32_t list_index, uint32_t share) const {
  const Sight seen = sight(list_index);
  return seen.window != 0 && kv_window_blocks(seen, options_.longest_step) <= share / kBlockSlots;
}

bool CacheManager::is_bounded_layer(uint32_t layer, uint32_t share) const {
  bool bounded = true;
  for (uint32_t kv_head = 0; kv_head < pool_->kv_heads(); ++kv_head) {
    bounded = bounded && is_bounded(layer * pool_->kv_heads() + kv_head, share);
  }
  return bounded;
}

bool CacheManager::endless() const {
  if (policy_->evicts) return true;
  for (uint32_t layer = 0; layer < pool_->layers(); ++layer) {
    if (!is_bounded_layer(layer, share())) return false;
  }
  return true;
}

// Drops, in whole blocks, what lies between the first tokens that are seen and the windows of all queries to come. By
// rank: positions are at least as far apart.
Status CacheManager::drop_unseen() {
  for (uint32_t index = 0; index < options_.sights.size(); ++index) {
    const auto [sinks, window] = sight(index);
    if (window == 0) continue;
    const uint32_t length = list_at(index).length;
    const uint64_t needed = uint64_t{sinks} + window - 1;
    if (length < needed + kBlockSlots) continue;
    const auto unseen = static_cast<uint32_t>((length - needed) / kBlockSlots * kBlockSlots);
    const std::span<uint64_t> keep = clear_keep_bits(length);
    keep_ranks(keep, 0, sinks);
    keep_ranks(keep, sinks + unseen, length);
    LETHE_RETURN_IF_ERROR(pool_->compact(index / pool_->kv_heads(), index % pool_->kv_heads(), keep));
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

void CacheManager::clear() {
  pins_.clear();
  intervals_ = 0;
  stats_ = {};
  evicted_slots_ = 0;
}

// ---- Eviction ----------------------------------------------------------------------------------------------------

// So that n more tokens fit an even share of `share` tokens. Lists of share - n tokens leave room for n in every list,
// because a share is a whole number of blocks; lists of different lengths have blocks that are not full besides.
CacheManager::Aim CacheManager::aim_for(uint32_t n, uint32_t position, uint32_t share, bool only_wishes) const {
  const auto below_mark = [&](uint32_t tokens) {
    return static_cast<uint32_t>(uint64_t{tokens} * options_.low_water_eighths / 8);
  };
  const uint32_t room = n + budget_slack(budget()), longest = longest_list(budget(), share);
  const auto always = static_cast<uint32_t>(reserved());
  return {.position = position,
          .share = share,
          .target = std::max(always, std::min(below_mark(share), share - std::min(share, room))),
          .longest = std::max(always, std::min(below_mark(longest), longest - std::min(longest, n))),
          .only_wishes = only_wishes};
}

uint32_t CacheManager::recent_tokens(uint32_t target) const {
  const uint32_t percent = scores() ? options_.retention.recent_percent : 100;
  return static_cast<uint32_t>((target - std::min<uint64_t>(target, reserved())) * percent / 100);
}

// What the lists of a layer keep each, when they do not compete.
uint32_t CacheManager::layer_target(uint32_t layer, const Aim& aim) const {
  if (budget() != Budget::kPyramid) return aim.target;
  uint32_t layers = 0, above = 0;
  for (uint32_t i = 0; i < pool_->layers(); ++i) {
    if (is_bounded_layer(i, aim.share)) continue;
    ++layers;
    above += i < layer ? 1 : 0;
  }
  if (layers < 2) return aim.target;
  const auto stays = std::min(aim.target, static_cast<uint32_t>(reserved()) + recent_tokens(aim.target));
  const uint32_t chosen = aim.target - stays, least = chosen / kPyramidSteepness, most = 2 * chosen - least;
  const uint32_t step = layers - 1;  // rounded so that the mean is at most the target
  return stays + most - static_cast<uint32_t>((uint64_t{above} * (most - least) + step - 1) / step);
}

template <typename Visit>
void CacheManager::for_each_list(uint32_t first, uint32_t end, const Aim& aim, Visit visit) const {
  for (uint32_t index = first; index < end; ++index) {
    if (!is_bounded(index, aim.share)) visit(index);
  }
}
template <typename Visit>
void CacheManager::for_each_list(uint32_t first, uint32_t end, const Aim& aim, std::span<Worth> worths,
                                 Visit visit) const {
  size_t at = 0;
  for_each_list(first, end, aim, [&](uint32_t index) {
    const std::span<Worth> of_list = worths.subspan(at, list_at(index).length);
    at += of_list.size();
    visit(index, of_list);
  });
}

Status CacheManager::evict(const Aim& aim) {
  const uint64_t begin_ns = os::monotonic_ns();
  const EvictionReport before = stats_.last;
  stats_.last = {};
  const uint32_t lists = pool_->list_count();
  const uint32_t competing = budget() == Budget::kGlobal ? lists : budget() == Budget::kLayer ? pool_->kv_heads() : 1;
  const uint32_t together = options_.retention.rectangular ? pool_->kv_heads() : competing;
  for (uint32_t first = 0; first < lists; first += together) {
    LETHE_RETURN_IF_ERROR(evict_among(first, first + together, competing, aim));
  }
  const uint64_t ns = os::monotonic_ns() - begin_ns;
  stats_.eviction_ns += ns;
  if (stats_.last.lists == 0) {
    stats_.last = before;
    return {};
  }
  stats_.last.ns = ns;
  stats_.last.began_ns = begin_ns;
  stats_.last_length = pool_->longest();
  ++stats_.evictions;
  return {};
}

// Evicts from lists that are rated together; of these, every `competing` share what they may keep.
Status CacheManager::evict_among(uint32_t first_list, uint32_t end_list, uint32_t competing, const Aim& aim) {
  bool due = aim.only_wishes;
  for (uint32_t first = first_list; first < end_list; first += competing) {
    uint64_t tokens = 0;
    for_each_list(first, first + competing, aim, [&](uint32_t index) {
      tokens += list_at(index).length;
      due = due || list_at(index).length > aim.longest;
    });
    due = due || tokens > allowed_tokens(first, first + competing, aim);
  }
  if (!due) return {};
  for_each_list(first_list, end_list, aim, worths_,
                [&](uint32_t index, std::span<Worth> worths) { rate(index, aim, worths); });
  if (options_.retention.rectangular) make_rectangular(first_list, end_list, aim);
  std::span<Worth> worths = worths_;
  for (uint32_t first = first_list; first < end_list; first += competing) {
    uint64_t tokens = 0;
    for_each_list(first, first + competing, aim, [&](uint32_t index) { tokens += list_at(index).length; });
    LETHE_RETURN_IF_ERROR(cut_among(first, first + competing, worths.first(tokens), aim));
    worths = worths.subspan(tokens);
  }
  return {};
}

uint64_t CacheManager::allowed_tokens(uint32_t first_list, uint32_t end_list, const Aim& aim) const {
  uint64_t allowed = 0;
  for_each_list(first_list, end_list, aim,
                [&](uint32_t index) { allowed += layer_target(index / pool_->kv_heads(), aim); });
  return allowed;
}

// Of rated lists whose worths are those of scores: keeps the best of each, as many as are above drop_below in the list
// that has the most.
void CacheManager::make_rectangular(uint32_t first_list, uint32_t end_list, const Aim& aim) {
  const Worth least = worth_of(policy_->drop_below);
  int64_t most = 0;
  for_each_list(first_list, end_list, aim, worths_, [&](uint32_t, std::span<const Worth> worths) {
    most = std::max(most, std::count_if(worths.begin(), worths.end(), [&](Worth worth) { return worth >= least; }));
  });
  for_each_list(first_list, end_list, aim, worths_, [&](uint32_t, std::span<Worth> worths) {
    mark_best(worths, static_cast<uint64_t>(most), false, kGone);
  });
}

// Keeps what the lists [first, end) may keep together, by the worths of all their tokens.
Status CacheManager::cut_among(uint32_t first_list, uint32_t end_list, std::span<Worth> worths, const Aim& aim) {
  Cut cut;
  const uint64_t allowed = allowed_tokens(first_list, end_list, aim);
  const uint64_t left = worths.size() - static_cast<size_t>(std::count(worths.begin(), worths.end(), kGone));
  if (left > allowed && !aim.only_wishes) {
    cut = find_cut(allowed, [&](auto visit) {
      for_each_list(first_list, end_list, aim, worths,
                    [&](uint32_t, std::span<const Worth> of_list) { for_each_entry(of_list, visit); });
    });
  }
  Status status;
  for_each_list(first_list, end_list, aim, worths, [&](uint32_t index, std::span<const Worth> of_list) {
    if (status.ok()) status = compact(index, of_list, cut);
  });
  return status;
}

// What every token of a list is worth in this eviction.
void CacheManager::rate(uint32_t list_index, const Aim& aim, std::span<Worth> worths) {
  const auto length = static_cast<uint32_t>(worths.size());
  uint32_t recent = recent_tokens(aim.target);
  if (!scores()) {
    // Dropping whole blocks lets a window be compacted by relinking blocks, without moving bytes.
    const auto always = static_cast<uint32_t>(reserved());
    const uint32_t beyond = length - std::min(length, aim.target);
    const uint32_t dropped = (beyond + kBlockSlots - 1) / kBlockSlots * kBlockSlots;
    if (dropped + always <= length) recent = length - always - dropped;
    std::fill(worths.begin(), worths.end(), kGone);
  }
  const uint32_t end = length - std::min(length, recent);
  if (scores()) rate_by_score(list_index, aim, end, worths);
  const auto keep = [&](uint32_t begin_rank, uint32_t end_rank) {
    std::fill(worths.begin() + std::min(begin_rank, length), worths.begin() + std::min(end_rank, length), kStays);
  };
  keep(0, options_.sinks);
  for (const TokenRange& range : pins_.ranges()) {
    const KvPoolView view = pool_->view();
    keep(rank_of_position(view, list_at(list_index), range.begin),
         rank_of_position(view, list_at(list_index), range.end));
  }
  keep(end, length);
  if (budget() == Budget::kLayer || budget() == Budget::kGlobal) {
    mark_best(worths, aim.longest, false, kGone);
    mark_best(worths, uint64_t{aim.target} * options_.guaranteed_percent / 100, true, kStays);
  }
}

// By the policy's scores, of the tokens before rank `end`.
void CacheManager::rate_by_score(uint32_t list_index, const Aim& aim, uint32_t end, std::span<Worth> worths) {
  const Retention& retention = options_.retention;
  const KvPoolView view = pool_->view();
  const KvList& list = list_at(list_index);
  const std::span<float> scores = scores_.first(list.length);
  const uint32_t layer = list_index / pool_->kv_heads(), kv_head = list_index % pool_->kv_heads();
  policy_->score({.pool = view,
                  .list = list,
                  .layer = layer,
                  .kv_head = kv_head,
                  .next_position = aim.position,
                  .sinks = options_.sinks,
                  .seed = options_.seed,
                  .work = work_,
                  .list_state = pool_->list_state(layer, kv_head),
                  .attention = options_.attention.empty() ? LayerAttention{} : options_.attention[layer],
                  .namm = policy_->namm},
                 scores);
  for_each_block(view, list, [&](const uint8_t* block, uint32_t rank, uint32_t count) {
    float norms[kBlockSlots];
    if (retention.value_norm) value_norms(view.layout, block, work_.data(), norms);
    for (uint32_t slot = 0; slot < count && rank + slot < end; ++slot) {
      float score = pooled(retention.pooling, scores.first(end), rank + slot);
      if (retention.value_norm) score *= norms[slot];
      const bool unwanted = score < policy_->drop_below && !retention.rectangular;
      worths[rank + slot] = unwanted ? kGone : worth_of(score);
    }
  });
}

// Drops the tokens below the cut from one list.
Status CacheManager::compact(uint32_t list_index, std::span<const Worth> worths, Cut& cut) {
  const auto length = static_cast<uint32_t>(worths.size());
  const std::span<uint64_t> keep = clear_keep_bits(length);
  uint32_t kept = 0;
  for (uint32_t rank = 0; rank < length; ++rank) {
    if (!cut.keeps(entry_of(worths[rank], length - 1 - rank))) continue;
    keep[rank / 64] |= uint64_t{1} << rank % 64;
    ++kept;
  }
  const uint32_t lost = length - kept;
  if (lost == 0) return {};
  const uint32_t layer = list_index / pool_->kv_heads(), kv_head = list_index % pool_->kv_heads();
  if (sight(list_index).window == 0) {
    hand_over(options_.hand_over, pool_->view(), list_at(list_index), keep, pool_->absorbed(layer, kv_head),
              hand_over_work_);
  }
  LETHE_RETURN_IF_ERROR(pool_->compact(layer, kv_head, keep));
  EvictionReport& report = stats_.last;
  report.fewest = report.lists == 0 ? lost : std::min(report.fewest, lost);
  report.most = std::max(report.most, lost);
  report.tokens += lost;
  ++report.lists;
  evicted_slots_ += lost;
  return {};
}

}  // namespace lethe
