#include "runtime/text/stop_matcher.h"

#include <doctest/doctest.h>

#include <random>
#include <string>
#include <vector>

namespace lethe {
namespace {

TextSink into(std::string* text) {
  return {[](void* context, std::string_view piece) { static_cast<std::string*>(context)->append(piece); }, text};
}

// Where the text ends: before the longest of the stop strings that are complete first.
size_t naive_end(const std::string& text, const std::vector<std::string_view>& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string_view stop : stops) {
      if (std::string_view(text).substr(0, end).ends_with(stop)) longest = std::max(longest, stop.size());
    }
    if (longest > 0) return end - longest;
  }
  return std::string::npos;
}

// Length of the longest end of `text` that begins a stop string.
size_t naive_held(const std::string& text, const std::vector<std::string_view>& stops) {
  for (size_t size = text.size(); size > 0; --size) {
    for (const std::string_view stop : stops) {
      if (size < stop.size() && stop.starts_with(std::string_view(text).substr(text.size() - size))) return size;
    }
  }
  return 0;
}

TEST_CASE("the text and the hit are those of a plain search, however the stream is cut") {
  const std::vector<std::vector<std::string_view>> sets = {{"ab"},
                                                           {"aab", "ba"},
                                                           {"abab", "bb", "a"},
                                                           {"aaa"},
                                                           {"abcabd"},
                                                           {"abcd", "bc"},
                                                           {"b", "ab", "aab", "aaab"},
                                                           {"aabaaab", "abaaa"},
                                                           {},
                                                           {"\xC3\xA9", "\xC3\xA8t"}};
  std::mt19937 random(3);
  for (const auto& stops : sets) {
    StopMatcher matcher;
    REQUIRE(matcher.open(stops).ok());
    for (int trial = 0; trial < 3000; ++trial) {
      std::string text;
      for (size_t n = random() % 14; n > 0; --n) {
        const auto kind = random() % 12;
        text += kind < 5 ? "a" : kind < 9 ? "b" : kind < 10 ? "c" : kind < 11 ? "d" : "\xC3\xA8";
      }
      std::string out, fed;
      bool hit = false;
      while (fed.size() < text.size() && !hit) {
        const std::string piece = text.substr(fed.size(), 1 + random() % 5);
        fed += piece;
        hit = matcher.feed(piece, into(&out));
        REQUIRE(hit == (naive_end(fed, stops) != std::string::npos));
        if (!hit) {  // all that is certain is out, and nothing else
          REQUIRE(out == fed.substr(0, fed.size() - naive_held(fed, stops)));
        }
      }
      CHECK(matcher.hit() == hit);
      if (hit) {
        const std::string before = out;
        CHECK(matcher.feed("more", into(&out)));
        CHECK(out == before);
      }
      matcher.flush(into(&out));
      CAPTURE(text);
      REQUIRE(out == text.substr(0, naive_end(text, stops)));
    }
  }
}

TEST_CASE("every cut of one text into two gives the same") {
  const std::vector<std::string_view> stops = {"<|im_end|>", "\nUser:"};
  const std::string text = "Hello <|im_\nUser <|im_end|> rest";
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    StopMatcher matcher;
    REQUIRE(matcher.open(stops).ok());
    std::string out;
    bool hit = matcher.feed(text.substr(0, cut), into(&out));
    hit = matcher.feed(text.substr(cut), into(&out));
    CHECK(hit);
    matcher.flush(into(&out));
    CHECK(out == "Hello <|im_\nUser ");
  }
}

TEST_CASE("impossible stop strings are refused with the numbers") {
  StopMatcher matcher;
  const std::string long_stop(65, 'x');
  const auto refused = [&](std::vector<std::string_view> stops) {
    const Status status = matcher.open(stops);
    CHECK(status.code() == ErrorCode::kInvalidArgument);
    return std::string(status.message());
  };
  CHECK(refused({"a", ""}) == "stop string 1 has 0 bytes; 1 to 64 are possible");
  CHECK(refused({long_stop}) == "stop string 0 has 65 bytes; 1 to 64 are possible");
  CHECK(refused({"\xC3"}) == "stop string 0 is not UTF-8");
  CHECK(refused(std::vector<std::string_view>(9, "a")) == "9 stop strings; at most 8 are possible");
  const std::string longest(64, 'x');
  CHECK(matcher.open(std::vector<std::string_view>(8, longest)).ok());
  std::string out;
  CHECK(matcher.feed("y" + longest, into(&out)));
  CHECK(out == "y");
}

}  // namespace
}  // namespace lethe
