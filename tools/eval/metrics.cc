#include "tools/eval/metrics.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "tools/eval/characters.h"

namespace lethe::eval {
namespace {

template <typename Item>
std::map<Item, size_t> counted(const std::vector<Item>& items) {
  std::map<Item, size_t> counts;
  for (const Item& item : items) ++counts[item];
  return counts;
}

template <typename Item>
double f1(const std::vector<Item>& reply, const std::vector<Item>& truth) {
  const auto in_truth = counted(truth);
  size_t same = 0;
  for (const auto& [item, count] : counted(reply)) {
    const auto at = in_truth.find(item);
    if (at != in_truth.end()) same += std::min(count, at->second);
  }
  if (same == 0) return 0;
  const double precision = static_cast<double>(same) / static_cast<double>(reply.size());
  const double recall = static_cast<double>(same) / static_cast<double>(truth.size());
  return 2 * precision * recall / (precision + recall);
}

// \b(a|an|the)\b becomes a space. What is left around it stays, as "c'est" without its punctuation stays a word.
Characters without_articles(const Characters& text) {
  Characters out;
  for (size_t at = 0; at < text.size();) {
    const bool begins = is_word(text[at]) && (at == 0 || !is_word(text[at - 1]));
    size_t end = at;
    while (begins && end < text.size() && is_word(text[end])) ++end;
    const Characters word(text.begin() + static_cast<ptrdiff_t>(at), text.begin() + static_cast<ptrdiff_t>(end));
    if (word == ascii("a") || word == ascii("an") || word == ascii("the")) {
      out.push_back(' ');
      at = end;
    } else {
      out.push_back(text[at++]);
    }
  }
  return out;
}

Words normalised_words(std::string_view text) {
  Characters characters = decode(text);
  to_lower(characters);
  std::erase_if(characters, is_ascii_punctuation);
  return split_words(without_articles(characters));
}

Characters normalised_characters(std::string_view text) {
  Characters characters = decode(text);
  to_lower(characters);
  std::erase_if(characters,
                [](char32_t c) { return is_space(c) || is_ascii_punctuation(c) || is_wide_punctuation(c); });
  return characters;
}

std::vector<std::string> numbers_of(std::string_view text) {
  std::vector<std::string> numbers;
  bool open = false;
  for (const char c : text) {
    const bool is_part = c >= '0' && c <= '9';
    if (is_part && !open) numbers.emplace_back();
    if (is_part) numbers.back() += c;
    open = is_part;
  }
  return numbers;
}

size_t common_subsequence(const Characters& a, const Characters& b) {
  std::vector<size_t> row(b.size() + 1);
  for (const char32_t c : a) {
    size_t diagonal = 0;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t above = row[j + 1];
      row[j + 1] = c == b[j] ? diagonal + 1 : std::max(row[j + 1], row[j]);
      diagonal = above;
    }
  }
  return row.back();
}

}  // namespace

double f1_words(std::string_view reply, std::string_view truth) {
  return f1(normalised_words(reply), normalised_words(truth));
}

double exact_match(std::string_view reply, std::string_view truth) {
  return normalised_words(reply) == normalised_words(truth) ? 1 : 0;
}

double f1_characters(std::string_view reply, std::string_view truth) {
  return f1(normalised_characters(reply), normalised_characters(truth));
}

// The original removes from the list that it iterates over, and so skips what follows a removed class; and its test for
// an empty list never holds. Both are kept.
double classification(std::string_view reply, std::string_view truth, std::span<const std::string> classes) {
  std::vector<std::string_view> named;
  for (const std::string& name : classes) {
    if (reply.find(name) != std::string_view::npos) named.push_back(name);
  }
  for (size_t i = 0; i < named.size(); ++i) {
    if (named[i] != truth && truth.find(named[i]) != std::string_view::npos) {
      named.erase(std::find(named.begin(), named.end(), named[i]));
    }
  }
  const bool found = std::find(named.begin(), named.end(), truth) != named.end();
  return found ? 1 / static_cast<double>(named.size()) : 0;
}

double retrieval(std::string_view reply, std::string_view truth, std::string_view marker) {
  for (size_t at = truth.find(marker); at != std::string_view::npos; at = truth.find(marker, at + 1)) {
    const std::string_view after = truth.substr(at + marker.size());
    if (after.empty() || after[0] < '0' || after[0] > '9') continue;
    return count_score(reply, numbers_of(after)[0]);
  }
  return 0;
}

double count_score(std::string_view reply, std::string_view truth) {
  const std::vector<std::string> numbers = numbers_of(reply);
  if (numbers.empty()) return 0;
  return static_cast<double>(std::count(numbers.begin(), numbers.end(), truth)) / static_cast<double>(numbers.size());
}

double code_similarity(std::string_view reply, std::string_view truth) {
  const size_t begin = std::min(reply.find_first_not_of('\n'), reply.size());
  Characters line;
  for (const Characters& candidate : split_at(decode(reply.substr(begin)), '\n')) {
    if (contains(candidate, ascii("`")) || contains(candidate, ascii("#")) || contains(candidate, ascii("//")))
      continue;
    line = candidate;
    break;
  }
  const Characters other = decode(truth);
  if (line.empty() && other.empty()) return 1;
  const double ratio =
      2 * static_cast<double>(common_subsequence(line, other)) / static_cast<double>(line.size() + other.size());
  return std::nearbyint(100 * ratio) / 100;  // to even at halves, as Python's round
}

std::string_view first_line(std::string_view reply) {
  reply.remove_prefix(std::min(reply.find_first_not_of('\n'), reply.size()));
  return reply.substr(0, reply.find('\n'));
}

}  // namespace lethe::eval
