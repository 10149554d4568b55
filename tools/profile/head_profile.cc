#include "tools/profile/head_profile.h"

#include <algorithm>
#include <utility>

#include "runtime/cache/kv_pool.h"

namespace lethe::profile {
namespace {

constexpr uint32_t kStep = 128;  // tokens of the longest automatic prefill step, for which windows leave room

Recency least(const Recency& a, const Recency& b) {
  return {std::min(a.near, b.near), std::min(a.near_or_first, b.near_or_first)};
}

// Share of a cache of the trained length that a window takes no more.
double saved_by_window(const ModelConfig& config, uint32_t sinks, uint32_t window) {
  const uint32_t all = kv_blocks_of_tokens(config.context_length);
  return 1 - static_cast<double>(std::min(all, kv_window_blocks({.sinks = sinks, .window = window}, kStep))) / all;
}

// The KV heads whose lists grow with the text.
double growing_lists(const ModelConfig& config) {
  uint32_t layers = 0;
  for (uint32_t layer = 0; layer < config.layers; ++layer) layers += config.is_local(layer) ? 0 : 1;
  return static_cast<double>(layers) * config.kv_heads;
}

}  // namespace

Recency HeadProfile::head(uint32_t layer, uint32_t head) const {
  Recency ratio = domains[0].ratios[uint64_t{layer} * config.heads + head];
  for (const Domain& domain : domains) ratio = least(ratio, domain.ratios[uint64_t{layer} * config.heads + head]);
  return ratio;
}

Recency HeadProfile::group(uint32_t layer, uint32_t kv_head) const {
  const uint32_t group = config.heads / config.kv_heads;
  Recency ratio = head(layer, kv_head * group);
  for (uint32_t i = 1; i < group; ++i) ratio = least(ratio, head(layer, kv_head * group + i));
  return ratio;
}

HeadPlan choose_windows(const HeadProfile& profile, const Wish& wish) {
  const ModelConfig& config = profile.config;
  HeadPlan plan{config.layers, config.kv_heads, {}};
  for (uint32_t layer = 0; layer < config.layers; ++layer) {
    for (uint32_t kv_head = 0; kv_head < config.kv_heads && profile.can_go(layer); ++kv_head) {
      plan.windows.push_back({layer, kv_head, profile.options.sinks, profile.options.window});
    }
  }
  const auto ratio = [&](const PlannedWindow& window) {
    return profile.group(window.layer, window.kv_head).near_or_first;
  };
  const auto place = [](const PlannedWindow& window) { return std::pair(window.layer, window.kv_head); };
  std::ranges::sort(plan.windows, [&](const auto& a, const auto& b) {
    return ratio(a) != ratio(b) ? ratio(a) > ratio(b) : place(a) < place(b);
  });
  size_t count = 0;
  if (wish.groups) count = *wish.groups;
  if (wish.beta) count = std::ranges::count_if(plan.windows, [&](const auto& w) { return ratio(w) > *wish.beta; });
  if (wish.share) {
    const double each = saved_by_window(config, profile.options.sinks, profile.options.window) / growing_lists(config);
    while (count < plan.windows.size() && static_cast<double>(count) * each < *wish.share) ++count;
  }
  plan.windows.resize(std::min(count, plan.windows.size()));
  std::ranges::sort(plan.windows, {}, [](const auto& w) { return std::pair(w.layer, w.kv_head); });
  return plan;
}

double saved_share(const ModelConfig& config, const HeadPlan& plan) {
  double saved = 0;
  for (const PlannedWindow& window : plan.windows) {
    saved += saved_by_window(config, window.sinks, window.window) / growing_lists(config);
  }
  return saved;
}

}  // namespace lethe::profile
