// Damaged and hostile GGUF files, and models that contradict themselves. Nothing may be left behind.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/resource.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>

#include "tests/support/tiny_model.h"

using namespace lethe;
using namespace lethe::test;

namespace {

// A folder of its own for one test, so that leftovers are seen.
struct Folder {
  Folder() : path(temporary_path("-folder")) { std::filesystem::create_directory(path); }
  ~Folder() { std::filesystem::remove_all(path); }
  size_t files() const { return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(path), {})); }
  std::string path;
};

// Packs `bytes` in a fresh folder; when that fails, checks that only the input is left.
Status pack_bytes(std::string_view bytes, PackType type = PackType::kKeep) {
  const Folder folder;
  PackOptions options = {folder.path + "/in.gguf", folder.path + "/out.lethe", type, {}};
  write_file(options.input, bytes);
  PackReport report;
  const Status status = pack_model(options, &report);
  CHECK(folder.files() == (status.ok() ? 2 : 1));
  return status;
}

bool is_refusal(const Status& status) {
  return status.code() == ErrorCode::kNotAModel || status.code() == ErrorCode::kCorruptModel ||
         status.code() == ErrorCode::kUnsupported;
}

GgufSource small_source(GgmlType type = GgmlType::kF32) {
  TinyOptions options;
  options.type = type;
  options.layers = 1;
  options.all_bytes = false;
  return tiny_gguf(options);
}

bool contains(const Status& status, const char* part) {
  return std::string(status.message()).find(part) != std::string::npos;
}

std::string u64(uint64_t value) { return {reinterpret_cast<const char*>(&value), sizeof value}; }
std::string u32(uint32_t value) { return {reinterpret_cast<const char*>(&value), sizeof value}; }

}  // namespace

#define CHECK_REFUSED(code_, part, ...)                                                           \
  do {                                                                                            \
    GgufSource s = small_source();                                                                \
    __VA_ARGS__;                                                                                  \
    const Status status = pack_bytes(s.bytes());                                                  \
    CHECK(status.code() == ErrorCode::code_);                                                     \
    CHECK_MESSAGE(contains(status, part), "expected '" part "' in '" << status.message() << "'"); \
  } while (false)

TEST_CASE("GGUF 2 and 3 are read, others are not") {
  GgufSource source = small_source();
  CHECK(pack_bytes(source.bytes()).ok());
  source.version = 2;
  CHECK(pack_bytes(source.bytes()).ok());
  CHECK_REFUSED(kUnsupported, "version 1", s.version = 1);
  CHECK_REFUSED(kUnsupported, "version 4", s.version = 4);
  CHECK_REFUSED(kUnsupported, "big endian", s.version = 0x03000000);
  CHECK(pack_bytes("GGML is something else").code() == ErrorCode::kNotAModel);
  CHECK(pack_bytes("x").code() == ErrorCode::kNotAModel);
  CHECK(pack_bytes("").code() == ErrorCode::kIo);
}

TEST_CASE("a file cut off anywhere is refused") {
  uint64_t metadata = 0;
  const std::string bytes = small_source().bytes(&metadata);
  const auto parse = [](std::string_view cut) {
    // At the end of its own allocation, so that a read past it is seen by the address sanitizer.
    const std::vector<uint8_t> copy(cut.begin(), cut.end());
    GgufFile file;
    return file.parse(copy);
  };
  size_t accepted = 0;
  for (size_t length = 0; length <= metadata; ++length) {
    accepted += !is_refusal(parse(std::string_view(bytes).substr(0, length)));
  }
  CHECK(accepted == 0);
  CHECK(parse(bytes).ok());
  for (size_t length = metadata; length < bytes.size(); length += 997) {
    const Status status = pack_bytes(std::string_view(bytes).substr(0, length));
    CHECK(status.code() == ErrorCode::kCorruptModel);
    CHECK(contains(status, "lie outside the file"));
  }
}

