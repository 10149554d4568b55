// The tokenizer's tables of a packed tiny model, against what its GGUF file says.
#include <doctest/doctest.h>

#include <cstdio>
#include <memory>
#include <string>
#include <tuple>

#include "tests/support/known_patterns.h"
#include "tests/support/model_bytes.h"
#include "tests/support/tiny_model.h"
#include "tools/pack/tokenizer.h"
#include "tools/pack/tokenizer_files.h"

using namespace lethe;
using namespace lethe::test;

namespace {

// A search of the merge table as model.h describes it.
const MergeSlot* find_merge(const TokenizerData& data, uint32_t left, uint32_t right) {
  uint64_t at = merge_hash(left, right, data.merges.size());
  while (data.merges[at].left != kNoToken) {
    if (data.merges[at].left == left && data.merges[at].right == right) return &data.merges[at];
    at = (at + 1) % data.merges.size();
  }
  return nullptr;
}

ParsedModel pack(const GgufSource& source) {
  PackOptions options = {temporary_path(".gguf"), temporary_path(".lethe"), PackType::kKeep, {}};
  write_file(options.input, source.bytes());
  PackReport report;
  const Status status = pack_model(options, &report);
  if (!status.ok()) FAIL(status.message());
  return parse_model(read_file(options.output));
}

Status pack_status(const GgufSource& source) {
  PackOptions options = {temporary_path(".gguf"), temporary_path(".lethe"), PackType::kKeep, {}};
  write_file(options.input, source.bytes());
  PackReport report;
  return pack_model(options, &report);
}

}  // namespace

TEST_CASE("tokens are raw bytes, specials literal text") {
  const ParsedModel model = pack(tiny_gguf({}));
  REQUIRE(model.status.ok());
  const TokenizerData& data = model.contents.tokenizer;
  CHECK(data.token(0) == "<|endoftext|>");
  CHECK(data.token(2) == "<|im_end|>");
  for (uint32_t byte = 0; byte < 256; ++byte) {
    CHECK(data.byte_tokens[byte] == 3 + byte);
    CHECK(data.token(3 + byte) == std::string(1, static_cast<char>(byte)));
    CHECK(data.token_kinds[3 + byte] == static_cast<uint8_t>(TokenKind::kNormal));
  }
  CHECK(data.token(259) == "he");
  CHECK(data.token(262) == "hello");
  CHECK(data.token(264) == " the");
  CHECK(data.token_kinds[0] == static_cast<uint8_t>(TokenKind::kControl));
  CHECK(std::vector<uint32_t>(data.specials.begin(), data.specials.end()) ==
        std::vector<uint32_t>{0, 2, 1});  // by text
  CHECK(std::vector<int32_t>(data.end_ids.begin(), data.end_ids.end()) == std::vector<int32_t>{0, 2});
  CHECK(data.bos_id == 1);
  CHECK(data.eos_id == 2);
  CHECK_FALSE(data.add_bos);
  CHECK(data.chat_template.substr(0, 30) == "{% for message in messages %}{");
  REQUIRE(data.split_patterns.size() == 2);
  CHECK(data.split_patterns[0] == digits_pattern(true));
  CHECK(data.split_patterns[1] == gpt2_pattern());
}

TEST_CASE("every merge is found with its rank, and nothing else") {
  const ParsedModel model = pack(tiny_gguf({}));
  REQUIRE(model.status.ok());
  const TokenizerData& data = model.contents.tokenizer;
  const uint32_t merges = model.contents.config.vocab - 259;
  CHECK(data.merges.size() == 64);
  uint32_t found = 0;
  for (uint32_t left = 0; left < model.contents.config.vocab; ++left) {
    for (uint32_t right = 0; right < model.contents.config.vocab; ++right) {
      const MergeSlot* slot = find_merge(data, left, right);
      if (slot == nullptr) continue;
      ++found;
      CHECK(slot->merged == 259 + slot->rank);  // the tiny vocabulary has its merges in order of rank
      CHECK(data.token(slot->merged) == std::string(data.token(left)) + std::string(data.token(right)));
    }
  }
  CHECK(found == merges);
}

