// Split patterns of the known pre-tokenizers, as the packer writes them into a model file.
//
// The references are Hugging Face's pre-tokenizers, whose classes come from Oniguruma (Unicode 16) and, for Digits,
// from Rust's char::is_numeric (Unicode 17). PCRE2 differs from them: its \s holds U+180E, and its \p{L} and \p{N}
// are those of its own release (10.42: Unicode 14). So the classes are spelt out: white space as the list of
// White_Space, letters and numbers as the property plus what Unicode 15 to 17 added. Then every PCRE2 release splits
// alike. The ASCII ranges say nothing new; they let PCRE2 answer from a bit map.
#pragma once

#include <array>
#include <string_view>

namespace lethe {

#define LETHE_WHITE_SPACE R"(\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})"
#define LETHE_LETTER                                                                                            \
  R"(a-zA-Z\p{L}\x{1c89}\x{1c8a}\x{a7cb}-\x{a7cd}\x{a7da}-\x{a7dc}\x{105c0}-\x{105f3}\x{10d4a}-\x{10d65})"      \
  R"(\x{10d6f}-\x{10d85}\x{10ec2}-\x{10ec4}\x{1123f}\x{11240}\x{11380}-\x{11389}\x{1138b}\x{1138e})"            \
  R"(\x{11390}-\x{113b5}\x{113b7}\x{113d1}\x{113d3}\x{11bc0}-\x{11be0}\x{11f02}\x{11f04}-\x{11f10})"            \
  R"(\x{11f12}-\x{11f33}\x{1342f}\x{13441}-\x{13446}\x{13460}-\x{143fa}\x{16100}-\x{1611d}\x{16d40}-\x{16d6c})" \
  R"(\x{18cff}\x{1b132}\x{1b155}\x{1df25}-\x{1df2a}\x{1e030}-\x{1e06d}\x{1e4d0}-\x{1e4eb}\x{1e5d0}-\x{1e5ed})"  \
  R"(\x{1e5f0}\x{2b739}\x{2ebf0}-\x{2ee5d}\x{31350}-\x{323af})"
#define LETHE_NUMBER                                                                                           \
  R"(0-9\p{N}\x{10d40}-\x{10d49}\x{116d0}-\x{116e3}\x{11bf0}-\x{11bf9}\x{11f50}-\x{11f59}\x{16130}-\x{16139})" \
  R"(\x{16d70}-\x{16d79}\x{1ccf0}-\x{1ccf9}\x{1d2c0}-\x{1d2d3}\x{1e4f0}-\x{1e4f9}\x{1e5f1}-\x{1e5fa})"

// Digits(individual_digits=True). The two ranges are Unicode 17's.
inline constexpr std::string_view kSplitDigits = "[" LETHE_NUMBER R"(\x{11de0}-\x{11de9}\x{16ff4}-\x{16ff6}])";

// ByteLevel(use_regex=True), the pattern of GPT-2.
inline constexpr std::string_view kSplitGpt2 =
    "'(?:[sdmt]|ll|ve|re)| ?[" LETHE_LETTER "]+| ?[" LETHE_NUMBER "]+| ?[^" LETHE_WHITE_SPACE LETHE_LETTER LETHE_NUMBER
    "]+|[" LETHE_WHITE_SPACE "]+(?![^" LETHE_WHITE_SPACE "])|[" LETHE_WHITE_SPACE "]+";

#undef LETHE_WHITE_SPACE
#undef LETHE_LETTER
#undef LETHE_NUMBER

// By the name of the pre-tokenizer in GGUF files (tokenizer.ggml.pre).
inline constexpr std::array<std::string_view, 1> kGpt2Patterns = {kSplitGpt2};
inline constexpr std::array<std::string_view, 2> kSmolLmPatterns = {kSplitDigits, kSplitGpt2};

}  // namespace lethe