TEST_CASE("any flip in the metadata is refused or gives a model that loads") {
  uint64_t metadata = 0;
  TinyOptions options;
  options.layers = 1;
  options.all_bytes = false;
  options.embed_dim = 32;
  options.head_dim = 8;
  options.ffn_dim = 32;
  const std::string good = tiny_gguf(options).bytes(&metadata);
  const Folder folder;
  PackOptions pack = {folder.path + "/in.gguf", folder.path + "/out.lethe", PackType::kKeep, {}};
  size_t packed = 0;
  for (size_t at = 0; at < metadata; at += 3) {
    std::string bytes = good;
    bytes[at] = static_cast<char>(bytes[at] ^ (at % 2 == 0 ? 0x01 : 0xff));
    write_file(pack.input, bytes);
    PackReport report;
    const Status status = pack_model(pack, &report);
    if (!status.ok()) {
      CHECK(is_refusal(status));
      continue;
    }
    ++packed;
    Result<Model*> model = Model::open(pack.output.c_str());
    CHECK_MESSAGE(model.ok(), "byte " << at << ": " << model.status().message());
    if (model.ok()) Model::close(model.value());
  }
  CHECK(packed > 0);
}

TEST_CASE("hostile counts and sizes") {
  const std::string head = "GGUF" + u32(3);
  const auto key = [](const std::string& name, const std::string& value) { return u64(name.size()) + name + value; };
  const uint64_t huge = UINT64_MAX;
  CHECK(is_refusal(pack_bytes(head + u64(huge) + u64(huge))));
  CHECK(is_refusal(pack_bytes(head + u64(0) + u64(huge) + key("a", u32(4) + u32(1)))));
  CHECK(is_refusal(pack_bytes(head + u64(0) + u64(1) + u64(huge) + "key")));
  CHECK(is_refusal(pack_bytes(head + u64(0) + u64(1) + key("a", u32(8) + u64(huge) + "text"))));
  CHECK(is_refusal(pack_bytes(head + u64(0) + u64(1) + key("a", u32(9) + u32(4) + u64(huge)))));
  CHECK(is_refusal(pack_bytes(head + u64(0) + u64(1) + key("a", u32(9) + u32(8) + u64(huge) + u64(0)))));
  CHECK(is_refusal(pack_bytes(head + u64(0) + u64(1) + key("a", u32(9) + u32(10) + u64(huge / 8 + 1)))));
  CHECK(is_refusal(pack_bytes(head + u64(0) + u64(1) + key("a", u32(13) + u64(0)))));
  CHECK(is_refusal(pack_bytes(head + u64(0) + u64(1) + key("", u32(4) + u32(1)))));
  std::string nested;
  for (int i = 0; i < 1000; ++i) nested += u32(9) + (i == 0 ? "" : u64(1));
  CHECK(is_refusal(pack_bytes(head + u64(0) + u64(1) + key("a", nested + u32(4) + u64(0)))));
  CHECK_REFUSED(kCorruptModel, "twice", s.keys.push_back(s.keys[0]));
  CHECK_REFUSED(kCorruptModel, "twice", s.tensors.push_back(s.tensors[0]));
  CHECK_REFUSED(kCorruptModel, "alignment", s.set_u32("general.alignment", 0));
  CHECK_REFUSED(kCorruptModel, "alignment", s.set_u32("general.alignment", 48));
  CHECK_REFUSED(kCorruptModel, "alignment", s.set_u32("general.alignment", 1u << 31));
  CHECK_REFUSED(kCorruptModel, "impossible", s.tensors[0].dims = {1ull << 63, 2});
  CHECK_REFUSED(kCorruptModel, "impossible", s.tensors[0].dims = {64, 1ull << 60, 1ull << 60});
  CHECK_REFUSED(kCorruptModel, "impossible", s.tensors[0].dims = {64, 0});
  CHECK_REFUSED(kCorruptModel, "impossible", s.tensors[0].dims = {});
  CHECK_REFUSED(kCorruptModel, "impossible", s.tensors[0].dims = {1, 1, 1, 1, 1});
  CHECK_REFUSED(kCorruptModel, "impossible", s.tensors[0].type = GgmlType::kQ4_0, s.tensors[0].dims = {48, 2});
  CHECK_REFUSED(kCorruptModel, "impossible", s.tensors[0].type = GgmlType::kQ6_K, s.tensors[0].dims = {320, 2});
}

