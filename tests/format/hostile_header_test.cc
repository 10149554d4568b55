// Headers that are valid FlatBuffers with a right checksum, but lie.
#include <doctest/doctest.h>

#include <cmath>

#include "runtime/model/roles.h"
#include "tests/support/model_bytes.h"
#include "tests/support/tiny_model.h"

using namespace lethe;
using namespace lethe::test;

namespace {

const std::string& tiny_file() {
  static const std::string file = [] {
    TinyOptions options;
    options.type = GgmlType::kQ8_0;
    return read_file(tiny_model_path(options));
  }();
  return file;
}

// The error after `change` to the header, "" when it loads.
template <typename Change>
std::string error_after(Change change, ErrorCode expected = ErrorCode::kCorruptModel) {
  HeaderEntry header = read_header(tiny_file());
  change(header);
  const ParsedModel model = parse_model(replace_header(tiny_file(), build_header(header)));
  if (!model.status.ok()) CHECK(model.status.code() == expected);
  return model.status.message();
}

// The error after a change to the bytes of the tokenizer's segment.
template <typename Change>
std::string error_after_tables(Change change) {
  std::string file = tiny_file();
  const HeaderEntry header = read_header(file);
  change(file.data() + header.segments[0].offset, header.tokenizer);
  const ParsedModel model = parse_model(file);
  if (!model.status.ok()) CHECK(model.status.code() == ErrorCode::kCorruptModel);
  return model.status.message();
}

bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

}  // namespace

#define CHECK_REFUSED(part, ...)                                                      \
  do {                                                                                \
    const std::string error = error_after([&](HeaderEntry& h) { __VA_ARGS__; });      \
    CHECK_MESSAGE(contains(error, part), "expected '" part "' in '" << error << "'"); \
  } while (false)

TEST_CASE("rebuilding without a change loads") {
  CHECK(error_after([](HeaderEntry&) {}).empty());
}

TEST_CASE("versions and identifier") {
  CHECK_REFUSED("version", h.version = kFormatVersion + 1);
  std::string file = tiny_file();
  file[8] = kFormatVersion + 1;
  CHECK(parse_model(file).status.code() == ErrorCode::kNotAModel);
  std::vector<uint8_t> header = build_header(read_header(tiny_file()));
  header[4] = 'X';  // of the identifier LETH
  CHECK(parse_model(replace_header(tiny_file(), header)).status.code() == ErrorCode::kCorruptModel);
}

TEST_CASE("head plans") {
  CHECK(error_after([](HeaderEntry& h) { h.head_plan = {{}, {4, 64}, {0, 1}, {4096, 4096}}; }).empty());
  CHECK_REFUSED("5 windows and 5 sinks for 4 KV heads", h.head_plan.resize(5));
  CHECK_REFUSED("3 windows and 3 sinks for 4 KV heads", h.head_plan.resize(3));
  CHECK_REFUSED("layer 0, KV head 1: a window of 0 and 1 first tokens", h.head_plan = {{}, {1, 0}, {}, {}});
  CHECK_REFUSED("layer 1, KV head 0: a window of 64 and 4097", h.head_plan = {{}, {}, {4097, 64}, {}});
  CHECK_REFUSED("layer 1, KV head 1: a window of 4294967295", h.head_plan = {{}, {}, {}, {4, UINT32_MAX}});
  CHECK_REFUSED("layer 1, KV head 0: the layer has a window of 16", h.head_plan = {{}, {}, {4, 64}, {}};
                h.config.window = 16; h.config.set_local(1));
}