TEST_CASE("specials are sorted by text; user-defined tokens are literal; end ids are control tokens") {
  GgufSource source = tiny_gguf({});
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
  const TinyOptions options;
  // The tokens of the tiny model with three of the byte tokens' places taken by added ones would break the merges:
  // append instead, and widen the embedding.
  const ParsedModel before = pack(source);
  const uint32_t vocab = before.contents.config.vocab;
  GgufFile gguf;
  const std::string bytes = source.bytes();
  REQUIRE(gguf.parse({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}).ok());
  std::optional<std::vector<std::string_view>> texts;
  REQUIRE(gguf.read_strings("tokenizer.ggml.tokens", &texts).ok());
  for (const std::string_view text : *texts) tokens.emplace_back(text);
  types.assign(vocab, 1);
  types[0] = types[1] = types[2] = 3;
  tokens.insert(tokens.end(), {"<|eot_id|>", "  \xc3\xa9", "<|end|>", "unused"});
  types.insert(types.end(), {3, 4, 1, 5});
  tokens[vocab + 2] = "<end>";  // a normal token: no special, no end
  source.set_strings("tokenizer.ggml.tokens", tokens);
  source.set_i32s("tokenizer.ggml.token_type", types);
  source.set_u32("llama.vocab_size", vocab + 4);
  GgufSourceTensor& embedding = source.tensor("token_embd.weight");
  embedding.dims[1] = vocab + 4;
  embedding.data.resize(embedding.data.size() + 4 * options.embed_dim * 4);

  const ParsedModel model = pack(source);
  REQUIRE(model.status.ok());
  const TokenizerData& data = model.contents.tokenizer;
  CHECK(std::vector<uint32_t>(data.specials.begin(), data.specials.end()) ==
        std::vector<uint32_t>{vocab + 1, 0, vocab, 2, 1});
  CHECK(data.token(vocab + 1) == "  \xc3\xa9");
  CHECK(data.token_kinds[vocab + 1] == static_cast<uint8_t>(TokenKind::kUserDefined));
  CHECK(data.token_kinds[vocab + 3] == static_cast<uint8_t>(TokenKind::kUnused));
  CHECK(std::vector<int32_t>(data.end_ids.begin(), data.end_ids.end()) ==
        std::vector<int32_t>{0, 2, static_cast<int32_t>(vocab)});
}

TEST_CASE("bytes without a token are marked") {
  TinyOptions options;
  options.all_bytes = false;
  const ParsedModel model = pack(tiny_gguf(options));
  REQUIRE(model.status.ok());
  CHECK(model.contents.tokenizer.byte_tokens['z'] == kNoToken);
  CHECK(model.contents.tokenizer.byte_tokens[0xff] == kNoToken);
  CHECK(model.contents.tokenizer.token(model.contents.tokenizer.byte_tokens['h']) == "h");
}

TEST_CASE("the gpt-2 pre-tokenizer has one pattern, unknown ones are refused") {
  GgufSource source = tiny_gguf({});
  source.set_string("tokenizer.ggml.pre", "gpt-2");
  CHECK(pack(source).contents.tokenizer.split_patterns.size() == 1);
  source.set_string("tokenizer.ggml.pre", "llama-bpe");
  CHECK(pack(source).contents.tokenizer.ignore_merges);
  source.set_string("tokenizer.ggml.pre", "bert-bge");
  CHECK(pack_status(source).code() == ErrorCode::kUnsupported);
  source.set_string("tokenizer.ggml.pre", "smollm");
  source.set_string("tokenizer.ggml.model", "bert");
  CHECK(pack_status(source).code() == ErrorCode::kUnsupported);
}

TEST_CASE("broken tokenizers are refused") {
  const GgufSource good = tiny_gguf({});
  const auto code = [&](auto change) {
    GgufSource source = good;
    change(source);
    return pack_status(source).code();
  };
  using enum ErrorCode;
  for (const char* key : {"tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.tokens",
                          "tokenizer.ggml.token_type", "tokenizer.ggml.merges"}) {
    CHECK(code([&](GgufSource& s) { s.erase(key); }) == kCorruptModel);
    CHECK(code([&](GgufSource& s) { s.set_f32(key, 1); }) == kCorruptModel);
  }
  CHECK(code([](GgufSource& s) { s.set_strings("tokenizer.ggml.tokens", {"a"}); }) == kCorruptModel);
  CHECK(code([](GgufSource& s) { s.set_strings("tokenizer.ggml.merges", {"h"}); }) == kCorruptModel);
  CHECK(code([](GgufSource& s) { s.set_strings("tokenizer.ggml.merges", {""}); }) == kCorruptModel);
  CHECK(code([](GgufSource& s) { s.set_strings("tokenizer.ggml.merges", {"h q"}); }) == kCorruptModel);
  CHECK(code([](GgufSource& s) { s.set_u32("tokenizer.ggml.eos_token_id", 1u << 30); }) == kCorruptModel);
  CHECK(code([](GgufSource& s) { s.set_u32("llama.vocab_size", 7); }) == kCorruptModel);
  CHECK(code([](GgufSource& s) {
          s.erase("tokenizer.ggml.bos_token_id");
          s.set_bool("tokenizer.ggml.add_bos_token", true);
        }) == kCorruptModel);
  // A duplicate merge keeps its first rank.
  GgufSource twice = good;
  twice.set_strings("tokenizer.ggml.merges", {"h e", "l l", "h e"});
  const ParsedModel model = pack(twice);
  const TokenizerData& data = model.contents.tokenizer;
  const MergeSlot* slot = find_merge(data, 3 + 'h', 3 + 'e');
  REQUIRE(slot != nullptr);
  CHECK(slot->rank == 0);
}

