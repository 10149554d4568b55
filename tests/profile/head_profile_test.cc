// Which KV heads get a window, from ratios that are given.
#include "tools/profile/head_profile.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

namespace lethe::profile {
namespace {

// 3 layers, 2 KV heads of 2 query heads; the second domain is less local in the first query head of every layer.
HeadProfile example() {
  HeadProfile profile{};
  profile.config.layers = 3;
  profile.config.heads = 4;
  profile.config.kv_heads = 2;
  profile.config.context_length = 8192;
  profile.options = {.window = 64, .sinks = 4};
  const double prose[] = {0.9, 0.8, 0.3, 0.9, 0.7, 0.7, 0.95, 0.6, 0.5, 0.5, 0.99, 0.98};
  profile.domains = {{"prose", 1, 1024, {}}, {"recall", 1, 1024, {}}};
  for (size_t i = 0; i < std::size(prose); ++i) {
    profile.domains[0].ratios.push_back({prose[i] - 0.1, prose[i]});
    profile.domains[1].ratios.push_back(i % 4 == 0 ? Recency{0.35, 0.4} : Recency{1, 1});
  }
  return profile;
}

std::vector<std::pair<uint32_t, uint32_t>> places(const HeadPlan& plan) {
  std::vector<std::pair<uint32_t, uint32_t>> places;
  for (const PlannedWindow& window : plan.windows) places.emplace_back(window.layer, window.kv_head);
  return places;
}

using Places = std::vector<std::pair<uint32_t, uint32_t>>;

TEST_CASE("a KV head counts by its least local query head over the least local text") {
  const HeadProfile profile = example();
  CHECK(profile.head(0, 0).near_or_first == 0.4);
  CHECK(profile.head(0, 1).near_or_first == 0.8);
  CHECK(profile.group(0, 0).near_or_first == 0.4);
  CHECK(profile.group(0, 0).near == 0.35);
  CHECK(profile.group(0, 1).near_or_first == 0.3);
  CHECK(profile.group(1, 1).near_or_first == 0.6);
  CHECK(profile.group(2, 1).near_or_first == 0.98);
}

TEST_CASE("the most local KV heads get the windows") {
  const HeadProfile profile = example();
  CHECK(choose_windows(profile, {}).windows.empty());
  CHECK(places(choose_windows(profile, {.groups = 2})) == Places{{1, 1}, {2, 1}});
  CHECK(places(choose_windows(profile, {.groups = 3})) == Places{{0, 0}, {1, 1}, {2, 1}});  // of equals the first
  CHECK(choose_windows(profile, {.groups = 100}).windows.size() == 6);
  CHECK(places(choose_windows(profile, {.beta = 0.6})) == Places{{2, 1}});
  CHECK(places(choose_windows(profile, {.beta = 0.39})) == Places{{0, 0}, {1, 0}, {1, 1}, {2, 0}, {2, 1}});
}

TEST_CASE("a saving is counted in whole blocks, of what grows") {
  HeadProfile profile = example();
  // 68 tokens, a step of 128 and a block that is not dropped yet: 226 tokens, 8 of the 256 blocks of 8,192 tokens.
  const double each = 1 - 8.0 / 256;
  const HeadPlan plan = choose_windows(profile, {.share = 0.3});
  CHECK(plan.windows.size() == 2);
  CHECK(saved_share(profile.config, plan) == doctest::Approx(2 * each / 6));
  CHECK(choose_windows(profile, {.share = 1.0}).windows.size() == 6);  // more than there is to save
  CHECK(choose_windows(profile, {.share = 0.0}).windows.empty());
  // A layer with a window of its own takes no part, neither in the plan nor in what the cache is.
  profile.config.set_local(2);
  CHECK(places(choose_windows(profile, {.groups = 2})) == Places{{0, 0}, {1, 1}});
  CHECK(saved_share(profile.config, choose_windows(profile, {.groups = 2})) == doctest::Approx(2 * each / 4));
}

TEST_CASE("the plan's file and the picture name the windows") {
  const HeadProfile profile = example();
  const HeadPlan plan = choose_windows(profile, {.groups = 2});
  const auto json = nlohmann::json::parse(head_plan_json(plan));
  CHECK(json == nlohmann::json::parse(R"({"layers": 3, "kv_heads": 2, "windows": [
    {"layer": 1, "kv_head": 1, "sinks": 4, "window": 64}, {"layer": 2, "kv_head": 1, "sinks": 4, "window": 64}]})"));
  const std::string svg = heat_map(profile, plan);
  const auto count = [&](const char* part) {
    size_t found = 0;
    for (size_t at = svg.find(part); at != std::string::npos; at = svg.find(part, at + 1)) ++found;
    return found;
  };
  CHECK(count("<title>") == 12);
  CHECK(count("stroke='#d55e00'") == 2);
  CHECK(svg.find("layer 2, head 3: 0.980") != std::string::npos);
}

}  // namespace
}  // namespace lethe::profile
