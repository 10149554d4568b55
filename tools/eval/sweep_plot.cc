// plot.svg of a sweep: small panels, bytes of the cache on a logarithmic axis, quality on a linear one.
#include <algorithm>
#include <cmath>

#include "tools/eval/svg.h"
#include "tools/eval/sweep.h"

namespace lethe::eval {
namespace {

// Okabe and Ito's colours without yellow (it does not show on white), then darker ones; markers tell apart what colours
// do not.
constexpr const char* kColours[] = {"#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00",
                                    "#56B4E9", "#7F3C8D", "#8C564B", "#4D7C0F", "#B91C1C", "#475569"};
constexpr double kWidth = 400, kHeight = 300, kLeft = 66, kRight = 14, kTop = 44, kBottom = 48;
constexpr double kLegendStep = 150, kLegendLine = 20, kMargin = 16;

void marker(Svg& svg, size_t series, double x, double y, const char* colour) {
  switch ((series + series / std::size(kColours)) % 3) {
    case 0: svg.add("<circle cx='%.1f' cy='%.1f' r='3.5' fill='%s'/>", x, y, colour); break;
    case 1: svg.add("<rect x='%.1f' y='%.1f' width='7' height='7' fill='%s'/>", x - 3.5, y - 3.5, colour); break;
    default: svg.add("<path d='M%.1f %.1f l4.2 7 h-8.4 z' fill='%s'/>", x, y - 4.2, colour);
  }
}

std::string bytes_label(double bytes) {
  const bool mib = bytes >= 1 << 20;
  char text[32];
  snprintf(text, sizeof text, "%.3g %s", bytes / (mib ? 1 << 20 : 1 << 10), mib ? "MiB" : "KiB");
  return text;
}

struct Point {
  double bytes;
  Spread value;
};

struct Panel {
  std::string title;
  Metric metric;
  std::vector<std::pair<size_t, std::vector<Point>>> lines;  // index of the policy, points from left to right
};

// The vertical axis: where a value stands between the bottom (0) and the top (1), and where ticks are.
struct Axis {
  double low, high;  // transformed
  bool logarithmic;
  std::vector<double> ticks;

  double transformed(double value) const { return logarithmic ? std::log10(std::max(value, kLeastLogarithm)) : value; }
  double place(double value) const { return (transformed(value) - low) / (high - low); }

