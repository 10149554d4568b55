// Texts as code points, with what the metrics' original code takes from Python's str: lower(), split() and \w.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lethe::eval {

using Characters = std::vector<char32_t>;
using Words = std::vector<Characters>;

// Bytes that are no UTF-8 become U+FFFD.
Characters decode(std::string_view text);
Characters ascii(std::string_view text);  // of literals

// Latin (up to U+017F), Greek, Cyrillic and full-width letters; other scripts have none, or are rare in the data.
void to_lower(Characters& text);

bool is_space(char32_t c);              // str.isspace()
bool is_digit(char32_t c);              // ASCII
bool is_word(char32_t c);               // \w: punctuation and symbols of the common blocks are not
bool is_ascii_punctuation(char32_t c);  // string.punctuation
bool is_wide_punctuation(char32_t c);   // the list of LongBench's normalize_zh_answer

// str.split(): at runs of white space.
Words split_words(const Characters& text);
// str.split(separator): empty pieces stay.
Words split_at(const Characters& text, char32_t separator);

bool contains(const Characters& text, const Characters& part);

}  // namespace lethe::eval
