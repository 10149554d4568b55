// Plain English words that the generators draw from.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "tools/eval/draw.h"

namespace lethe::eval {

std::span<const std::string_view> adjectives();
std::span<const std::string_view> nouns();

// "quiet-harbour", none of `used` and added there; from the 10,001st on of two such pairs, so that it never runs out.
std::string draw_compound(Random& random, Used& used);

}  // namespace lethe::eval
