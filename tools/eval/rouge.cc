// ROUGE (Lin 2004) as two Python packages compute it.
#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "tools/eval/characters.h"
#include "tools/eval/metrics.h"

namespace lethe::eval {
namespace {

// Lengths of the longest common subsequences of all prefixes, [a.size() + 1][b.size() + 1].
class LcsTable {
 public:
  LcsTable(const Words& a, const Words& b) : columns_(b.size() + 1), lengths_((a.size() + 1) * columns_) {
    for (size_t i = 1; i <= a.size(); ++i) {
      for (size_t j = 1; j <= b.size(); ++j) {
        cell(i, j) = a[i - 1] == b[j - 1] ? at(i - 1, j - 1) + 1 : std::max(at(i - 1, j), at(i, j - 1));
      }
    }
  }
  uint32_t at(size_t i, size_t j) const { return lengths_[i * columns_ + j]; }

 private:
  uint32_t& cell(size_t i, size_t j) { return lengths_[i * columns_ + j]; }

  size_t columns_;
  std::vector<uint32_t> lengths_;
};

// Places in `a` of one longest common subsequence. Where two ways are equally long: `a` first is shortened, or `b`.
std::vector<size_t> lcs_places(const Words& a, const Words& b, bool shortens_a) {
  const LcsTable table(a, b);
  std::vector<size_t> places;
  for (size_t i = a.size(), j = b.size(); i > 0 && j > 0;) {
    if (a[i - 1] == b[j - 1]) {
      places.push_back(--i);
      --j;
    } else if (shortens_a ? table.at(i - 1, j) >= table.at(i, j - 1) : table.at(i - 1, j) > table.at(i, j - 1)) {
      --i;
    } else {
      --j;
    }
  }
  return places;
}

// ---- PyPI `rouge` 1.0.1 ----

// The words of sentences between full stops. A sentence of nothing but white space has one empty word, as in the
// original.
Words words_of_sentence(const Characters& sentence) {
  Words words = split_words(sentence);
  if (words.empty()) words.emplace_back();
  return words;
}

std::vector<Words> sentences_of(const Characters& text) {
  std::vector<Words> sentences;
  for (const Characters& sentence : split_at(text, '.')) {
    if (!sentence.empty()) sentences.push_back(words_of_sentence(sentence));
  }
  return sentences;
}

size_t distinct_words(const std::vector<Words>& sentences) {
  std::set<Characters> words;
  for (const Words& sentence : sentences) words.insert(sentence.begin(), sentence.end());
  return words.size();
}

double rouge_l_of(const Characters& reply, const Characters& truth) {
  const std::vector<Words> replied = sentences_of(reply), expected = sentences_of(truth);
  if (replied.empty() || expected.empty()) return 0;
  std::set<Characters> shared;
  for (const Words& sentence : expected) {
    for (const Words& other : replied) {
      for (const size_t place : lcs_places(sentence, other, false)) shared.insert(sentence[place]);
    }
  }
  const auto common = static_cast<double>(shared.size());
  const double recall = common / static_cast<double>(distinct_words(expected));
  const double precision = common / static_cast<double>(distinct_words(replied));
  return 2 * (precision * recall / (precision + recall + 1e-8));
}

// A space between all characters that are none themselves.
Characters spaced(std::string_view text) {
  Characters out;
  for (const char32_t c : decode(text)) {
    if (is_space(c)) continue;
    if (!out.empty()) out.push_back(' ');
    out.push_back(c);
  }
  return out;
}

// ---- PyPI `rouge_score` 0.1.2, use_stemmer=False ----

Words plain_words(std::string_view text) {
  Characters characters = decode(text);
  to_lower(characters);
  for (char32_t& c : characters) {
    if (!is_digit(c) && (c < 'a' || c > 'z')) c = ' ';
  }
  return split_words(characters);
}

double f_measure(double common, size_t replied, size_t expected) {
  const double precision = replied == 0 ? 0 : common / static_cast<double>(replied);
  const double recall = expected == 0 ? 0 : common / static_cast<double>(expected);
  return precision + recall > 0 ? 2 * precision * recall / (precision + recall) : 0;
}

std::map<Words, size_t> ngrams(const Words& words, size_t n) {
  std::map<Words, size_t> counts;
  for (size_t i = 0; i + n <= words.size(); ++i) {
    ++counts[Words(words.begin() + static_cast<ptrdiff_t>(i), words.begin() + static_cast<ptrdiff_t>(i + n))];
  }
  return counts;
}

std::vector<Words> lines_of(std::string_view text) {
  std::vector<Words> lines;
  while (true) {
    const size_t end = text.find('\n');
    if (const std::string_view line = text.substr(0, end); !line.empty()) lines.push_back(plain_words(line));
    if (end == std::string_view::npos) return lines;
    text.remove_prefix(end + 1);
  }
}

}  // namespace

double rouge_l(std::string_view reply, std::string_view truth) { return rouge_l_of(decode(reply), decode(truth)); }

double rouge_l_characters(std::string_view reply, std::string_view truth) {
  return rouge_l_of(spaced(reply), spaced(truth));
}

double rouge_n_fmeasure(std::string_view reply, std::string_view truth, size_t n) {
  const auto replied = ngrams(plain_words(reply), n), expected = ngrams(plain_words(truth), n);
  size_t common = 0, replied_count = 0, expected_count = 0;
  for (const auto& [ngram, count] : expected) {
    expected_count += count;
    if (const auto at = replied.find(ngram); at != replied.end()) common += std::min(count, at->second);
  }
  for (const auto& [ngram, count] : replied) replied_count += count;
  return f_measure(static_cast<double>(common), replied_count, expected_count);
}

double rouge_l_fmeasure(std::string_view reply, std::string_view truth) {
  const Words replied = plain_words(reply), expected = plain_words(truth);
  const LcsTable table(expected, replied);
  return f_measure(table.at(expected.size(), replied.size()), replied.size(), expected.size());
}

double rouge_lsum_fmeasure(std::string_view reply, std::string_view truth) {
  const std::vector<Words> replied = lines_of(reply), expected = lines_of(truth);
  std::map<Characters, size_t> left_replied, left_expected;
  size_t replied_count = 0, expected_count = 0, common = 0;
  for (const Words& line : replied) {
    replied_count += line.size();
    for (const Characters& word : line) ++left_replied[word];
  }
  for (const Words& line : expected) {
    expected_count += line.size();
    for (const Characters& word : line) ++left_expected[word];
  }
  for (const Words& line : expected) {
    std::set<size_t> places;
    for (const Words& other : replied) {
      for (const size_t place : lcs_places(line, other, true)) places.insert(place);
    }
    for (const size_t place : places) {
      if (left_replied[line[place]] == 0 || left_expected[line[place]] == 0) continue;
      --left_replied[line[place]], --left_expected[line[place]];
      ++common;
    }
  }
  return f_measure(static_cast<double>(common), replied_count, expected_count);
}

}  // namespace lethe::eval
