// The split patterns of a known pre-tokenizer, as the splitter takes them.
#pragma once

#include <cstdlib>
#include <span>
#include <string_view>
#include <vector>

#include "tools/pack/patterns.h"

namespace lethe::test {

struct KnownPatterns {
  PreTokenizer owner;
  std::vector<std::string_view> views;

  explicit KnownPatterns(std::string_view name) {
    if (!find_pre_tokenizer(name, &owner).ok()) std::abort();
    views.assign(owner.patterns.begin(), owner.patterns.end());
  }
  operator std::span<const std::string_view>() const { return views; }
};

inline const KnownPatterns kGpt2Patterns("gpt-2");
inline const KnownPatterns kSmolLmPatterns("smollm");

}  // namespace lethe::test
