#include "runtime/text/tokenizer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/support/known_patterns.h"

namespace lethe {
namespace {

using test::kGpt2Patterns;
using test::kSmolLmPatterns;

// A vocabulary made by hand: bytes first, then merges in order of rank, then special tokens.
struct TinyVocabulary {
  std::vector<std::string> texts;
  std::vector<uint32_t> offsets, byte_tokens = std::vector<uint32_t>(256, kNoToken), specials;
  std::vector<uint8_t> kinds;
  std::vector<MergeSlot> slots = std::vector<MergeSlot>(1024, {kNoToken, 0, 0, 0});
  std::vector<std::pair<std::string, std::string>> merges;
  std::string bytes;
  TokenizerData data{};

  uint32_t id(std::string_view text) const {
    return static_cast<uint32_t>(std::find(texts.begin(), texts.end(), text) - texts.begin());
  }

  TinyVocabulary(std::string_view alphabet, std::vector<std::pair<std::string, std::string>> merge_list,
                 std::vector<std::string> special_texts, std::span<const std::string_view> patterns)
      : merges(std::move(merge_list)) {
    for (const char byte : alphabet) {
      byte_tokens[static_cast<uint8_t>(byte)] = static_cast<uint32_t>(texts.size());
      texts.emplace_back(1, byte);
    }
    for (const auto& [left, right] : merges) texts.push_back(left + right);
    for (uint32_t rank = 0; rank < merges.size(); ++rank) {
      const auto& [left, right] = merges[rank];
      uint64_t at = merge_hash(id(left), id(right), slots.size());
      while (slots[at].left != kNoToken) at = (at + 1) % slots.size();
      slots[at] = {id(left), id(right), rank, id(left + right)};
    }
    for (const std::string& text : special_texts) {
      specials.push_back(static_cast<uint32_t>(texts.size()));
      texts.push_back(text);
    }
    offsets.push_back(0);
    for (const std::string& text : texts) {
      bytes += text;
      offsets.push_back(static_cast<uint32_t>(bytes.size()));
    }
    kinds.resize(texts.size());
    for (const uint32_t id : specials) kinds[id] = static_cast<uint8_t>(TokenKind::kControl);
    std::sort(specials.begin(), specials.end(), [this](uint32_t a, uint32_t b) { return texts[a] < texts[b]; });
    data.token_offsets = offsets;
    data.token_bytes = bytes;
    data.token_kinds = kinds;
    data.byte_tokens = byte_tokens;
    data.merges = slots;
    data.specials = specials;
    data.split_patterns = patterns;
    data.bos_id = data.eos_id = -1;
  }
};

struct Fixture {
  std::vector<uint8_t> block;
  Tokenizer tokenizer;