TEST_CASE("segments") {
  CHECK_REFUSED("segment 1", h.segments[1].offset = h.segments[0].offset);
  CHECK_REFUSED("segment 0", h.segments[0].offset = 0);
  CHECK_REFUSED("segment 2", std::swap(h.segments[1], h.segments[2]));
  CHECK_REFUSED("multiple", h.segments[1].offset += 64);
  CHECK_REFUSED("outside the file", h.segments[3].bytes += 1);
  CHECK_REFUSED("outside the file", h.segments[3].bytes = UINT64_MAX);
  CHECK_REFUSED("outside the file", h.segments[3].bytes = UINT64_MAX - h.segments[3].offset + 1);
  CHECK_REFUSED("outside the file", h.segments[3].offset = UINT64_MAX - 16383);
  CHECK_REFUSED("outside the file", h.segments[3].offset = 1ull << 40);
  CHECK_REFUSED("overlaps", h.segments[0].bytes = h.segments[1].offset);
  CHECK_REFUSED("tokenizer: segment", h.segments.clear());
}

TEST_CASE("architecture") {
  CHECK_REFUSED("layers", h.config.layers = 0);
  CHECK_REFUSED("layers", h.config.layers = 1025);
  CHECK_REFUSED("missing", h.config.layers = 3);
  CHECK_REFUSED("layer 1 of 1", h.config.layers = 1);
  CHECK_REFUSED("embed_dim", h.config.embed_dim = 0);
  CHECK_REFUSED("embed_dim", h.config.embed_dim = UINT32_MAX);
  CHECK_REFUSED("architecture needs", h.config.embed_dim = 96);
  CHECK_REFUSED("heads", h.config.heads = 0);
  CHECK_REFUSED("heads", h.config.heads = UINT32_MAX);
  CHECK_REFUSED("heads", h.config.heads = 1u << 28);  // times head_dim is 0 in 32 bits
  CHECK_REFUSED("kv_heads", h.config.kv_heads = 0);
  CHECK_REFUSED("evenly", h.config.kv_heads = 3);
  CHECK_REFUSED("head_dim", h.config.head_dim = 514);
  CHECK_REFUSED("head_dim", h.config.head_dim = 0);
  CHECK_REFUSED("even", h.config.head_dim = 15, h.config.rotary_dim = 14);
  CHECK_REFUSED("even", h.config.rotary_dim = 7);
  CHECK_REFUSED("rotary_dim", h.config.rotary_dim = 18);
  CHECK_REFUSED("ffn_dim", h.config.ffn_dim = (1u << 20) + 1);
  CHECK_REFUSED("vocab", h.config.vocab = (1u << 22) + 1);
  CHECK_REFUSED("vocab", h.config.vocab = 0);
  CHECK_REFUSED("context_length", h.config.context_length = 0);
  for (const float bad : {0.0f, -1.0f, INFINITY, NAN}) {
    CHECK_REFUSED("norm_eps", h.config.norm_eps = bad);
    CHECK_REFUSED("rope_base", h.config.rope_base = bad);
  }
  for (const float bad : {-1.0f, INFINITY, NAN}) {
    CHECK_REFUSED("rope_local_base", h.config.rope_local_base = bad);
    CHECK_REFUSED("rope_magnitude", h.config.rope_magnitude = bad);
    CHECK_REFUSED("attention_scale", h.config.attention_scale = bad);
    CHECK_REFUSED("attention_softcap", h.config.attention_softcap = bad);
    CHECK_REFUSED("logit_softcap", h.config.logit_softcap = bad);
    CHECK_REFUSED("embedding_scale", h.config.embedding_scale = bad);
  }
  CHECK_REFUSED("layer 1 of 2 is local", h.config.set_local(1));  // without a window
  using enum ErrorCode;
  CHECK(contains(error_after([](HeaderEntry& h) { h.config.norm = static_cast<Norm>(2); }, kUnsupported), "norm 2"));
  CHECK(contains(error_after([](HeaderEntry& h) { h.config.activation = static_cast<Activation>(9); }, kUnsupported),
                 "activation 9"));
}

