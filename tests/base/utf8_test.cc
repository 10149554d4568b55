#include "runtime/base/utf8.h"

#include <doctest/doctest.h>

#include <array>
#include <random>
#include <string>
#include <vector>

namespace lethe::utf8 {
namespace {

// By the definition (RFC 3629, section 4), one row for each line of its grammar.
bool is_character(const std::string& bytes) {
  struct Row {
    std::vector<std::array<int, 2>> ranges;
  };
  static const std::vector<Row> rows = {{{{0x00, 0x7F}}},
                                        {{{0xC2, 0xDF}, {0x80, 0xBF}}},
                                        {{{0xE0, 0xE0}, {0xA0, 0xBF}, {0x80, 0xBF}}},
                                        {{{0xE1, 0xEC}, {0x80, 0xBF}, {0x80, 0xBF}}},
                                        {{{0xED, 0xED}, {0x80, 0x9F}, {0x80, 0xBF}}},
                                        {{{0xEE, 0xEF}, {0x80, 0xBF}, {0x80, 0xBF}}},
                                        {{{0xF0, 0xF0}, {0x90, 0xBF}, {0x80, 0xBF}, {0x80, 0xBF}}},
                                        {{{0xF1, 0xF3}, {0x80, 0xBF}, {0x80, 0xBF}, {0x80, 0xBF}}},
                                        {{{0xF4, 0xF4}, {0x80, 0x8F}, {0x80, 0xBF}, {0x80, 0xBF}}}};
  for (const Row& row : rows) {
    bool fits = row.ranges.size() == bytes.size();
    for (size_t i = 0; fits && i < bytes.size(); ++i) {
      const int byte = static_cast<uint8_t>(bytes[i]);
      fits = byte >= row.ranges[i][0] && byte <= row.ranges[i][1];
    }
    if (fits) return true;
  }
  return false;
}

std::string replaced(std::string_view text) {
  std::string out(3 * text.size(), '\0');
  out.resize(replace_invalid(text, out));
  return out;
}

TEST_CASE("every code point survives encode and decode, and surrogates do not exist") {
  for (uint32_t code = 0; code < 0x110000 + 100; ++code) {
    std::array<char, 4> bytes;
    const size_t size = encode(code, bytes);
    if ((code >= 0xD800 && code < 0xE000) || code >= 0x110000) {
      CHECK(size == 0);
      continue;
    }
    const std::string text(bytes.data(), size);
    const Front decoded = front(text + "A");
    if (!is_character(text) || decoded.kind != Kind::kCharacter || decoded.size != size || decoded.code != code) {
      FAIL("code point ", code);
    }
  }
}

TEST_CASE("all sequences of up to three bytes are judged as the grammar says") {
  uint64_t wrong = 0;
  for (uint32_t value = 0; value < 1u << 24; value += value < 1u << 16 ? 1 : 5) {
    const size_t size = value < 1u << 8 ? 1 : value < 1u << 16 ? 2 : 3;
    std::string bytes;
    for (size_t i = 0; i < size; ++i) bytes += static_cast<char>(value >> (8 * i));
    const Front got = front(bytes);
    bool whole = false;
    for (size_t n = 1; n <= size; ++n) {
      if (is_character(bytes.substr(0, n))) {
        whole = true;
        wrong += got.kind != Kind::kCharacter || got.size != n;
      }
    }
    wrong += !whole && got.kind == Kind::kCharacter;
  }
  CHECK(wrong == 0);
}

// Expected texts: Unicode 15, section 3.9, tables 3-8 to 3-11, and Python's bytes.decode("utf-8", "replace").
TEST_CASE("invalid bytes become one replacement character for every maximal subpart") {
  const std::string r(kReplacement);
  CHECK(replaced("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41") == r + r + r + r + r + r + r + r + "A");
  CHECK(replaced("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41") == r + r + r + r + r + r + r + r + "A");
  CHECK(replaced("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42") == r + r + r + r + r + "A" + r + r + "B");
  CHECK(replaced("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41") == r + r + r + r + "A");
  CHECK(replaced("ok \xE2\x82") == "ok " + r);
  CHECK(replaced("\xF0\x9F\x98") == r);
  CHECK(replaced("") == "");
  CHECK(replaced("gr\xC3\xBC\xC3\x9F") == "gr\xC3\xBC\xC3\x9F");
}

TEST_CASE("replace_invalid keeps to the room it is given and tells what it needs") {
  const std::string text =
      "ab\xFF"
      "cd\xC3\xA4";
  const std::string whole = replaced(text);
  CHECK(whole.size() == 9);
  for (size_t room = 0; room <= whole.size(); ++room) {
    std::string out(room + 1, '#');
    CHECK(replace_invalid(text, std::span<char>(out.data(), room)) == whole.size());
    CHECK(out == whole.substr(0, room) + '#');
  }
}

TEST_CASE("find_invalid gives the first bad byte at any distance from the front") {
  for (size_t before = 0; before < 20; ++before) {
    const std::string good(before, 'a');
    CHECK(find_invalid(good) == before);
    CHECK(find_invalid(good + "\xE2\x82\xAC") == before + 3);
    CHECK(find_invalid(good + "\xE2\x82") == before);
    CHECK(find_invalid(good + "\x80zzzzzzzzzzzzz") == before);
    CHECK(find_invalid(good + "\xC3\xA9\xFFzzz") == before + 2);
  }
}

TEST_CASE("complete_prefix leaves out exactly the unfinished character") {
  const std::string text = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80";
  const std::vector<size_t> expected = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10};
  for (size_t size = 0; size <= text.size(); ++size) {
    CHECK(complete_prefix(std::string_view(text).substr(0, size)) == expected[size]);
  }
  CHECK(complete_prefix("\x80\x80\x80\x80") == 4);  // belongs to no character: nothing to wait for
  CHECK(complete_prefix("\xED\xA0") == 2);          // a surrogate
  CHECK(complete_prefix("\xE2\x28") == 2);
  CHECK(complete_prefix("\xF0\x9F\x98\x80\x80") == 5);
}

}  // namespace
}  // namespace lethe::utf8
