#include "tools/eval/infinitebench.h"

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "tools/eval/characters.h"
#include "tools/eval/scores.h"

namespace lethe::eval::infinitebench {
namespace {

constexpr std::string_view kDigits = "0123456789";

// Every occurrence of any of `parts` becomes a space.
std::string blanked(std::string_view text, std::initializer_list<std::string_view> parts) {
  std::string out(text);
  for (const std::string_view part : parts) {
    for (size_t at = out.find(part); at != std::string::npos; at = out.find(part, at + 1))
      out.replace(at, part.size(), " ");
  }
  return out;
}

std::string single_spaced(std::string text) {
  text.erase(std::unique(text.begin(), text.end(), [](char a, char b) { return a == ' ' && b == ' '; }), text.end());
  return text;
}

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  bool open = false;
  for (const char c : text) {
    const bool is_part = !is_space(static_cast<unsigned char>(c));
    if (is_part && !open) words.emplace_back();
    if (is_part) words.back() += c;
    open = is_part;
  }
  return words;
}

// The text after the first of `prefixes` that occurs begins with one of `labels`. `*decided`: whether one occurs.
bool follows_prefix(std::string_view text, std::initializer_list<std::string_view> prefixes, Labels labels,
                    bool* decided) {
  for (const std::string_view prefix : prefixes) {
    const size_t at = text.find(prefix);
    if (at == std::string_view::npos) continue;
    *decided = true;
    if (text.size() < at + prefix.size() + 1) return false;
    const std::string_view after = text.substr(at + prefix.size() + 1);
    return std::any_of(labels.begin(), labels.end(),
                       [&](const std::string& label) { return after.starts_with(label); });
  }
  return false;
}

// The first \d+\.\d+ or \d+.
std::string first_decimal(std::string_view text) {
  const size_t begin = text.find_first_of(kDigits);
  if (begin == std::string_view::npos) return {};
  size_t end = std::min(text.find_first_not_of(kDigits, begin), text.size());
  if (end + 1 < text.size() && text[end] == '.' && kDigits.find(text[end + 1]) != std::string_view::npos) {
    end = std::min(text.find_first_not_of(kDigits, end + 1), text.size());
  }
  return std::string(text.substr(begin, end - begin));
}

// Python's int(): maybe a sign, then digits, maybe with single underscores between (not kept).
bool is_integer(std::string_view text) {
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.remove_prefix(1);
  return !text.empty() && text.find_first_not_of(kDigits) == std::string_view::npos;
}

}  // namespace

bool first_number(Labels labels, std::string_view reply) { return first_integer(reply) == labels[0]; }

bool retrieved(Labels labels, std::string_view reply) {
  const std::vector<std::string> words = retrieval_words(reply);
  return std::find(words.begin(), words.end(), labels[0]) != words.end();
}

bool name_of_speaker(Labels labels, std::string_view reply) {
  for (std::string& word : retrieval_words(reply)) {
    for (char& c : word) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    if (word == labels[0]) return true;
  }
  return false;
}

bool letter_of_choice(Labels labels, std::string_view reply) {
  const auto is_label = [&](std::string_view text) {
    return std::find(labels.begin(), labels.end(), text) != labels.end();
  };
  if (reply.empty()) return false;
  if (std::string_view("ABCD").find(reply[0]) != std::string_view::npos) return is_label(reply.substr(0, 1));
  const std::string text = single_spaced(blanked(reply, {"\n", "\"", "'", ".", ",", "?", "!", "{", "}"}));
  bool decided = false;
  const bool right = follows_prefix(text, {"answer is:", "answer:", "answer is", "option is"}, labels, &decided);
  if (decided) return right;
  for (const std::string& word : words_of(text)) {
    if (std::string_view("ABCD").find(word) != std::string_view::npos) return is_label(word);
  }
  return false;
}

bool letter_of_bug(Labels labels, std::string_view reply) {
  const std::string &name = labels[0], &letter = labels[1];
  if (reply.substr(0, 2) == letter + "." || reply.substr(0, 2) == letter + ":") return true;
  const size_t begin = std::min(reply.find_first_not_of(" \t\r\n\f\v"), reply.size());
  const size_t end = reply.find_last_not_of(" \t\r\n\f\v") + 1;
  const std::string text = single_spaced(blanked(reply.substr(begin, end > begin ? end - begin : 0),
                                                 {"\n", "`", "'", "\"", "-", "*", "Option", "option"}));
  bool decided = false;
  const std::string both[] = {letter, name};
  return follows_prefix(text, {"answer is:", "is:", "answer:"}, both, &decided);
}

bool last_number(Labels labels, std::string_view reply) {
  const std::vector<std::string> words = words_of(blanked(reply, {"\n", ".", "`", "'", "\"", ":"}));
  return !words.empty() && is_integer(words.back()) &&
         strtoll(words.back().c_str(), nullptr, 10) == strtoll(labels[0].c_str(), nullptr, 10);
}

bool found_number(Labels labels, std::string_view reply) {
  const std::string number = first_decimal(reply);
  if (number.empty()) return false;
  return strtod(number.c_str(), nullptr) == strtod(labels[0].c_str(), nullptr);
}

double right_prefix(Labels labels, std::string_view reply) {
  size_t right = 0;
  for (size_t at = reply.find_first_of(kDigits); at != std::string_view::npos && right < labels.size();) {
    const size_t end = std::min(reply.find_first_not_of(kDigits, at), reply.size());
    const std::string number(reply.substr(at, end - at));
    if (strtoll(number.c_str(), nullptr, 10) != strtoll(labels[right].c_str(), nullptr, 10)) break;
    ++right;
    at = reply.find_first_of(kDigits, end);
  }
  return static_cast<double>(right) / static_cast<double>(labels.size());
}

}  // namespace lethe::eval::infinitebench