namespace {

// The tokenizer of a SentencePiece model as llama.cpp's converter writes it.
GgufSource gguf_of(const TokenizerSource& source, std::string_view model) {
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
  std::string scores;
  const auto put = [&](auto value) { scores.append(reinterpret_cast<const char*>(&value), sizeof value); };
  put(uint32_t{9});  // an array of F32
  put(uint32_t{6});
  put(uint64_t{source.tokens.size()});
  for (const SourceToken& token : source.tokens) {
    std::string text;
    for (const char byte : token.text) text += byte == ' ' ? "\u2581" : std::string(1, byte);
    if (token.kind == TokenKind::kByte) {
      char name[8];
      std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned>(static_cast<uint8_t>(token.text[0])));
      text = name;
    }
    static constexpr int32_t kTypes[] = {1, 3, 4, 6, 5};  // in order of TokenKind
    tokens.push_back(text);
    types.push_back(kTypes[static_cast<size_t>(token.kind)]);
    put(token.score);
  }
  GgufSource out;
  out.set_string("tokenizer.ggml.model", model);
  out.set_strings("tokenizer.ggml.tokens", tokens);
  out.set_i32s("tokenizer.ggml.token_type", types);
  out.set_raw("tokenizer.ggml.scores", scores);
  return out;
}

Status pack_tokenizer(const GgufSource& source, PackedTokenizer* out) {
  const std::string bytes = source.bytes();
  GgufFile gguf;
  const Status parsed = gguf.parse({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
  REQUIRE(parsed.ok());
  return pack_gguf_tokenizer(gguf, out);
}

TokenizerSource sentencepiece_model(const std::string& family) {
  TokenizerSource source;
  REQUIRE(
      read_sentencepiece_model(read_file(LETHE_TEST_DATA "/tokenizers/" + family + "/tokenizer.model"), &source).ok());
  return source;
}

}  // namespace

TEST_CASE("a GGUF file gives the same tokenizer as the SentencePiece model behind it") {
  for (const auto& [family, model, prefix] :
       {std::tuple("llama2", "llama", true), {"gemma", "llama", false}, {"unigram_bytes", "t5", true}}) {
    CAPTURE(family);
    const TokenizerSource source = sentencepiece_model(family);
    GgufSource gguf = gguf_of(source, model);
    gguf.set_bool("tokenizer.ggml.add_space_prefix", prefix);
    gguf.set_u32("tokenizer.ggml.unknown_token_id", 0);
    PackedTokenizer packed, expected;
    const Status status = pack_tokenizer(gguf, &packed);
    REQUIRE_MESSAGE(status.ok(), std::string(status.message()));
    REQUIRE(build_tokenizer(source, &expected).ok());
    CHECK(packed.segment == expected.segment);
    CHECK(packed.entry.kind == expected.entry.kind);
    CHECK(packed.entry.unknown_score == expected.entry.unknown_score);
    CHECK((packed.entry.space_prefix == SpacePrefix::kEvery) == prefix);
  }
}

TEST_CASE("what a GGUF file does not say about a llama tokenizer") {
  GgufSource gguf = gguf_of(sentencepiece_model("llama2"), "llama");
  PackedTokenizer packed;
  REQUIRE(pack_tokenizer(gguf, &packed).ok());
  CHECK(packed.entry.bos_id == 1);
  CHECK(packed.entry.eos_id == 2);
  CHECK(packed.entry.unknown_id == 0);
  CHECK(packed.entry.add_bos);
  CHECK(packed.entry.space_prefix == SpacePrefix::kEvery);
  gguf.erase("tokenizer.ggml.scores");
  CHECK(pack_tokenizer(gguf, &packed).code() == ErrorCode::kCorruptModel);
  gguf.set_i32s("tokenizer.ggml.scores", {1, 2});
  CHECK(pack_tokenizer(gguf, &packed).code() == ErrorCode::kCorruptModel);
}