  explicit Fixture(const TokenizerData& data, uint64_t max_piece_bytes = 256) {
    Arena measuring = Arena::measuring();
    Tokenizer::layout(measuring, data, max_piece_bytes);
    block.resize(measuring.used() + 64);
    uint8_t* aligned = block.data() + (64 - reinterpret_cast<uintptr_t>(block.data()) % 64) % 64;
    Arena arena(aligned, measuring.used());
    const Tokenizer::Scratch scratch = Tokenizer::layout(arena, data, max_piece_bytes);
    REQUIRE(arena.ok());
    REQUIRE(tokenizer.open(data, scratch).ok());
  }
  std::vector<std::string> texts(std::string_view text, EncodeOptions options = {}) {
    std::vector<int32_t> ids(text.size() + 1);
    uint64_t count = 0;
    const Status status = tokenizer.encode(text, options, ids, &count);
    INFO(status.message());
    REQUIRE(status.ok());
    std::vector<std::string> out;
    for (uint64_t i = 0; i < count; ++i) out.emplace_back(tokenizer.token_text(ids[i]));
    return out;
  }
};

using Texts = std::vector<std::string>;

// Round after round over the whole piece: the definition.
Texts naive_merge(const TinyVocabulary& vocabulary, std::string_view piece) {
  Texts parts;
  for (const char byte : piece) {
    if (vocabulary.byte_tokens[static_cast<uint8_t>(byte)] != kNoToken) parts.emplace_back(1, byte);
  }
  for (;;) {
    size_t best_rank = vocabulary.merges.size(), best_at = 0;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      for (size_t rank = 0; rank < best_rank; ++rank) {
        if (vocabulary.merges[rank] == std::pair(parts[i], parts[i + 1])) {
          best_rank = rank;
          best_at = i;
        }
      }
    }
    if (best_rank == vocabulary.merges.size()) return parts;
    parts[best_at] += parts[best_at + 1];
    parts.erase(parts.begin() + static_cast<ptrdiff_t>(best_at) + 1);
  }
}

TEST_CASE("merges by hand") {
  const TinyVocabulary vocabulary("abc ", {{"a", "b"}, {"b", "c"}, {"ab", "c"}, {" ", "ab"}, {"a", "a"}}, {}, {});
  Fixture fixture(vocabulary.data);
  CHECK(fixture.texts("abc") == Texts{"abc"});  // ab before bc, then abc
  CHECK(fixture.texts("bbc") == Texts{"b", "bc"});
  CHECK(fixture.texts(" abc") == Texts{" ", "abc"});  // abc has the smaller rank than " ab"
  CHECK(fixture.texts(" ab") == Texts{" ab"});
  CHECK(fixture.texts("aaab") == Texts{"aa", "ab"});
  CHECK(fixture.texts("aaa") == Texts{"aa", "a"});  // the leftmost of equals
  CHECK(fixture.texts("").empty());
}

TEST_CASE("random vocabularies merge as the definition says") {
  std::mt19937 random(11);
  for (int trial = 0; trial < 300; ++trial) {
    std::vector<std::pair<std::string, std::string>> merges;
    Texts known = {"a", "b", "c"};
    while (merges.size() < 20) {
      const std::string left = known[random() % known.size()], right = known[random() % known.size()];
      if (std::find(known.begin(), known.end(), left + right) != known.end()) continue;
      merges.emplace_back(left, right);
      known.push_back(left + right);
    }
    std::shuffle(merges.begin(), merges.end(), random);
    const TinyVocabulary vocabulary("abc", merges, {}, {});
    Fixture fixture(vocabulary.data);
    for (int piece = 0; piece < 30; ++piece) {
      std::string text;
      for (size_t n = 1 + random() % (piece == 0 ? 256 : 20); n > 0; --n)
        text += "abcd"[random() % 40 == 0 ? 3 : random() % 3];
      CAPTURE(text);
      REQUIRE(fixture.texts(text) == naive_merge(vocabulary, text));
    }
  }
}

TEST_CASE("bytes without a token are left out and their neighbours meet") {
  const TinyVocabulary vocabulary("ab", {{"a", "b"}}, {}, {});
  Fixture fixture(vocabulary.data);
  CHECK(fixture.texts("azb") == Texts{"ab"});
  CHECK(fixture.texts("zzz").empty());
}

TEST_CASE("pieces merge only inside themselves") {
  const TinyVocabulary vocabulary("ab 1", {{"a", "b"}, {"b", " "}, {" ", "a"}, {"1", "1"}}, {}, kSmolLmPatterns);
  Fixture fixture(vocabulary.data);
  CHECK(fixture.texts("b a") == Texts{"b", " a"});  // in one piece "b " would come first
  CHECK(fixture.texts("b  11") == Texts{"b", " ", " ", "1", "1"});
}

TEST_CASE("special tokens are found first, the longest at the leftmost place, and only when asked for") {
  const TinyVocabulary vocabulary("<end>x|", {{"<", "e"}}, {"<end>", "<e", "|"}, {});
  Fixture fixture(vocabulary.data);
  const EncodeOptions special = {.parse_special = true};
  const auto last = [&](const Texts& texts) { return texts.back(); };
  CHECK(fixture.texts("x<end>x", special) == Texts{"x", "<end>", "x"});
  CHECK(fixture.texts("<<end><en|", special) == Texts{"<", "<end>", "<e", "n", "|"});
  CHECK(last(fixture.texts("x<end", special)) == "d");
  CHECK(fixture.texts("x<end>x") == Texts{"x", "<e", "n", "d", ">", "x"});
  // The same text, but the special token's id.
  std::vector<int32_t> ids(8);
  uint64_t count = 0;
  REQUIRE(fixture.tokenizer.encode("|", special, ids, &count).ok());
  CHECK(ids[0] == static_cast<int32_t>(vocabulary.specials[2]));
  REQUIRE(fixture.tokenizer.encode("|", {}, ids, &count).ok());
  CHECK(ids[0] == static_cast<int32_t>(vocabulary.id("|")));
}

TEST_CASE("the beginning-of-text token comes first when the model has one") {
  TinyVocabulary vocabulary("ab", {}, {"<s>"}, {});
  const EncodeOptions bos = {.add_bos = true};
  {
    Fixture fixture(vocabulary.data);
    CHECK(fixture.texts("a", bos) == Texts{"a"});
  }
  vocabulary.data.bos_id = static_cast<int32_t>(vocabulary.id("<s>"));
  Fixture fixture(vocabulary.data);
  CHECK(fixture.texts("a", bos) == Texts{"<s>", "a"});
  CHECK(fixture.texts("", bos) == Texts{"<s>"});
}

TEST_CASE("errors carry the numbers") {
  const TinyVocabulary vocabulary("ab ", {}, {}, kGpt2Patterns);
  Fixture fixture(vocabulary.data, 8);
  std::vector<int32_t> ids(4);
  uint64_t count = 0;

  Status status = fixture.tokenizer.encode("ab\xC3(", {}, ids, &count);
  CHECK(status.code() == ErrorCode::kInvalidUtf8);
  CHECK(std::string(status.message()) == "the text is not UTF-8: byte 2 is 0xc3");

  status = fixture.tokenizer.encode("ababab", {}, ids, &count);
  CHECK(status.code() == ErrorCode::kPromptTooLong);
  CHECK(std::string(status.message()) == "the text has 6 tokens; there is room for 4");
  CHECK(count == 6);
  CHECK(fixture.tokenizer.encode("abab", {}, ids, &count).ok());
  CHECK(count == 4);

  CHECK(fixture.tokenizer.encode("ab abababab", {}, std::span<int32_t>(), &count).code() == ErrorCode::kPromptTooLong);
  status = fixture.tokenizer.encode("ab ababababa", {}, ids, &count);
  CHECK(status.code() == ErrorCode::kPromptTooLong);
  CHECK(std::string(status.message()) ==
        "the text has a stretch of 10 bytes without a place to split; the tokenizer has work space for 8");
}

TEST_CASE("a sink can stop the encoding") {
  const TinyVocabulary vocabulary("ab", {}, {}, {});
  Fixture fixture(vocabulary.data);
  int calls = 0;
  const Status status = fixture.tokenizer.encode(
      "abab", {},
      [](void* context, int32_t) -> Status {
        return ++*static_cast<int*>(context) < 3 ? Status() : Status::error(ErrorCode::kCancelled, "enough");
      },
      &calls);
  CHECK(status.code() == ErrorCode::kCancelled);
  CHECK(calls == 3);
}

TEST_CASE("token_text of ids outside the vocabulary is empty") {
  const TinyVocabulary vocabulary("ab", {{"a", "b"}}, {}, {});
  Fixture fixture(vocabulary.data);
  CHECK(fixture.tokenizer.token_text(2) == "ab");
  CHECK(fixture.tokenizer.token_text(-1).empty());
  CHECK(fixture.tokenizer.token_text(3).empty());
}

}  // namespace
}  // namespace lethe
