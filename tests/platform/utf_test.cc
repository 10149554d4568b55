// UTF-8 and UTF-16 of the JNI library, against glibc's iconv and the vectors of the Unicode standard.
#include "platform/android/jni/utf.h"

#include <doctest/doctest.h>
#include <iconv.h>

#include <cstring>

namespace lethe::jni {
namespace {

// What glibc makes of UTF-32, one code point after another.
std::string convert(const std::u32string& text, const char* encoding) {
  const iconv_t converter = iconv_open(encoding, "UTF-32LE");
  REQUIRE(converter != reinterpret_cast<iconv_t>(-1));
  std::string out(text.size() * 4, '\0');
  char* from = const_cast<char*>(reinterpret_cast<const char*>(text.data()));
  char* to = out.data();
  size_t from_left = text.size() * 4, to_left = out.size();
  REQUIRE(iconv(converter, &from, &from_left, &to, &to_left) == 0);
  iconv_close(converter);
  out.resize(out.size() - to_left);
  return out;
}

std::u16string units_of(const std::string& bytes) {
  std::u16string units(bytes.size() / 2, u'\0');
  std::memcpy(units.data(), bytes.data(), bytes.size());
  return units;
}

TEST_CASE("every code point, both ways, as glibc has it") {
  std::u32string all;
  for (char32_t code = 0; code <= 0x10FFFF; ++code) {
    if (code < 0xD800 || code > 0xDFFF) all.push_back(code);
  }
  const std::string utf8 = convert(all, "UTF-8");
  const std::u16string utf16 = units_of(convert(all, "UTF-16LE"));
  REQUIRE(utf8.size() == 0x80 + 2 * 0x780 + 3 * (0xF800 - 0x800) + 4 * 0x100000);

  std::u16string wide = u"what was there before";
  to_utf16(utf8, &wide);
  CHECK((wide == utf16));
  std::string narrow;
  CHECK(to_utf8(utf16, &narrow) == kNoSurrogate);
  CHECK((narrow == utf8));
}

TEST_CASE("bytes that are no UTF-8 become one U+FFFD for every maximal subpart") {
  struct Case {
    std::string_view bytes;
    std::u16string_view text;
  };
  // Unicode 15, section 3.9, tables 3-8 to 3-11, and texts that are cut.
  const Case cases[] = {
      {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", u"\xFFFD\xFFFD\xFFFD\xFFFD\xFFFD\xFFFD\xFFFD\xFFFD\x41"},
      {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", u"\xFFFD\xFFFD\xFFFD\xFFFD\xFFFD\xFFFD\xFFFD\xFFFD\x41"},
      {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", u"\xFFFD\xFFFD\xFFFD\xFFFD\xFFFD\x41\xFFFD\xFFFD\x42"},
      {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", u"\xFFFD\xFFFD\xFFFD\xFFFD\x41"},
      {"a\xF0\x9F\x98", u"a\xFFFD"},
      {"a\xF0\x9F\x98\x80", u"a\xD83D\xDE00"},
      {"\xE6\xBC", u"\xFFFD"},
      {"", u""},
  };
  for (const Case& c : cases) {
    std::u16string text;
    to_utf16(c.bytes, &text);
    CHECK((text == c.text));
  }
}

TEST_CASE("a surrogate without a partner is pointed at") {
  std::string out;
  CHECK(to_utf8(u"ab\xD83D", &out) == 2);
  CHECK(out == "ab");
  CHECK(to_utf8(u"\xDE00z", &out) == 0);
  CHECK(to_utf8(u"x\xD83Dy", &out) == 1);
  CHECK(to_utf8(u"\xD83D\xD83D\xDE00", &out) == 0);
}

}  // namespace
}  // namespace lethe::jni
