// What the generators draw, from a generator of fixed definition (runtime/sample/random.h): a seed gives the same
// prompts on every machine, which the distributions of the standard library do not promise.
#pragma once

#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "runtime/sample/random.h"

namespace lethe::eval {

// Uniform in [0, n); n < 2^32, so that the bias of the remainder is below 2^-32.
inline uint64_t below(Random& random, uint64_t n) { return random.next() % n; }

template <typename T>
void shuffle(Random& random, std::vector<T>& items) {
  for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[below(random, i)]);
}

// `count` characters of `alphabet`.
inline std::string draw_characters(Random& random, std::string_view alphabet, size_t count) {
  std::string out;
  for (size_t i = 0; i < count; ++i) out += alphabet[below(random, alphabet.size())];
  return out;
}

// The order in which C++ evaluates the operands of + is the compiler's: whatever draws twice does it in statements.

// A number of exactly `digits` digits.
inline std::string draw_number(Random& random, int digits) {
  std::string out = draw_characters(random, "123456789", 1);
  out += draw_characters(random, "0123456789", static_cast<size_t>(digits) - 1);
  return out;
}

// Version 4 of RFC 4122.
inline std::string draw_uuid(Random& random) {
  std::string out;
  const auto hex = [&](size_t count) { out += draw_characters(random, "0123456789abcdef", count); };
  hex(8);
  out += "-";
  hex(4);
  out += "-4";
  hex(3);
  out += "-" + draw_characters(random, "89ab", 1);
  hex(3);
  out += "-";
  hex(12);
  return out;
}

using Used = std::unordered_set<std::string>;

// Draws with `draw()` until the text is none of `used`, and adds it there.
template <typename Draw>
std::string draw_new(Used& used, Draw&& draw) {
  while (true) {
    if (const auto [at, is_new] = used.insert(draw()); is_new) return *at;
  }
}

}  // namespace lethe::eval
