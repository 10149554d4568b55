#include "runtime/text/splitter.h"

#include <doctest/doctest.h>

#include <chrono>
#include <string>
#include <vector>

#include "tests/support/known_patterns.h"

namespace lethe {
namespace {

using test::kGpt2Patterns;
using test::kSmolLmPatterns;

struct Fixture {
  alignas(64) uint8_t block[Splitter::kRegionBytes];
  Splitter splitter;

  Status open(std::span<const std::string_view> patterns, uint64_t bytes = Splitter::kRegionBytes) {
    return splitter.open(patterns, {std::span<uint8_t>(block, bytes)});
  }
  Status split(std::string_view text, std::vector<std::string>* pieces) {
    return splitter.split(
        text,
        [](void* context, std::string_view piece) -> Status {
          static_cast<std::vector<std::string>*>(context)->emplace_back(piece);
          return {};
        },
        pieces);
  }
};

std::vector<std::string> pieces_of(std::span<const std::string_view> patterns, std::string_view text) {
  Fixture fixture;
  REQUIRE(fixture.open(patterns).ok());
  std::vector<std::string> pieces;
  REQUIRE(fixture.split(text, &pieces).ok());
  return pieces;
}

using Pieces = std::vector<std::string>;

// Expected by hand from the pattern in GPT-2's encoder.py.
TEST_CASE("GPT-2's pattern") {
  CHECK(pieces_of(kGpt2Patterns, "Hello world's  2nd day!!") ==
        Pieces{"Hello", " world", "'s", " ", " 2", "nd", " day", "!!"});
  CHECK(pieces_of(kGpt2Patterns, "I'll've don't I'M") == Pieces{"I", "'ll", "'ve", " don", "'t", " I", "'", "M"});
  CHECK(pieces_of(kGpt2Patterns, "a\n\n b \t\n") == Pieces{"a", "\n\n", " b", " \t\n"});
  CHECK(pieces_of(kGpt2Patterns, "caf\u00e9 \u4f60\u597d\u3002") == Pieces{"caf\u00e9", " \u4f60\u597d", "\u3002"});
  CHECK(pieces_of(kGpt2Patterns, "").empty());
}

TEST_CASE("SmolLM's pattern cuts digits first, and the second pattern sees each piece alone") {
  CHECK(pieces_of(kSmolLmPatterns, "in 1984  7") == Pieces{"in", " ", "1", "9", "8", "4", "  ", "7"});
  CHECK(pieces_of(kSmolLmPatterns, "x\u0663\u00bd") == Pieces{"x", "\u0663", "\u00bd"});
}

TEST_CASE("white space, letters and numbers are the reference's where PCRE2's own differ") {
  CHECK(pieces_of(kGpt2Patterns, "a\u180eb") == Pieces{"a", "\u180e", "b"});  // not white space since Unicode 6.3
  CHECK(pieces_of(kGpt2Patterns, "!\u180e!") == Pieces{"!\u180e!"});
  CHECK(pieces_of(kGpt2Patterns, "a\u0085\u3000b") == Pieces{"a", "\u0085", "\u3000", "b"});
  CHECK(pieces_of(kGpt2Patterns, "a\U00031350b") == Pieces{"a\U00031350b"});  // a letter since Unicode 15
  CHECK(pieces_of(kGpt2Patterns, "1\U0001ccf02") == Pieces{"1\U0001ccf02"});  // a digit since Unicode 16
  CHECK(pieces_of(kSmolLmPatterns, "\U00016ff4\U00016ff5") == Pieces{"\U00016ff4", "\U00016ff5"});  // Unicode 17
}

TEST_CASE("without patterns the text is one piece") { CHECK(pieces_of({}, "a b") == Pieces{"a b"}); }

TEST_CASE("steady state takes nothing from the region") {
  Fixture fixture;
  REQUIRE(fixture.open(kSmolLmPatterns).ok());
  std::vector<std::string> pieces;
  REQUIRE(fixture.split("first 1 text", &pieces).ok());
  const uint64_t used = fixture.splitter.region_used();
  CHECK(used < Splitter::kRegionBytes);
  std::string text;
  for (int i = 0; i < 2000; ++i) text += "word'll 12   \n\n\u4f60 !? ";
  text += std::string(100000, ' ') + std::string(100000, 'a') + std::string(100000, '!');
  REQUIRE(fixture.split(text, &pieces).ok());
  CHECK(fixture.splitter.region_used() == used);
}

TEST_CASE("hostile patterns end in errors, soon") {
  const std::string long_pattern(20000, 'a');
  std::string deep(100, '('), big = "(?:(?:ab?c){1,900}){1,900}";
  deep += std::string(100, ')');
  for (const std::string_view pattern :
       {std::string_view("("), std::string_view("[z-a]"), std::string_view("\\C"), std::string_view("\xff"),
        std::string_view(long_pattern), std::string_view(deep), std::string_view(big), std::string_view("(?<=a+)b")}) {
    Fixture fixture;
    const std::string_view patterns[] = {pattern};
    const Status status = fixture.open(patterns);
    CAPTURE(pattern);
    CHECK(status.code() == ErrorCode::kUnsupported);
    CHECK(std::string_view(status.message()).size() > 20);
  }
  Fixture too_many;
  CHECK(too_many.open(std::vector<std::string_view>(9, "a")).code() == ErrorCode::kUnsupported);

  const auto begin = std::chrono::steady_clock::now();
  const std::string text = std::string(40, 'a') + "!";
  for (const std::string_view pattern :
       {"(?:a+a+)+b", "(?:(a)|a)*b", "(?=(a*)*b)a", "^(?:a?){40}a{40}\\z", "(?R)?a\\K(?R)b"}) {
    Fixture fixture;
    const std::string_view patterns[] = {pattern};
    if (!fixture.open(patterns).ok()) continue;
    std::vector<std::string> pieces;
    const Status status = fixture.split(text, &pieces);
    CAPTURE(pattern);
    if (status.ok()) {
      std::string joined;
      for (const std::string& piece : pieces) joined += piece;
      CHECK(joined == text);
    } else {
      CHECK(status.code() == ErrorCode::kUnsupported);
    }
  }
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(20));
}

TEST_CASE("exponential backtracking is stopped") {
  Fixture fixture;
  const std::string_view patterns[] = {"(?:a+a+)+b"};
  REQUIRE(fixture.open(patterns).ok());
  std::vector<std::string> pieces;
  CHECK(fixture.split(std::string(60, 'a') + "b?", &pieces).ok());
  CHECK(fixture.split(std::string(60, 'a') + "!b", &pieces).code() == ErrorCode::kUnsupported);
  CHECK(fixture.split("aab", &pieces).ok());  // the object is as good as before
}

TEST_CASE("any region that is too small is an error") {
  Fixture whole;
  REQUIRE(whole.open(kSmolLmPatterns).ok());
  for (uint64_t bytes = 0; bytes < whole.splitter.region_used() + 20 * 1024; bytes += 97) {
    Fixture fixture;
    const Status status = fixture.open(kSmolLmPatterns, bytes);
    REQUIRE(!status.ok());
    REQUIRE((status.code() == ErrorCode::kOutOfMemory || status.code() == ErrorCode::kUnsupported));
  }
}

TEST_CASE("an error of the sink stops the split and comes back") {
  Fixture fixture;
  REQUIRE(fixture.open(kGpt2Patterns).ok());
  int calls = 0;
  const Status status = fixture.splitter.split(
      "a b c",
      [](void* context, std::string_view) -> Status {
        if (++*static_cast<int*>(context) == 2) return Status::error(ErrorCode::kCancelled, "enough");
        return {};
      },
      &calls);
  CHECK(status.code() == ErrorCode::kCancelled);
  CHECK(calls == 2);
}

}  // namespace
}  // namespace lethe
