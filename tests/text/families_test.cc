// A tiny tokenizer of every family, packed from its Hugging Face folder, against the ids of the library that made it.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "tests/support/base64.h"
#include "tests/support/loaded_tokenizer.h"

namespace lethe {
namespace {

namespace fs = std::filesystem;

// More than any of the fixtures has, as the embedding may have more rows than the tokenizer ids.
constexpr uint32_t kVocab = 2000;

std::string folder_of(const std::string& family) { return LETHE_TEST_DATA "/tokenizers/" + family; }

PackedTokenizer pack(const std::string& family) {
  PackedTokenizer packed;
  const Status status = pack_hf_tokenizer(folder_of(family), kVocab, &packed);
  REQUIRE_MESSAGE(status.ok(), std::string(status.message()));
  return packed;
}

std::vector<int32_t> ids_of(test::LoadedTokenizer& tokenizer, std::string_view text, EncodeOptions options = {}) {
  std::vector<int32_t> ids;
  const Status status = tokenizer.encode(text, options, &ids);
  REQUIRE_MESSAGE(status.ok(), std::string(status.message()));
  return ids;
}

struct Line {
  std::string text;
  bool special;
  std::vector<int32_t> ids;
};

// Written by tools/reference/tokenizer_fixtures.py.
std::vector<Line> lines_of(const std::string& family) {
  std::ifstream file(folder_of(family) + "/vectors.txt");
  std::vector<Line> lines;
  for (std::string line; std::getline(file, line);) {
    const size_t tab = line.find('\t');
    REQUIRE(tab != std::string::npos);
    Line& out = lines.emplace_back(Line{test::from_base64(line.substr(0, tab)), line[tab + 1] == 'S', {}});
    std::istringstream numbers(line.substr(tab + 3));
    for (int32_t id = 0; numbers >> id;) out.ids.push_back(id);
  }
  REQUIRE(lines.size() == 150);
  return lines;
}

TEST_CASE("every family gives the ids of its own library") {
  for (const std::string family : {"gpt2", "llama3", "qwen2", "llama2", "llama2_json", "mistral", "gemma", "unigram",
                                   "unigram_bytes", "unigram_json"}) {
    CAPTURE(family);
    test::LoadedTokenizer tokenizer(pack(family));
    REQUIRE_MESSAGE(tokenizer.status().ok(), std::string(tokenizer.status().message()));
    CHECK(tokenizer.data().token_kinds.size() == kVocab);
    CHECK(tokenizer.data().kind_of(kVocab - 1) == TokenKind::kUnused);
    int different = 0;
    for (const Line& line : lines_of(family)) {
      if (ids_of(tokenizer, line.text, {.parse_special = line.special}) == line.ids) continue;
      ++different;
      MESSAGE(family, ": ", line.text);
    }
    CHECK(different == 0);
  }
}

TEST_CASE("the bytes of a text come back from its tokens") {
  // NFC and the unigram model's normaliser change the text; the others only put a space in front.
  for (const std::string family : {"gpt2", "llama3", "llama2", "llama2_json", "mistral", "gemma", "unigram_bytes"}) {
    CAPTURE(family);
    test::LoadedTokenizer tokenizer(pack(family));
    REQUIRE(tokenizer.status().ok());
    const bool prefixed = tokenizer.data().space_prefix != SpacePrefix::kNone;
    const bool unless_space = tokenizer.data().prefix_unless_space;
    for (const Line& line : lines_of(family)) {
      // U+2581 is a space there; a user-defined token that takes white space along takes it away.
      if (line.text.find("\u2581") != std::string::npos || line.text.find("<|user|>") != std::string::npos) continue;
      const bool added = prefixed && !(unless_space && line.text.starts_with(' '));
      CHECK(tokenizer.text(ids_of(tokenizer, line.text)) == (added ? " " : "") + line.text);
    }
  }
}

TEST_CASE("special ids, the beginning of text and the ends come from the folder's files") {
  test::LoadedTokenizer llama3(pack("llama3"));
  CHECK(llama3.data().bos_id == 0);
  CHECK(llama3.data().eos_id == 1);
  CHECK(llama3.data().add_bos);  // by the template
  CHECK(llama3.data().ignore_merges);
  CHECK(std::vector<int32_t>(llama3.data().end_ids.begin(), llama3.data().end_ids.end()) == std::vector<int32_t>{1});
  CHECK(ids_of(llama3, "a", {.add_bos = true}).front() == 0);
  test::LoadedTokenizer gpt2(pack("gpt2"));
  CHECK_FALSE(gpt2.data().add_bos);
  test::LoadedTokenizer llama2(pack("llama2_json"));
  CHECK(llama2.data().bos_id == 1);
  CHECK(llama2.data().add_bos);  // by tokenizer_config.json
  CHECK(llama2.data().unknown_id == 0);
  CHECK(test::LoadedTokenizer(pack("llama2")).data().add_bos);
}

TEST_CASE("long texts are cut where no token reaches across, and what cannot be cut is an error") {
  test::LoadedTokenizer tokenizer(pack("llama2"));
  std::string text;
  std::vector<int32_t> expected;
  // A sentence many times: the first differs by the space in front alone, as every other begins with one.
  const std::vector<int32_t> sentence = ids_of(tokenizer, "The light of the sun is white.");
  for (int i = 0; i < 1000; ++i) {
    text += i == 0 ? "The light of the sun is white." : " The light of the sun is white.";
    expected.insert(expected.end(), sentence.begin(), sentence.end());
  }
  CHECK(ids_of(tokenizer, text) == expected);
  std::vector<int32_t> ids;
  CHECK(tokenizer.encode(std::string(5000, '='), {}, &ids).code() == ErrorCode::kPromptTooLong);
}

TEST_CASE("cutting changes no ids") {
  for (const std::string family : {"llama2", "mistral", "gemma", "unigram", "unigram_bytes", "unigram_json"}) {
    CAPTURE(family);
    test::LoadedTokenizer cutting(pack(family)), whole(pack(family), false);
    std::string text;
    for (const Line& line : lines_of(family)) {
      text = text.size() > 1000 ? line.text : text + line.text;
      CHECK(ids_of(cutting, text) == ids_of(whole, text));
    }
  }
}

TEST_CASE("NFC of long lines is an error, of many lines not") {
  test::LoadedTokenizer tokenizer(pack("qwen2"));
  std::string lines, composed;
  for (int i = 0; i < 2000; ++i) {
    lines += "cafe\u0301 e\u0323\u0302\n";
    composed += "caf\u00e9 \u1ec7\n";
  }
  CHECK(ids_of(tokenizer, lines) == ids_of(tokenizer, composed));
  std::string line;
  for (int i = 0; i < 2000; ++i) line += "cafe\u0301 ";
  std::vector<int32_t> ids;
  CHECK(tokenizer.encode(line, {}, &ids).code() == ErrorCode::kPromptTooLong);
}

// Where a folder's files are changed.
struct Folder {
  fs::path path = fs::temp_directory_path() / ("lethe-tokenizer-" + std::to_string(getpid()));
  explicit Folder(const std::string& family) {
    fs::remove_all(path);
    fs::copy(folder_of(family), path);
  }
  ~Folder() { fs::remove_all(path); }
  void write(const char* name, std::string_view text) const { std::ofstream(path / name) << text; }
  void replace(const char* name, std::string_view from, std::string_view to) const {
    std::ifstream in(path / name);
    std::string text((std::istreambuf_iterator<char>(in)), {});
    in.close();
    const size_t at = text.find(from);
    REQUIRE(at != std::string::npos);
    write(name, text.replace(at, from.size(), to));
  }
  Status pack(PackedTokenizer* out) const { return pack_hf_tokenizer(path.string(), kVocab, out); }
};

TEST_CASE("chat templates and end ids") {
  const Folder folder("gpt2");
  PackedTokenizer packed;
  folder.write("generation_config.json", R"({"eos_token_id": [1, 7]})");
  folder.write("tokenizer_config.json",
               R"({"chat_template": [{"name": "tools", "template": "T"}, {"name": "default", "template": "D"}]})");
  REQUIRE(folder.pack(&packed).ok());
  CHECK(packed.entry.end_ids == std::vector<int32_t>{1, 7});
  CHECK(packed.entry.chat_template == "D");
  folder.write("chat_template.jinja", "J");
  REQUIRE(folder.pack(&packed).ok());
  CHECK(packed.entry.chat_template == "J");
  folder.write("generation_config.json", R"({"eos_token_id": 70000})");
  CHECK(folder.pack(&packed).code() == ErrorCode::kCorruptModel);
}

TEST_CASE("what is not understood is named") {
  const auto message = [](const std::string& family, std::string_view from, std::string_view to, ErrorCode code) {
    const Folder folder(family);
    folder.replace("tokenizer.json", from, to);
    PackedTokenizer packed;
    const Status status = folder.pack(&packed);
    CHECK(status.code() == code);
    return std::string(status.message());
  };
  using enum ErrorCode;
  CHECK(message("qwen2", R"("NFC")", R"("NFD")", kUnsupported) ==
        "tokenizer.json: the normalizer NFD is not supported");
  CHECK(message("gpt2", R"("BPE")", R"("WordPiece")", kUnsupported).find("WordPiece") != std::string::npos);
  CHECK(message("gpt2", R"("add_prefix_space":false)", R"("add_prefix_space":true)", kUnsupported).find("prefix") !=
        std::string::npos);
  CHECK(message("llama3", R"("Regex":")", R"("Regex":"\\h)", kUnsupported).find("split pattern") != std::string::npos);
  CHECK(message("llama3", R"("Regex":")", R"("Regex":"[a&&b])", kUnsupported).find("intersection") !=
        std::string::npos);
  CHECK(message("llama3", R"("Regex":")", R"("Regex":"()", kUnsupported).find("split pattern") != std::string::npos);
  CHECK(message("gpt2", R"("merges":[[")", R"("merges":[["\u0000)", kCorruptModel).find("merge 0") !=
        std::string::npos);
  CHECK(message("gpt2", "{", "", kCorruptModel).find("tokenizer.json") == 0);
  CHECK(message("gpt2", R"("single_word":false)", R"("single_word":true)", kUnsupported).find("single_word") !=
        std::string::npos);

  const Folder folder("llama2");
  PackedTokenizer packed;
  CHECK(pack_hf_tokenizer(folder.path.string(), 100, &packed).code() == kCorruptModel);
  CHECK(pack_hf_tokenizer(folder_of("gpt2"), 100, &packed).code() == kCorruptModel);
  fs::remove(folder.path / "tokenizer.model");
  CHECK(folder.pack(&packed).code() == kIo);
  folder.write("tokenizer.model", "\n\xff\xff");
  CHECK(folder.pack(&packed).code() == kCorruptModel);
}

TEST_CASE("damaged tables are refused by the loader") {
  const PackedTokenizer good = pack("unigram");
  const auto refused = [&](auto change) {
    PackedTokenizer bad = good;
    change(bad);
    return test::LoadedTokenizer(bad).status().code();
  };
  const auto put = [](PackedTokenizer& to, uint64_t at, uint32_t value) {
    std::memcpy(to.segment.data() + at, &value, sizeof value);
  };
  using enum ErrorCode;
  CHECK(refused([](PackedTokenizer&) {}) == kOk);
  CHECK(refused([](PackedTokenizer& t) { t.entry.lookup_slots = 0; }) == kCorruptModel);
  CHECK(refused([](PackedTokenizer& t) { t.entry.lookup_slots = 48; }) == kCorruptModel);
  CHECK(refused([](PackedTokenizer& t) { t.entry.lookup += 4; }) == kCorruptModel);
  CHECK(refused([](PackedTokenizer& t) { t.entry.has_scores = false; }) == kCorruptModel);
  CHECK(refused([](PackedTokenizer& t) { t.entry.scores = UINT64_MAX / 64 * 64; }) == kCorruptModel);
  CHECK(refused([](PackedTokenizer& t) { t.entry.neighbour_words = 3; }) == kCorruptModel);
  CHECK(refused([](PackedTokenizer& t) { t.entry.charsmap_unit_count = UINT64_MAX / 2; }) == kCorruptModel);
  CHECK(refused([](PackedTokenizer& t) { t.entry.charsmap_texts_size -= 1; }) == kCorruptModel);
  CHECK(refused([](PackedTokenizer& t) { t.entry.unknown_id = 1 << 20; }) == kCorruptModel);
  CHECK(refused([](PackedTokenizer& t) { t.entry.kind = static_cast<TokenizerKind>(9); }) == kUnsupported);
  CHECK(refused([](PackedTokenizer& t) { t.entry.space_prefix = static_cast<SpacePrefix>(9); }) == kUnsupported);
  CHECK(refused([&](PackedTokenizer& t) { put(t, t.entry.lookup, kVocab); }) == kCorruptModel);
  CHECK(refused([&](PackedTokenizer& t) { put(t, t.entry.scores, 0x7f800000); }) == kCorruptModel);
  CHECK(refused([&](PackedTokenizer& t) {
          for (uint64_t i = 0; i < t.entry.lookup_slots; ++i) put(t, t.entry.lookup + 4 * i, 5);
        }) == kCorruptModel);
  // The trie is checked where it is walked: any damage gives other ids, nothing worse.
  for (uint64_t i = 0; i < good.entry.charsmap_unit_count; i += 7) {
    PackedTokenizer bad = good;
    put(bad, bad.entry.charsmap_units + 4 * i, 0xfffffc00u | static_cast<uint32_t>(i));
    test::LoadedTokenizer tokenizer(bad);
    REQUIRE(tokenizer.status().ok());
    (void)ids_of(tokenizer, "\uff21\uff22 \ufb01 e\u0301 x\u3000y");
  }
}

}  // namespace
}  // namespace lethe