TEST_CASE("tensors") {
  CHECK_REFUSED("missing", h.tensors.pop_back());
  CHECK_REFUSED("missing", h.tensors.clear());
  CHECK_REFUSED("twice", h.tensors[4] = h.tensors[3]);
  CHECK_REFUSED("too many", h.tensors.insert(h.tensors.end(), role_slot_count(2), h.tensors.back()));
  CHECK_REFUSED("overlaps", h.tensors[3].offset = h.tensors[2].offset);
  CHECK_REFUSED("overlaps", h.tensors[3].offset -= 64);
  CHECK_REFUSED("not aligned", h.tensors[1].offset += 4);
  CHECK_REFUSED("outside segment", h.tensors[1].offset += 64);
  CHECK_REFUSED("outside segment", h.tensors[1].offset = UINT64_MAX - 63);
  CHECK_REFUSED("segment 99", h.tensors.back().segment = 99);
  CHECK_REFUSED("segment 0", h.tensors[0].segment = 0);  // the tokenizer's
  CHECK_REFUSED("comes after", h.tensors.back().segment = 1);
  CHECK_REFUSED("layer 2 of 2", h.tensors.back().layer = 2);
  CHECK_REFUSED("layer 1 of 2", h.tensors[0].layer = 1);
  CHECK_REFUSED("architecture needs", h.tensors[0].rows += 1);
  CHECK_REFUSED("architecture needs", h.tensors[0].cols = UINT32_MAX);
  CHECK_REFUSED("architecture needs", std::swap(h.tensors[0].rows, h.tensors[0].cols));
  CHECK_REFUSED("cannot be stored", h.tensors[0].format = WeightFormat::kF32Vector);
  CHECK_REFUSED("cannot be stored", h.tensors[1].format = WeightFormat::kF32);
  CHECK_REFUSED("outside segment", h.tensors[0].format = WeightFormat::kF32);  // four times as large
  CHECK_REFUSED("overlaps", h.tensors[3].format = WeightFormat::kF32);
  using enum ErrorCode;
  CHECK(
      contains(error_after([](HeaderEntry& h) { h.tensors[0].role = static_cast<Role>(9); }, kUnsupported), "role 9"));
  CHECK(contains(error_after([](HeaderEntry& h) { h.tensors[0].role = static_cast<Role>(65535); }, kUnsupported),
                 "role 65535"));
  CHECK(contains(error_after([](HeaderEntry& h) { h.tensors[0].format = static_cast<WeightFormat>(99); }, kUnsupported),
                 "format 99"));
}

TEST_CASE("quantised tensors need whole groups") {
  // A model of f32 weights may have 48 inputs; the same header with q8 may not.
  TinyOptions options;
  options.ffn_dim = 48;
  std::string file = read_file(tiny_model_path(options));
  HeaderEntry header = read_header(file);
  REQUIRE(parse_model(file).status.ok());
  for (TensorEntry& t : header.tensors) {
    if (t.role == Role::kFfnDown) t.format = WeightFormat::kQ8;
  }
  CHECK(contains(parse_model(replace_header(file, build_header(header))).status.message(), "multiple of 32"));
}

TEST_CASE("tokenizer fields") {
  CHECK_REFUSED("segment 9", h.tokenizer.segment = 9);
  CHECK_REFUSED("token_offsets", h.tokenizer.token_offsets = UINT64_MAX - 63);
  CHECK_REFUSED("token_offsets", h.tokenizer.token_offsets += 4);
  CHECK_REFUSED("token_bytes", h.tokenizer.token_bytes_size = UINT64_MAX);
  CHECK_REFUSED("texts span", h.tokenizer.token_bytes_size -= 1);
  CHECK_REFUSED("token_kinds", h.tokenizer.token_kinds = 1ull << 32);
  CHECK_REFUSED("byte_tokens", h.tokenizer.byte_tokens = h.segments[0].bytes / 64 * 64);
  CHECK_REFUSED("merges", h.tokenizer.merge_slots *= 1024);
  CHECK_REFUSED("merge slots", h.tokenizer.merge_slots = UINT64_MAX);
  CHECK_REFUSED("merge slots", h.tokenizer.merge_slots = 1ull << 60);
  CHECK_REFUSED("merge slots", h.tokenizer.merge_slots = 0);
  CHECK_REFUSED("merge slots", h.tokenizer.merge_slots = 48);
  CHECK_REFUSED("special tokens", h.tokenizer.special_count = UINT32_MAX);
  CHECK_REFUSED("specials", h.tokenizer.special_count = 300);
  CHECK_REFUSED("end id", h.tokenizer.end_ids = {-1});
  CHECK_REFUSED("end id", h.tokenizer.end_ids = {300});
  CHECK_REFUSED("bos", h.tokenizer.bos_id = 300);
  CHECK_REFUSED("eos", h.tokenizer.eos_id = -2);
  CHECK_REFUSED("none", h.tokenizer.bos_id = -1, h.tokenizer.add_bos = true);
  CHECK(contains(error_after([](HeaderEntry& h) { h.tokenizer.split_patterns.resize(17); }, ErrorCode::kUnsupported),
                 "split patterns"));
  CHECK(error_after([](HeaderEntry& h) { h.tokenizer.bos_id = h.tokenizer.eos_id = -1; }).empty());
}

