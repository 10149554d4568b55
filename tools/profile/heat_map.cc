// The picture of a profile.
#include <cmath>

#include "tools/eval/svg.h"
#include "tools/profile/head_profile.h"

namespace lethe::profile {
namespace {

constexpr double kCell = 14, kGap = 4, kLeft = 44, kTop = 58, kMargin = 16;
constexpr int kScaleSteps = 10;

// Viridis (van der Walt and Smith, 2015) at tenths, dark to bright: the same order in grey, and for colour-blind eyes.
constexpr uint8_t kColours[kScaleSteps + 1][3] = {{68, 1, 84},    {72, 36, 117},  {65, 68, 135},  {53, 95, 141},
                                                  {42, 120, 142}, {33, 145, 140}, {34, 168, 132}, {68, 191, 112},
                                                  {122, 209, 81}, {189, 223, 38}, {253, 231, 37}};

std::string colour_of(double ratio) {
  const double at = std::clamp(ratio, 0.0, 1.0) * kScaleSteps;
  const int low = std::min(static_cast<int>(at), kScaleSteps - 1);
  int channels[3];
  for (int i = 0; i < 3; ++i) {
    channels[i] =
        static_cast<int>(std::lround(kColours[low][i] + (at - low) * (kColours[low + 1][i] - kColours[low][i])));
  }
  char text[8];
  snprintf(text, sizeof text, "#%02x%02x%02x", channels[0], channels[1], channels[2]);
  return text;
}

}  // namespace

std::string heat_map(const HeadProfile& profile, const HeadPlan& plan) {
  const ModelConfig& config = profile.config;
  const uint32_t group = config.heads / config.kv_heads;
  const auto left_of = [&](uint32_t head) { return kLeft + head * kCell + head / group * kGap; };
  const auto top_of = [](uint32_t layer) { return kTop + layer * kCell; };
  const double width = std::max(left_of(config.heads) + kMargin, 520.0);
  const double height = top_of(config.layers) + 2 * kCell + kMargin + 26;
  eval::Svg svg;
  svg.add("<svg xmlns='http://www.w3.org/2000/svg' width='%.0f' height='%.0f' font-family='sans-serif' font-size='11'>",
          width, height);
  svg.add("<rect width='100%%' height='100%%' fill='white'/>");
  svg.add("<text x='%.0f' y='20' font-size='13'>Share of attention on the last %u and the first %u tokens</text>",
          kMargin, profile.options.window, profile.options.sinks);
  svg.add(
      "<text x='%.0f' y='36'>%zu kinds of text, the least; query heads from left to right, those of a KV head "
      "together; framed: a window</text>",
      kMargin, profile.domains.size());
  for (uint32_t layer = 0; layer < config.layers; ++layer) {
    svg.add("<text x='%.0f' y='%.1f' text-anchor='end'>%u</text>", kLeft - 6, top_of(layer) + kCell - 3, layer);
    for (uint32_t head = 0; head < config.heads; ++head) {
      const double ratio = profile.head(layer, head).near_or_first;
      svg.add(
          "<rect x='%.1f' y='%.1f' width='%.1f' height='%.1f' fill='%s'><title>layer %u, head %u: %.3f</title></rect>",
          left_of(head), top_of(layer), kCell - 1, kCell - 1, colour_of(ratio).c_str(), layer, head, ratio);
    }
  }
  for (const PlannedWindow& window : plan.windows) {
    svg.add("<rect x='%.1f' y='%.1f' width='%.1f' height='%.1f' fill='none' stroke='#d55e00' stroke-width='1.6'/>",
            left_of(window.kv_head * group) - 1, top_of(window.layer) - 1, group * kCell + 1, kCell + 1);
  }
  const double scale_top = top_of(config.layers) + kCell;
  for (int i = 0; i <= kScaleSteps; ++i) {
    const double x = kLeft + i * 2 * kCell;
    svg.add("<rect x='%.1f' y='%.1f' width='%.1f' height='%.1f' fill='%s'/>", x, scale_top, 2 * kCell, kCell,
            colour_of(static_cast<double>(i) / kScaleSteps).c_str());
    svg.add("<text x='%.1f' y='%.1f' text-anchor='middle'>%.1f</text>", x + kCell, scale_top + kCell + 14,
            static_cast<double>(i) / kScaleSteps);
  }
  svg.raw("</svg>");
  return svg.take();
}

}  // namespace lethe::profile