TEST_CASE("unsupported tensors and keys are named") {
  CHECK_REFUSED(kUnsupported, "token_embd.weight has type Q2_K (10)", s.tensors[0].type = static_cast<GgmlType>(10));
  CHECK_REFUSED(kUnsupported, "type unknown (999)", s.tensors[0].type = static_cast<GgmlType>(999));
  CHECK_REFUSED(kCorruptModel, "divided by 0",
                s.tensors.push_back({"rope_freqs.weight", GgmlType::kF32, {8}, std::string(32, '\0')}));
  CHECK_REFUSED(kUnsupported, "blk.0.attn_q.scale",
                s.tensors.push_back({"blk.0.attn_q.scale", GgmlType::kF32, {64}, std::string(256, '\0')}));
  CHECK_REFUSED(kUnsupported, "blk.00.attn_q.weight", s.tensor("blk.0.attn_q.weight").name = "blk.00.attn_q.weight");
  CHECK_REFUSED(kUnsupported, "blk.4294967296", s.tensor("blk.0.attn_q.weight").name = "blk.4294967296.attn_q.weight");
  CHECK_REFUSED(kUnsupported, "blk.1.attn_q.weight", s.tensor("blk.0.attn_q.weight").name = "blk.1.attn_q.weight");
  CHECK_REFUSED(kUnsupported, "in.gguf: architecture mamba; supported: llama, qwen2",
                s.set_string("general.architecture", "mamba"));
  CHECK_REFUSED(kUnsupported, "longrope", s.set_string("llama.rope.scaling.type", "longrope"));
  CHECK_REFUSED(kUnsupported, "llama.logit_scale is 2", s.set_f32("llama.logit_scale", 2));
  CHECK_REFUSED(kUnsupported, "expert_count", s.set_u32("llama.expert_count", 8));
  CHECK_REFUSED(kUnsupported, "values of 8", s.set_u32("llama.attention.value_length", 8));
  GgufSource harmless = small_source();
  harmless.set_string("llama.rope.scaling.type", "linear");
  harmless.set_f32("llama.rope.scaling.factor", 1);
  harmless.set_u32("llama.expert_count", 0);
  CHECK(pack_bytes(harmless.bytes()).ok());
}

TEST_CASE("a window is of all layers, or of a pattern") {
  TinyOptions shape;
  shape.layers = 4;
  const auto locals = [&](const std::function<void(GgufSource&)>& change) {
    GgufSource source = tiny_gguf(shape);
    source.set_u32("llama.attention.sliding_window", 16);
    change(source);
    PackOptions pack = {temporary_path(".gguf"), temporary_path(".lethe"), PackType::kKeep, {}};
    write_file(pack.input, source.bytes());
    PackReport report;
    const Status status = pack_model(pack, &report);
    REQUIRE_MESSAGE(status.ok(), std::string(status.message()));
    Result<Model*> model = Model::open(pack.output.c_str());
    REQUIRE(model.ok());
    std::string out = std::to_string(model.value()->config().window) + ":";
    for (uint32_t layer = 0; layer < 4; ++layer) out += model.value()->config().is_local(layer) ? 'l' : 'g';
    Model::close(model.value());
    return out;
  };
  const char* key = "llama.attention.sliding_window_pattern";
  CHECK(locals([](GgufSource&) {}) == "16:llll");
  CHECK(locals([&](GgufSource& s) { s.set_u32(key, 3); }) == "16:llgl");
  CHECK(locals([&](GgufSource& s) { s.set_u32(key, 1); }) == "0:gggg");
  CHECK(locals([&](GgufSource& s) { s.set_i32s(key, {0, 1, 1, 0}); }) == "16:gllg");
  CHECK(locals([&](GgufSource& s) { s.set_u32("llama.attention.sliding_window", 0); }) == "0:gggg");
}

