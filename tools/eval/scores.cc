#include "tools/eval/scores.h"

#include <algorithm>

namespace lethe::eval {

std::string first_integer(std::string_view reply) {
  constexpr std::string_view kDigits = "0123456789";
  const size_t begin = reply.find_first_of(kDigits);
  if (begin == std::string_view::npos) return {};
  const size_t end = reply.find_first_not_of(kDigits, begin);
  return std::string(reply.substr(begin, end == std::string_view::npos ? end : end - begin));
}

std::vector<std::string> retrieval_words(std::string_view reply) {
  constexpr std::string_view kBetween = " \t\r\f\v\n:\"'.,?!{}";
  std::vector<std::string> words;
  for (size_t at = reply.find_first_not_of(kBetween); at != std::string_view::npos;) {
    const size_t end = std::min(reply.find_first_of(kBetween, at), reply.size());
    words.emplace_back(reply.substr(at, end - at));
    at = reply.find_first_not_of(kBetween, end);
  }
  return words;
}

double string_match_all(std::string_view reply, std::span<const std::string> references) {
  const std::string lower = lower_ascii(reply);
  double found = 0;
  for (const std::string& reference : references) found += lower.find(lower_ascii(reference)) != std::string::npos;
  return found / static_cast<double>(references.size());
}

std::string lower_ascii(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

}  // namespace lethe::eval