#define CHECK_TABLES(part, ...)                                                                                        \
  do {                                                                                                                 \
    const std::string error =                                                                                          \
        error_after_tables([&]([[maybe_unused]] char* at, [[maybe_unused]] const TokenizerEntry& t) { __VA_ARGS__; }); \
    CHECK_MESSAGE(contains(error, part), "expected '" part "' in '" << error << "'");                                  \
  } while (false)

TEST_CASE("tokenizer tables") {
  const uint32_t vocab = read_header(tiny_file()).config.vocab;
  const auto put = [](char* at, uint32_t value) { std::memcpy(at, &value, sizeof value); };
  CHECK_TABLES("texts span", put(at + t.token_offsets, 1));
  CHECK_TABLES("the next at", put(at + t.token_offsets + 40, UINT32_MAX));
  CHECK_TABLES("is not the byte", put(at + t.byte_tokens, 4));
  CHECK_TABLES("byte 0 is token", put(at + t.byte_tokens, vocab));
  CHECK_TABLES("special 0 is token", put(at + t.specials, vocab));
  CHECK_TABLES("out of order", put(at + t.specials + 4, 0));  // twice the same
  CHECK_TABLES("out of order", put(at + t.specials, 5));      // a shorter one first
  for (uint64_t slot = 0; slot < 64; ++slot) {
    const HeaderEntry header = read_header(tiny_file());
    uint32_t left = 0;
    std::memcpy(&left, tiny_file().data() + header.segments[0].offset + header.tokenizer.merges + slot * 16, 4);
    if (left == kNoToken) continue;
    CHECK_TABLES("merge slot", put(at + t.merges + slot * 16, vocab));
    CHECK_TABLES("merge slot", put(at + t.merges + slot * 16 + 4, kNoToken));
    CHECK_TABLES("merge slot", put(at + t.merges + slot * 16 + 12, vocab + 7));
    CHECK_TABLES("is not the merge", put(at + t.merges + slot * 16 + 12, 0));
  }
  // No empty slot: a search would never end.
  CHECK_TABLES(
      "at most 3/4", for (uint64_t slot = 0; slot < t.merge_slots; ++slot) {
        const MergeSlot merge = {3 + 'h', 3 + 'e', 0, 259};
        std::memcpy(at + t.merges + slot * 16, &merge, sizeof merge);
      });
  std::string file = tiny_file();
  const HeaderEntry header = read_header(file);
  file[header.segments[0].offset + header.tokenizer.token_kinds] = 5;
  CHECK(parse_model(file).status.code() == ErrorCode::kUnsupported);
}

TEST_CASE("a file that is not aligned in memory is the caller's error") {
  std::vector<AlignedLine> bytes(tiny_file().size() / 64 + 2);
  std::memcpy(bytes[0].bytes + 8, tiny_file().data(), tiny_file().size());
  ModelReader reader;
  CHECK(reader.open({bytes[0].bytes + 8, tiny_file().size()}).code() == ErrorCode::kInvalidArgument);
}