TEST_CASE("models that contradict themselves") {
  CHECK_REFUSED(kCorruptModel, "2 layers are local or global, the model has 1",
                s.set_i32s("llama.attention.sliding_window_pattern", {0, 1}));
  CHECK_REFUSED(kCorruptModel, "general.architecture is missing", s.erase("general.architecture"));
  CHECK_REFUSED(kCorruptModel, "block_count is missing", s.erase("llama.block_count"));
  CHECK_REFUSED(kCorruptModel, "block_count is not", s.set_f32("llama.block_count", 1));
  CHECK_REFUSED(kCorruptModel, "layers is 0", s.set_u32("llama.block_count", 0));
  CHECK_REFUSED(kCorruptModel, "layers is 4000000000", s.set_u32("llama.block_count", 4000000000u));
  CHECK_REFUSED(kCorruptModel, "heads is 0", s.set_u32("llama.attention.head_count", 0),
                s.erase("llama.attention.head_count_kv"));
  CHECK_REFUSED(kCorruptModel, "evenly", s.set_u32("llama.attention.head_count_kv", 3));
  CHECK_REFUSED(kCorruptModel, "rms_epsilon is missing", s.erase("llama.attention.layer_norm_rms_epsilon"));
  CHECK_REFUSED(kCorruptModel, "norm_eps", s.set_f32("llama.attention.layer_norm_rms_epsilon", NAN));
  CHECK_REFUSED(kCorruptModel, "rope_base", s.set_f32("llama.rope.freq_base", -1));
  CHECK_REFUSED(kCorruptModel, "the factor is -4", s.set_f32("llama.rope.scaling.factor", -4));
  CHECK_REFUSED(kCorruptModel, "in.gguf: tensor blk.0.attn_k.bias has 1 rows of 8",
                s.tensors.push_back({"blk.0.attn_k.bias", GgmlType::kF32, {8}, std::string(32, '\0')}));
  CHECK_REFUSED(kCorruptModel, "attn_q.weight",
                s.tensors.push_back({"blk.0.attn_qkv.weight", GgmlType::kF32, {64, 128}, std::string(32768, '\0')}));
  CHECK_REFUSED(kCorruptModel, "rotary_dim", s.set_u32("llama.rope.dimension_count", 18));
  CHECK_REFUSED(kCorruptModel, "blk.0.ffn_down.weight has 64 rows of 96", s.set_u32("llama.feed_forward_length", 64));
  CHECK_REFUSED(kCorruptModel, "token_embd.weight", s.tensors[0].dims = {64, 16});
  CHECK_REFUSED(kCorruptModel, "attention.v of layer 0",
                std::erase_if(s.tensors, [](const auto& t) { return t.name == "blk.0.attn_v.weight"; }));
  CHECK_REFUSED(kCorruptModel, "output_norm",
                std::erase_if(s.tensors, [](const auto& t) { return t.name == "output_norm.weight"; }));
}

TEST_CASE("weights that are not finite are found and named") {
  const uint32_t nan = 0x7fc00000;
  const uint16_t half_infinity = 0x7c00;
  for (const PackType type : {PackType::kKeep, PackType::kF16, PackType::kQ8, PackType::kQ4}) {
    GgufSource source = small_source();
    std::memcpy(source.tensor("blk.0.ffn_up.weight").data.data() + 4 * 1000, &nan, 4);
    const Status status = pack_bytes(source.bytes(), type);
    CHECK(status.code() == ErrorCode::kCorruptModel);
    CHECK(contains(status, "blk.0.ffn_up.weight"));
  }
  for (const GgmlType type : {GgmlType::kQ4_0, GgmlType::kQ4_1, GgmlType::kQ8_0, GgmlType::kF16}) {
    GgufSource source = small_source(type);
    std::string& data = source.tensor("blk.0.attn_v.weight").data;
    std::memcpy(data.data(), &half_infinity, 2);
    CHECK(contains(pack_bytes(source.bytes()), "blk.0.attn_v.weight"));
    CHECK(contains(pack_bytes(source.bytes(), PackType::kF32), "blk.0.attn_v.weight"));
  }
  GgufSource minimum = small_source(GgmlType::kQ4_1);
  std::memcpy(minimum.tensor("blk.0.attn_v.weight").data.data() + 2, &half_infinity, 2);
  CHECK(contains(pack_bytes(minimum.bytes()), "blk.0.attn_v.weight"));
  GgufSource norm = small_source();
  std::memcpy(norm.tensor("output_norm.weight").data.data(), &nan, 4);
  CHECK(contains(pack_bytes(norm.bytes()), "output_norm.weight"));
}

