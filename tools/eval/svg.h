// What plots are written with.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <string>
#include <utility>

namespace lethe::eval {

// Lines of an SVG file.
class Svg {
 public:
  // At most 511 bytes.
  __attribute__((format(printf, 2, 3))) void add(const char* format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    const int size = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    out_.append(text, std::min(static_cast<size_t>(size), sizeof text - 1));
    out_ += '\n';
  }
  void raw(const std::string& line) { out_ += line + '\n'; }
  std::string take() { return std::move(out_); }

 private:
  std::string out_;
};

// A round step that gives about `count` ticks.
inline double round_step(double range, int count) {
  const double rough = range / count, power = std::pow(10, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough) return factor * power;
  }
  return 10 * power;
}

}  // namespace lethe::eval
