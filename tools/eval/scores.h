// How replies to generated prompts are scored, each after the benchmark that the task comes from.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lethe::eval {

// The first run of digits; empty if there is none. InfiniteBench, compute_scores.py: first_int_match.
std::string first_integer(std::string_view reply);

// Words after line ends and : " ' . , ? ! { } became spaces. InfiniteBench: split_retrieval_answer.
std::vector<std::string> retrieval_words(std::string_view reply);

// Share of the references that stand in the reply, both in lower case. RULER, eval/synthetic/constants.py:
// string_match_all.
double string_match_all(std::string_view reply, std::span<const std::string> references);

// ASCII only; other bytes stay.
std::string lower_ascii(std::string_view text);

}  // namespace lethe::eval
