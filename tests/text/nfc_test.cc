#include "runtime/text/nfc.h"

#include <doctest/doctest.h>

#include <string>

namespace lethe {
namespace {

std::string nfc_of(std::string_view text) {
  std::string out;
  const Status status = nfc::normalise(
      text,
      [](void* context, std::string_view character) -> Status {
        static_cast<std::string*>(context)->append(character);
        return {};
      },
      &out);
  CHECK(status.ok());
  CHECK(nfc::is_normal(text) == (out == text));
  return out;
}

// From the Unicode Standard Annex #15 and its NormalizationTest.txt.
TEST_CASE("NFC") {
  CHECK(nfc_of("").empty());
  CHECK(nfc_of("plain text \U0001f600 \u4f60\u597d") == "plain text \U0001f600 \u4f60\u597d");
  CHECK(nfc_of("D\u0307\u0323") == "\u1e0c\u0307");
  CHECK(nfc_of("\u1e9b\u0323") == "\u1e9b\u0323");
  CHECK(nfc_of("\u212b \u2126 \u212a") == "\u00c5 \u03a9 K");  // singletons
  CHECK(nfc_of("\u0958") == "\u0915\u093c");                   // excluded from composition
  CHECK(nfc_of("\u0344") == "\u0308\u0301");
  CHECK(nfc_of("a\u0315\u0300\u05ae\u0300b") == "\u00e0\u05ae\u0300\u0315b");  // ordered, then blocked
  CHECK(nfc_of("\u1100\u1161\u11a8 \u1100\uac00\u11a8") == "\uac01 \u1100\uac01");
  CHECK(nfc_of("\uac00\u11a7") == "\uac00\u11a7");  // one before the first trailing consonant
  CHECK(nfc_of("\u09c7\u09be \u09c7\u0334\u09be") == "\u09cb \u09c7\u0334\u09be");  // two starters
  CHECK(nfc_of("\uf900\ufb1d") == "\u8c48\u05d9\u05b4");
  CHECK(nfc_of("\u0300a") == "\u0300a");  // nothing before it
}

TEST_CASE("endless marks are an error") {
  std::string text = "e";
  for (size_t i = 0; i < nfc::kMaxRun; ++i) text += "\u0316";
  const auto ignore = [](void*, std::string_view) -> Status { return {}; };
  CHECK(nfc::normalise(text, ignore, nullptr).code() == ErrorCode::kUnsupported);
  CHECK_FALSE(nfc::is_normal(text));
  CHECK(nfc::normalise(text.substr(1), ignore, nullptr).ok());
}

TEST_CASE("an error of the sink comes back") {
  const auto refuse = [](void*, std::string_view) { return Status::error(ErrorCode::kCancelled, "enough"); };
  CHECK(nfc::normalise("ab", refuse, nullptr).code() == ErrorCode::kCancelled);
}

}  // namespace
}  // namespace lethe
