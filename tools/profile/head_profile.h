// The recency of all heads over several kinds of text, and which KV heads can do without a cache of everything.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/model/model.h"
#include "tools/pack/head_plan.h"
#include "tools/profile/recency.h"

namespace lethe::profile {

// Texts of one kind.
struct Domain {
  std::string name;
  uint32_t sequences, tokens;   // that were read, and of all of them together
  std::vector<Recency> ratios;  // [layers * heads]
};

// A head counts by its least local domain: one that looks nearby in prose and far away where something is asked for is
// needed for what is far away (as DuoAttention, arXiv 2410.10819, finds its retrieval heads). A KV head counts by the
// least local of the query heads that share it, because its cache can go only when none of them needs it.
struct HeadProfile {
  ModelConfig config;
  RecencyOptions options;
  std::vector<Domain> domains;  // at least one

  Recency head(uint32_t layer, uint32_t head) const;
  Recency group(uint32_t layer, uint32_t kv_head) const;
  // Layers that have a window themselves have nothing to save.
  bool can_go(uint32_t layer) const { return !config.is_local(layer); }
};

// How much is to be saved.
struct Wish {
  std::optional<uint32_t> groups = {};  // KV heads; as many as there are at most
  std::optional<double> beta = {};      // all KV heads with a ratio (first tokens counted) above it
  std::optional<double> share = {};     // of the bytes of a cache of the trained length: as many KV heads as that takes
};

// Windows for the most local KV heads, ranked by Recency::near_or_first. An empty wish: no window.
HeadPlan choose_windows(const HeadProfile& profile, const Wish& wish);

// Share of the bytes of a full cache of the trained length that a plan saves, with windows of whole blocks.
double saved_share(const ModelConfig& config, const HeadPlan& plan);

// An SVG picture: layers from top to bottom, query heads from left to right, the brighter the more local; the frames
// are KV heads that the plan gives a window.
std::string heat_map(const HeadProfile& profile, const HeadPlan& plan);

}  // namespace lethe::profile