TEST_CASE("weights beyond a half's range fit f32 only; constant and zero groups are exact") {
  GgufSource source = small_source();
  std::string& data = source.tensor("blk.0.ffn_up.weight").data;
  const float large = 1e8f;
  std::memcpy(data.data(), &large, 4);
  CHECK(pack_bytes(source.bytes(), PackType::kF32).ok());
  for (const PackType type : {PackType::kF16, PackType::kQ8, PackType::kQ4}) {
    const Status status = pack_bytes(source.bytes(), type);
    CHECK(status.code() == ErrorCode::kUnsupported);
    CHECK(contains(status, "too large"));
  }
  for (const float constant : {0.0f, -0.75f}) {  // one of the halves and a multiple of itself / 127 rounded: q4m only
    GgufSource same = small_source();
    for (GgufSourceTensor& t : same.tensors) {
      for (size_t at = 0; at < t.data.size(); at += 4) std::memcpy(t.data.data() + at, &constant, 4);
    }
    const Folder folder;
    PackOptions options = {folder.path + "/in.gguf", folder.path + "/out.lethe", PackType::kQ4, {}};
    write_file(options.input, same.bytes());
    PackReport report;
    REQUIRE(pack_model(options, &report).ok());
    for (const PackedTensorError& error : report.errors) CHECK(error.format == WeightFormat::kQ8);
    CHECK(report.errors.size() == (constant == 0 ? 0 : 1));
  }
}

TEST_CASE("shapes that 4 or 8 bits cannot hold") {
  TinyOptions options;
  options.ffn_dim = 80;
  CHECK(pack_bytes(tiny_gguf(options).bytes()).ok());
  const Status status = pack_bytes(tiny_gguf(options).bytes(), PackType::kQ8);
  CHECK(status.code() == ErrorCode::kUnsupported);
  CHECK(contains(status, "ffn_down.weight: 80 inputs"));
}

TEST_CASE("the input is never overwritten") {
  const Folder folder;
  const std::string input = folder.path + "/model.gguf";
  const std::string bytes = small_source().bytes();
  write_file(input, bytes);
  std::filesystem::create_hard_link(input, folder.path + "/link.gguf");
  for (const std::string& output : {input, folder.path + "/./model.gguf", folder.path + "/link.gguf"}) {
    PackReport report;
    CHECK(pack_model({input, output, PackType::kKeep, {}}, &report).code() == ErrorCode::kInvalidArgument);
  }
  CHECK(read_file(input) == bytes);
  CHECK(folder.files() == 2);
}

TEST_CASE("an output that cannot be written leaves nothing, and keeps what was there") {
  const Folder folder;
  const std::string input = folder.path + "/in.gguf";
  const std::string output = folder.path + "/out.lethe";
  write_file(input, small_source().bytes());
  write_file(output, "an older model");
  PackReport report;
  CHECK(pack_model({input, folder.path + "/missing/out.lethe", PackType::kKeep, {}}, &report).code() == ErrorCode::kIo);

  // The write fails half way through: a limit on the size of files stands in for a full disk.
  struct rlimit before;
  REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  struct rlimit small = before;
  small.rlim_cur = 40000;
  REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
  const Status status = pack_model({input, output, PackType::kF32, {}}, &report);
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, handler);
  CHECK_FALSE(status.ok());
  CHECK((status.code() == ErrorCode::kIo || status.code() == ErrorCode::kDiskFull));
  CHECK(folder.files() == 2);
  CHECK(read_file(output) == "an older model");
}
