// curve.svg: two panels over the generations.
#include <algorithm>
#include <cmath>

#include "tools/eval/svg.h"
#include "tools/evolve/folder.h"

namespace lethe::evolve {
namespace {

constexpr double kWidth = 480, kHeight = 320, kLeft = 66, kRight = 14, kTop = 24, kBottom = 40, kLegend = 16;

struct Line {
  const char *member, *title, *colour;  // of the log's lines
};
constexpr Line kFitness[] = {{"best", "best candidate", "#56B4E9"},
                             {"population_mean", "mean of the candidates", "#0072B2"},
                             {"held_out", "mean parameters, prompts that are held out", "#D55E00"}};
constexpr Line kSigma[] = {{"sigma", "step size", "#000000"}};

struct Point {
  double generation, value;
};

std::vector<Point> points_of(const std::vector<Json>& log, const char* member) {
  std::vector<Point> points;
  for (const Json& line : log) {
    if (line.contains(member) && line[member].is_number()) points.push_back({line["generation"], line[member]});
  }
  return points;
}

void draw(eval::Svg& svg, const std::vector<Json>& log, std::span<const Line> lines, double left) {
  double low = INFINITY, high = -INFINITY, last = 1;
  for (const Line& line : lines) {
    for (const Point& point : points_of(log, line.member)) {
      low = std::min(low, point.value), high = std::max(high, point.value), last = std::max(last, point.generation);
    }
  }
  if (low > high) return;
  const double step = eval::round_step(std::max(high - low, 1e-9), 5);
  low = std::floor(low / step) * step;
  high = std::max(std::ceil(high / step) * step, low + step);
  const double x0 = left + kLeft, x1 = left + kWidth - kRight, y0 = kHeight - kBottom;
  const double y1 = kTop + kLegend * static_cast<double>(lines.size());
  const auto x_of = [&](double generation) { return x0 + generation / last * (x1 - x0); };
  const auto y_of = [&](double value) { return y0 - (value - low) / (high - low) * (y0 - y1); };
  for (int i = 0; low + i * step <= high + step / 2; ++i) {
    const double tick = std::abs(low + i * step) < step / 2 ? 0 : low + i * step;
    svg.add("<path d='M%.1f %.1f H%.1f' stroke='#ddd'/>", x0, y_of(tick), x1);
    svg.add("<text x='%.1f' y='%.1f' text-anchor='end'>%.4g</text>", x0 - 6, y_of(tick) + 4, tick);
  }
  const double stride = std::max(1.0, eval::round_step(last, 6));
  for (double tick = 0; tick <= last; tick += stride) {
    svg.add("<text x='%.1f' y='%.1f' text-anchor='middle'>%.0f</text>", x_of(tick), y0 + 18, tick);
  }
  svg.add("<path d='M%.1f %.1f V%.1f H%.1f' fill='none' stroke='#444'/>", x0, y1, y0, x1);
  svg.add("<text x='%.1f' y='%.1f' text-anchor='middle'>generation</text>", (x0 + x1) / 2, y0 + 34);
  double legend = kTop;
  for (const Line& line : lines) {
    std::string path;
    for (const Point& point : points_of(log, line.member)) {
      char piece[48];
      snprintf(piece, sizeof piece, "%s%.1f %.1f", path.empty() ? "M" : " L", x_of(point.generation),
               y_of(point.value));
      path += path.empty() ? std::string(piece) + " h0" : piece;  // a dot, if there is no second point
    }
    svg.raw("<path d='" + path + "' fill='none' stroke='" + line.colour +
            "' stroke-width='1.6' stroke-linecap='round'/>");
    svg.add("<path d='M%.1f %.1f h24' stroke='%s' stroke-width='1.6'/>", x0, legend - 8, line.colour);
    svg.add("<text x='%.1f' y='%.1f'>%s</text>", x0 + 30, legend - 4, line.title);
    legend += kLegend;
  }
}

}  // namespace

std::string curve(const std::vector<Json>& log) {
  eval::Svg svg;
  svg.add("<svg xmlns='http://www.w3.org/2000/svg' width='%.0f' height='%.0f' viewBox='0 0 %.0f %.0f'>", 2 * kWidth,
          kHeight, 2 * kWidth, kHeight);
  svg.add("<style>text{font:12px sans-serif;fill:#222}</style>");
  svg.add("<rect width='100%%' height='100%%' fill='#fff'/>");
  draw(svg, log, kFitness, 0);
  draw(svg, log, kSigma, kWidth);
  svg.add("</svg>");
  return svg.take();
}

}  // namespace lethe::evolve
