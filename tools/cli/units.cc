#include "tools/cli/units.h"

#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdio>

namespace lethe::cli {
namespace {

struct Unit {
  std::string_view suffix;  // lower case
  double bytes;
};
constexpr double kKi = 1024;
constexpr std::array kUnits{
    Unit{"", 1},         Unit{"b", 1},          Unit{"k", kKi},  Unit{"kib", kKi},         Unit{"kb", 1e3},
    Unit{"m", kKi* kKi}, Unit{"mib", kKi* kKi}, Unit{"mb", 1e6}, Unit{"g", kKi* kKi* kKi}, Unit{"gib", kKi* kKi* kKi},
    Unit{"gb", 1e9}};

}  // namespace

std::optional<uint64_t> parse_size(std::string_view text) {
  // Whole bytes go past the double, so that no figure of a plan is rounded.
  uint64_t whole = 0;
  const char* const end = text.data() + text.size();
  if (const auto [stop, error] = std::from_chars(text.data(), end, whole); error == std::errc() && stop == end) {
    return whole <= uint64_t{1} << 63 ? std::optional(whole) : std::nullopt;
  }
  if (text.empty() || !(std::isdigit(static_cast<unsigned char>(text[0])) != 0)) return std::nullopt;
  double number = 0;
  const auto [stop, error] = std::from_chars(text.data(), end, number, std::chars_format::fixed);
  if (error != std::errc()) return std::nullopt;
  std::string suffix(stop, end);
  for (char& c : suffix) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const Unit& unit : kUnits) {
    if (unit.suffix != suffix) continue;
    const double bytes = std::floor(number * unit.bytes);
    if (bytes > 0x1p63) return std::nullopt;
    return static_cast<uint64_t>(bytes);
  }
  return std::nullopt;
}

std::string human_bytes(uint64_t bytes) {
  constexpr std::array kNames{"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1023.95 && unit + 1 < kNames.size()) {
    value /= 1024;
    ++unit;
  }
  char text[32];
  snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", value, kNames[unit]);
  return text;
}

std::string with_separators(uint64_t number) {
  const std::string digits = std::to_string(number);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i != 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

}  // namespace lethe::cli