  static constexpr double kLeastLogarithm = 1e-4;  // what is less is drawn there
};

Axis axis_of(const Panel& panel) {
  Axis axis{INFINITY, -INFINITY, panel.metric.scale == Scale::kLogarithmic, {}};
  for (const auto& [policy, points] : panel.lines) {
    for (const Point& point : points) {
      const auto [mean, deviation] = point.value;
      axis.low = std::min(axis.low, axis.transformed(axis.logarithmic ? mean : mean - deviation));
      axis.high = std::max(axis.high, axis.transformed(mean + deviation));
    }
  }
  if (panel.metric.scale == Scale::kShare) axis.low = 0, axis.high = 1;
  const double step = axis.logarithmic ? 1 : round_step(std::max(axis.high - axis.low, 1e-9), 5);
  axis.low = std::floor(axis.low / step + 1e-9) * step;
  axis.high = std::max(std::ceil(axis.high / step - 1e-9) * step, axis.low + step);
  for (int i = 0; axis.low + i * step <= axis.high + step / 2; ++i) {
    const double at = std::abs(axis.low + i * step) < step / 2 ? 0 : axis.low + i * step;
    axis.ticks.push_back(axis.logarithmic ? std::pow(10, at) : at);
  }
  return axis;
}

void draw_panel(Svg& svg, const Panel& panel, double left, double top) {
  double least = INFINITY, most = -INFINITY;
  for (const auto& [policy, points] : panel.lines) {
    for (const Point& point : points) least = std::min(least, point.bytes), most = std::max(most, point.bytes);
  }
  const Axis axis = axis_of(panel);
  const double first = std::floor(std::log2(least) * 2) / 2 - 0.1, last = std::max(std::log2(most) + 0.15, first + 1);
  const double x0 = left + kLeft, x1 = left + kWidth - kRight, y0 = top + kHeight - kBottom, y1 = top + kTop;
  const auto x_of = [&](double bytes) { return x0 + (std::log2(bytes) - first) / (last - first) * (x1 - x0); };
  const auto y_of = [&](double value) { return y0 - std::clamp(axis.place(value), 0.0, 1.0) * (y0 - y1); };

  svg.add("<text x='%.1f' y='%.1f' class='title'>%s</text>", left + kLeft, top + 16, panel.title.c_str());
  svg.add("<text x='%.1f' y='%.1f'>%s (%s is better)</text>", left + kLeft, top + 33, panel.metric.title,
          panel.metric.higher_is_better ? "higher" : "lower");
  for (const double tick : axis.ticks) {
    svg.add("<path d='M%.1f %.1f H%.1f' stroke='#ddd'/>", x0, y_of(tick), x1);
    svg.add("<text x='%.1f' y='%.1f' text-anchor='end'>%.3g</text>", x0 - 6, y_of(tick) + 4, tick);
  }
  const double stride = std::max(1.0, std::ceil((last - first) / 5));
  for (double power = std::ceil(first); power <= last; power += stride) {
    const double x = x_of(std::exp2(power));
    svg.add("<path d='M%.1f %.1f v5' stroke='#444'/>", x, y0);
    svg.add("<text x='%.1f' y='%.1f' text-anchor='middle'>%s</text>", x, y0 + 18,
            bytes_label(std::exp2(power)).c_str());
  }
  svg.add("<path d='M%.1f %.1f V%.1f H%.1f' fill='none' stroke='#444'/>", x0, y1, y0, x1);
  svg.add("<text x='%.1f' y='%.1f' text-anchor='middle'>bytes of the cache, policy state included</text>",
          (x0 + x1) / 2, y0 + 37);
  for (const auto& [policy, points] : panel.lines) {
    const char* colour = kColours[policy % std::size(kColours)];
    if (points.size() == 1) {  // the full cache: what the others are measured by
      svg.add("<path d='M%.1f %.1f H%.1f' stroke='%s' stroke-dasharray='5 4'/>", x0, y_of(points[0].value.mean), x1,
              colour);
    }
    std::string path;
    for (const Point& point : points) {
      char piece[48];
      snprintf(piece, sizeof piece, "%s%.1f %.1f", path.empty() ? "M" : " L", x_of(point.bytes),
               y_of(point.value.mean));
      path += piece;
    }
    svg.add("<path d='%s' fill='none' stroke='%s' stroke-width='1.8'/>", path.c_str(), colour);
    for (const Point& point : points) {
      const double x = x_of(point.bytes);
      if (point.value.deviation > 0) {
        svg.add("<path d='M%.1f %.1f V%.1f' stroke='%s' stroke-opacity='0.5'/>", x,
                y_of(point.value.mean - point.value.deviation), y_of(point.value.mean + point.value.deviation), colour);
      }
      marker(svg, policy, x, y_of(point.value.mean), colour);
    }
  }
}

std::vector<Panel> panels_of(const std::vector<SweepRow>& rows, const std::vector<std::string>& policies) {
  std::vector<Panel> panels;
  for (const SweepRow& row : rows) {
    const std::string title = row.task + ", " + std::to_string(row.length) + " tokens";
    for (const Metric& metric : metrics_of(row.task)) {
      const auto value = row.metrics.find(metric.name);
      if (value == row.metrics.end()) continue;
      auto panel = std::find_if(panels.begin(), panels.end(), [&](const Panel& other) {
        return other.title == title && other.metric.name == std::string_view(metric.name);
      });
      if (panel == panels.end()) panel = panels.insert(panels.end(), {title, metric, {}});
      const auto policy =
          static_cast<size_t>(std::find(policies.begin(), policies.end(), row.policy) - policies.begin());
      auto line = std::find_if(panel->lines.begin(), panel->lines.end(),
                               [&](const auto& other) { return other.first == policy; });
      if (line == panel->lines.end()) line = panel->lines.insert(panel->lines.end(), {policy, {}});
      line->second.push_back({row.kv_bytes, value->second});
    }
  }
  for (Panel& panel : panels) {
    for (auto& [policy, points] : panel.lines) {
      std::sort(points.begin(), points.end(), [](const Point& a, const Point& b) { return a.bytes < b.bytes; });
    }
  }
  return panels;
}

}  // namespace

std::string results_plot(const std::vector<SweepRow>& rows) {
  std::vector<std::string> policies;
  for (const SweepRow& row : rows) {
    if (std::find(policies.begin(), policies.end(), row.policy) == policies.end()) policies.push_back(row.policy);
  }
  const std::vector<Panel> panels = panels_of(rows, policies);
  size_t columns = 1;
  for (const SweepRow& row : rows) columns = std::max(columns, metrics_of(row.task).size());
  // A new row of panels for every title.
  std::vector<std::pair<size_t, size_t>> places;
  size_t lines = 0;
  for (size_t i = 0; i < panels.size(); ++i) {
    const bool starts = i == 0 || panels[i].title != panels[i - 1].title;
    lines += starts ? 1 : 0;
    places.emplace_back(lines - 1, starts ? 0 : places.back().second + 1);
  }
  const double width = 2 * kMargin + static_cast<double>(columns) * kWidth;
  const auto per_line = static_cast<size_t>((width - 2 * kMargin) / kLegendStep);
  const double legend = kLegendLine * static_cast<double>((policies.size() + per_line - 1) / per_line);
  const double height = 2 * kMargin + legend + 8 + static_cast<double>(lines) * kHeight;
  Svg svg;
  svg.add("<svg xmlns='http://www.w3.org/2000/svg' width='%.0f' height='%.0f' viewBox='0 0 %.0f %.0f'>", width, height,
          width, height);
  svg.add("<style>text{font:12px sans-serif;fill:#222}.title{font-weight:bold;font-size:13px}</style>");
  svg.add("<rect width='100%%' height='100%%' fill='#fff'/>");
  for (size_t i = 0; i < policies.size(); ++i) {
    const double x = kMargin + static_cast<double>(i % per_line) * kLegendStep;
    const double y = kMargin + 8 + static_cast<double>(i / per_line) * kLegendLine;
    const char* colour = kColours[i % std::size(kColours)];
    svg.add("<path d='M%.1f %.1f h24' stroke='%s' stroke-width='1.8'/>", x, y, colour);
    marker(svg, i, x + 12, y, colour);
    svg.add("<text x='%.1f' y='%.1f'>%s</text>", x + 30, y + 4, policies[i].c_str());
  }
  for (size_t i = 0; i < panels.size(); ++i) {
    draw_panel(svg, panels[i], kMargin + static_cast<double>(places[i].second) * kWidth,
               kMargin + legend + 8 + static_cast<double>(places[i].first) * kHeight);
  }
  svg.add("</svg>");
  return svg.take();
}

}  // namespace lethe::eval
