// Packs tiny models of every type and reads every weight back, against ggml's definition of the source's types.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>

#include "runtime/base/half.h"
#include "tests/support/pack_weights.h"
#include "tests/support/tiny_model.h"

using namespace lethe;
using namespace lethe::test;

namespace {

constexpr GgmlType kTypes[] = {GgmlType::kF32,  GgmlType::kF16,  GgmlType::kBF16, GgmlType::kQ8_0,
                               GgmlType::kQ4_0, GgmlType::kQ4_1, GgmlType::kQ5_0, GgmlType::kQ5_1};

struct ModelCloser {
  void operator()(Model* model) const { Model::close(model); }
};
using ModelPtr = std::unique_ptr<Model, ModelCloser>;

ModelPtr open_model(const std::string& path) {
  Result<Model*> model = Model::open(path.c_str());
  if (!model.ok()) FAIL(model.status().message());
  return ModelPtr(model.value());
}

// Weight [row][k] of a stored tensor, from the text of quant_format.h.
float stored_weight(const Tensor& t, size_t row, size_t k) {
  const size_t groups = t.cols / 32;
  const size_t r = row % 16;
  const auto half_at = [](const uint8_t* at) {
    uint16_t half;
    std::memcpy(&half, at, 2);
    return half_to_float(half);
  };
  float value = 0;
  switch (t.format) {
    case WeightFormat::kF32Vector: std::memcpy(&value, t.data + 4 * k, 4); return value;
    case WeightFormat::kF32: std::memcpy(&value, t.data + row / 16 * (t.cols * 64) + (k * 16 + r) * 4, 4); return value;
    case WeightFormat::kF16: {
      const size_t panel = (t.cols * 32 + 63) / 64 * 64;
      return half_at(t.data + row / 16 * panel + (k * 16 + r) * 2);
    }
    case WeightFormat::kQ8: {
      const size_t panel_bytes = (groups + 1) / 2 * 64 + groups * 512;
      const uint8_t* block = t.data + row / 16 * panel_bytes + k / 64 * (64 + 1024);
      const int q = block[64 + k % 64 / 4 * 64 + 4 * r + k % 4] - 128;
      return half_at(block + k % 64 / 32 * 32 + 2 * r) * static_cast<float>(q);
    }
    case WeightFormat::kQ4:
    case WeightFormat::kQ4M:
    case WeightFormat::kQ5:
    case WeightFormat::kQ5M: {
      const bool with_minimum = t.format == WeightFormat::kQ4M || t.format == WeightFormat::kQ5M;
      const bool five_bits = t.format == WeightFormat::kQ5 || t.format == WeightFormat::kQ5M;
      const size_t lines = (five_bits ? 5 : 4) * 64, group = k / 32;
      const size_t panel_bytes = (with_minimum ? groups : (groups + 1) / 2) * 64 + groups * lines;
      const uint8_t* block =
          t.data + row / 16 * panel_bytes + (with_minimum ? group * (64 + lines) : group / 2 * (64 + 2 * lines));
      const size_t second = with_minimum ? 0 : group % 2;
      const uint8_t* quants = block + 64 + second * lines + 4 * r + k % 4;
      const uint8_t byte = quants[k % 32 / 8 * 64];
      int q = k % 8 < 4 ? byte & 15 : byte >> 4;
      if (five_bits) q += 16 * (quants[4 * 64] >> (k % 32 / 4) & 1);
      const float scale = half_at(block + second * 32 + 2 * r);
      if (with_minimum) return scale * static_cast<float>(q) + half_at(block + 32 + 2 * r);
      return scale * static_cast<float>(q - (five_bits ? 16 : 8));
    }
    case WeightFormat::kQ6: break;  // gguf_blocks_test: no tiny model has it
  }
  return NAN;
}

std::string source_name(const Tensor& t) {
  static const std::map<Role, std::string> kNames = {
      {Role::kTokenEmbedding, "token_embd"}, {Role::kOutputNorm, "output_norm"}, {Role::kOutput, "output"},
      {Role::kAttentionNorm, "attn_norm"},   {Role::kAttentionQ, "attn_q"},      {Role::kAttentionK, "attn_k"},
      {Role::kAttentionV, "attn_v"},         {Role::kAttentionO, "attn_output"}, {Role::kFfnNorm, "ffn_norm"},
      {Role::kFfnGate, "ffn_gate"},          {Role::kFfnUp, "ffn_up"},           {Role::kFfnDown, "ffn_down"}};
  const std::string name = kNames.at(t.role) + ".weight";
  return role_is_per_layer(t.role) ? "blk." + std::to_string(t.layer) + "." + name : name;
}

// The source's weights in our order of rows [rows * cols]. Of the rotated rows of a Q or K head, GGUF has at 2i the
// first and at 2i + 1 the second of the pair (i, i + rotary/2).
std::vector<float> expected_weights(GgufSource* source, const Tensor& t, uint32_t head_dim, uint32_t rotary_dim) {
  const GgufSourceTensor& from = source->tensor(source_name(t));
  const std::vector<float> weights = reference_dequantise(from.type, from.data);
  REQUIRE(weights.size() == size_t{t.rows} * t.cols);
  if (t.role != Role::kAttentionQ && t.role != Role::kAttentionK) return weights;
  std::vector<float> out = weights;
  for (size_t head = 0; head < t.rows / head_dim; ++head) {
    for (size_t i = 0; i < rotary_dim / 2; ++i) {
      for (size_t part = 0; part < 2; ++part) {
        const size_t to = head * head_dim + i + part * rotary_dim / 2;
        const size_t at = head * head_dim + 2 * i + part;
        std::copy_n(&weights[at * t.cols], t.cols, &out[to * t.cols]);
      }
    }
  }
  return out;
}

// Calls check(tensor, expected) for every tensor of the packed model.
template <typename Check>
void for_each_tensor(const TinyOptions& options, PackType type, Check check) {
  GgufSource source = tiny_gguf(options);
  const ModelPtr model = open_model(tiny_model_path(options, type));
  CHECK(model->tensors().size() == source.tensors.size());
  for (const Tensor& t : model->tensors()) {
    CHECK(model->find(t.role, t.layer) == &t);
    check(t, expected_weights(&source, t, options.head_dim, options.head_dim));
  }
}

}  // namespace

TEST_CASE("keep stores every weight exactly and in the fitting format") {
  const std::map<GgmlType, WeightFormat> formats = {
      {GgmlType::kF32, WeightFormat::kF32}, {GgmlType::kF16, WeightFormat::kF16}, {GgmlType::kBF16, WeightFormat::kF32},
      {GgmlType::kQ8_0, WeightFormat::kQ8}, {GgmlType::kQ4_0, WeightFormat::kQ4}, {GgmlType::kQ4_1, WeightFormat::kQ4M},
      {GgmlType::kQ5_0, WeightFormat::kQ5}, {GgmlType::kQ5_1, WeightFormat::kQ5M}};
  for (const GgmlType type : kTypes) {
    for (const bool tied : {true, false}) {
      CAPTURE(ggml_type_name(type));
      TinyOptions options;
      options.type = type;
      options.tied = tied;
      for_each_tensor(options, PackType::kKeep, [&](const Tensor& t, const std::vector<float>& expected) {
        const bool norm = t.role == Role::kOutputNorm || t.role == Role::kAttentionNorm || t.role == Role::kFfnNorm;
        CHECK(t.format == (norm ? WeightFormat::kF32Vector : formats.at(type)));
        size_t different = 0;
        for (size_t row = 0; row < t.rows; ++row) {
          for (size_t k = 0; k < t.cols; ++k) different += stored_weight(t, row, k) != expected[row * t.cols + k];
        }
        CHECK_MESSAGE(different == 0, source_name(t));
      });
    }
  }
}

TEST_CASE("f32 and f16 give the bytes of the reference packing") {
  for (const GgmlType type : kTypes) {
    for (const PackType pack : {PackType::kF32, PackType::kF16}) {
      CAPTURE(ggml_type_name(type));
      TinyOptions options;
      options.type = type;
      for_each_tensor(options, pack, [&](const Tensor& t, const std::vector<float>& expected) {
        if (t.format == WeightFormat::kF32Vector) return;
        CHECK(t.format == (pack == PackType::kF32 ? WeightFormat::kF32 : WeightFormat::kF16));
        const PackedMatrix packed = pack_weights(t.format, expected, t.rows, t.cols);
        REQUIRE(packed.lines.size() * kLineBytes == t.bytes);
        CHECK_MESSAGE(std::memcmp(packed.data(), t.data, t.bytes) == 0, source_name(t));
      });
    }
  }
}

TEST_CASE("q8 errs by half a step at most") {
  for_each_tensor({}, PackType::kQ8, [&](const Tensor& t, const std::vector<float>& expected) {
    if (t.format == WeightFormat::kF32Vector) return;
    REQUIRE(t.format == WeightFormat::kQ8);
    size_t too_far = 0;
    for (size_t i = 0; i < expected.size(); i += 32) {
      float largest = 0;
      for (size_t j = i; j < i + 32; ++j) largest = std::max(largest, std::abs(expected[j]));
      // The scale is rounded to 11 bits, so a step may be 1 + 2^-11 times as wide, and at level 127 that adds up.
      const float bound = largest / 127 * 0.5f * (1 + 127 * 0x1p-10f);
      for (size_t j = i; j < i + 32; ++j) {
        too_far += std::abs(stored_weight(t, j / t.cols, j % t.cols) - expected[j]) > bound;
      }
    }
    CHECK_MESSAGE(too_far == 0, source_name(t));
  });
}

TEST_CASE("q4 errs less than scaling by the extremes, and the embedding is q8") {
  for_each_tensor({}, PackType::kQ4, [&](const Tensor& t, const std::vector<float>& expected) {
    if (t.format == WeightFormat::kF32Vector) return;
    REQUIRE(t.format == (t.role == Role::kTokenEmbedding ? WeightFormat::kQ8 : WeightFormat::kQ4M));
    if (t.format != WeightFormat::kQ4M) return;
    const PackedMatrix simple = pack_weights(t.format, expected, t.rows, t.cols);
    double ours = 0;
    double plain = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      ours += std::pow(stored_weight(t, i / t.cols, i % t.cols) - expected[i], 2);
      plain += std::pow(simple.weights[i] - expected[i], 2);
    }
    CHECK_MESSAGE(ours < 0.9 * plain, source_name(t));
  });
}

// The squared error weighted by importance, of the tensor packed as q4.
double weighted_error(const std::string& input, const Importance* importance, const Importance& weigh_with) {
  PackOptions pack = {input, temporary_path(".lethe"), PackType::kQ4, {}, {}, importance};
  PackReport report;
  REQUIRE(pack_model(pack, &report).ok());
  const ModelPtr model = open_model(pack.output);
  GgufSource source = tiny_gguf({});
  double total = 0;
  for (const Role role : {Role::kAttentionV, Role::kAttentionO, Role::kFfnUp, Role::kFfnDown}) {
    const Tensor& t = *model->find(role, 1);
    const std::vector<float> expected = expected_weights(&source, t, 16, 16);
    const std::span<const float> inputs = weigh_with.of(role, 1);
    REQUIRE(inputs.size() == t.cols);
    for (size_t i = 0; i < expected.size(); ++i) {
      const double error = stored_weight(t, i / t.cols, i % t.cols) - expected[i];
      total += error * error * inputs[i % t.cols];
    }
  }
  return total;
}

TEST_CASE("importance is measured, and q4 errs less where it is high") {
  const std::string input = temporary_path(".gguf");
  write_file(input, tiny_gguf({}).bytes());
  Importance importance;
  uint64_t done = 0;
  REQUIRE(importance
              .measure(tiny_model_path(GgmlType::kF32), "hello the world and you",
                       [&](uint64_t d, uint64_t t) {
                         CHECK(d == t);
                         done = d;
                       })
              .ok());
  CHECK(done == 5);  // hello, the, world, and, you
  for (const Role role : {Role::kAttentionQ, Role::kAttentionO, Role::kFfnGate, Role::kFfnDown}) {
    const std::span<const float> inputs = importance.of(role, 0);
    double mean = 0;
    for (const float share : inputs) {
      CHECK(share > 0);
      mean += static_cast<double>(share) / static_cast<double>(inputs.size());
    }
    CHECK(mean == doctest::Approx(1).epsilon(0.01));
  }
  CHECK(importance.of(Role::kAttentionQ, 2).empty());
  CHECK(importance.of(Role::kOutput, 0).empty());
  CHECK(weighted_error(input, &importance, importance) < 0.97 * weighted_error(input, nullptr, importance));
  CHECK(Importance().measure(tiny_model_path(GgmlType::kF32), "", {}).code() == ErrorCode::kInvalidArgument);
}

TEST_CASE("4-bit sources are not quantised a second time") {
  for (const GgmlType type : {GgmlType::kQ4_0, GgmlType::kQ4_1}) {
    TinyOptions options;
    options.type = type;
    for_each_tensor(options, PackType::kQ4, [&](const Tensor& t, const std::vector<float>& expected) {
      if (t.role == Role::kTokenEmbedding) return;
      size_t different = 0;
      for (size_t i = 0; i < expected.size(); ++i) different += stored_weight(t, i / t.cols, i % t.cols) != expected[i];
      CHECK_MESSAGE(different == 0, source_name(t));
    });
  }
}

TEST_CASE("only the rotated rows of a head are reordered") {
  TinyOptions options;
  GgufSource source = tiny_gguf(options);
  source.set_u32("llama.rope.dimension_count", 8);
  PackOptions pack = {temporary_path(".gguf"), temporary_path(".lethe"), PackType::kKeep, {}};
  write_file(pack.input, source.bytes());
  PackReport report;
  REQUIRE(pack_model(pack, &report).ok());
  const ModelPtr model = open_model(pack.output);
  CHECK(model->config().rotary_dim == 8);
  for (const Role role : {Role::kAttentionQ, Role::kAttentionK}) {
    const Tensor& t = *model->find(role, 1);
    const std::vector<float> expected = expected_weights(&source, t, options.head_dim, 8);
    size_t different = 0;
    for (size_t i = 0; i < expected.size(); ++i) different += stored_weight(t, i / t.cols, i % t.cols) != expected[i];
    CHECK(different == 0);
  }
}

TEST_CASE("padding rows are zero") {
  TinyOptions options;  // the vocabulary is no multiple of 16
  options.type = GgmlType::kQ8_0;
  const ModelPtr model = open_model(tiny_model_path(options));
  const Tensor& t = *model->find(Role::kTokenEmbedding, 0);
  REQUIRE(t.rows % 16 != 0);
  Tensor padded = t;
  padded.rows = (t.rows + 15) / 16 * 16;
  for (uint32_t row = t.rows; row < padded.rows; ++row) {
    for (uint32_t k = 0; k < t.cols; ++k) CHECK(stored_weight(padded, row, k) == 0);
  }
}

TEST_CASE("the same input gives the same bytes") {
  for (const PackType type : {PackType::kKeep, PackType::kQ4}) {
    GgufSource source = tiny_gguf({});
    const std::string input = temporary_path(".gguf");
    write_file(input, source.bytes());
    std::string first;
    for (int run = 0; run < 2; ++run) {
      PackOptions pack = {input, temporary_path(".lethe"), type, {}};
      PackReport report;
      REQUIRE(pack_model(pack, &report).ok());
      const std::string bytes = read_file(pack.output);
      CHECK(bytes.size() == report.bytes_out);
      if (run == 1) CHECK(bytes == first);
      first = bytes;
    }
  }
}

TEST_CASE("config, provenance, checksums and the report") {
  TinyOptions options;
  const std::string input = temporary_path(".gguf");
  write_file(input, tiny_gguf(options).bytes());
  uint64_t done = 0;
  uint64_t total = 0;
  PackOptions pack = {input, temporary_path(".lethe"), PackType::kF16, [&](uint64_t d, uint64_t t) {
                        CHECK(d > done);
                        done = d;
                        total = t;
                      }};
  PackReport report;
  REQUIRE(pack_model(pack, &report).ok());
  CHECK(done == total);
  CHECK(report.tensors[static_cast<size_t>(WeightFormat::kF32Vector)] == 5);
  CHECK(report.tensors[static_cast<size_t>(WeightFormat::kF16)] == 15);
  CHECK(report.errors.size() == 15);  // normal weights are no halves
  for (const PackedTensorError& error : report.errors) {
    CHECK(error.max_abs < 0.001);
    CHECK(error.rms > 0);
    CHECK(error.rms < error.max_abs);
  }
  const ModelPtr model = open_model(pack.output);
  const ModelConfig& config = model->config();
  CHECK(std::string(config.name) == "llama");
  CHECK(config.layers == options.layers);
  CHECK(config.embed_dim == options.embed_dim);
  CHECK(config.heads == options.heads);
  CHECK(config.kv_heads == options.kv_heads);
  CHECK(config.head_dim == options.head_dim);
  CHECK(config.ffn_dim == options.ffn_dim);
  CHECK(config.context_length == options.context_length);
  CHECK(config.norm_eps == 1e-5f);
  CHECK(config.rope_base == 10000);
  CHECK(config.rotary_dim == options.head_dim);
  CHECK(model->find(Role::kOutput, 0) == nullptr);
  CHECK(model->find(Role::kAttentionQ, options.layers) == nullptr);
  CHECK(model->find(Role::kOutputNorm, 1) == nullptr);
  CHECK(model->provenance().source == input.substr(input.rfind('/') + 1));
  CHECK(model->provenance().options == "--type f16");
  CHECK(model->provenance().source_checksum == report.source_checksum);
  CHECK(model->file_bytes() == report.bytes_out);
  CHECK(model->segment_count() == 2 + options.layers);
  for (uint32_t i = 0; i < model->segment_count(); ++i) CHECK(model->verify_segment(i).ok());
  CHECK(model->verify_segment(model->segment_count()).code() == ErrorCode::kInvalidArgument);
  for (const Tensor& t : model->tensors()) CHECK(reinterpret_cast<uintptr_t>(t.data) % 64 == 0);
}

TEST_CASE("the source does not stay in memory") {
  TinyOptions options;
  options.embed_dim = 512;
  options.head_dim = 128;
  options.ffn_dim = 16384;
  PackOptions pack = {temporary_path(".gguf"), temporary_path(".lethe"), PackType::kF16, {}};
  write_file(pack.input, tiny_gguf(options).bytes());
  const auto resident = [] {  // bytes of mapped files
    std::ifstream status("/proc/self/status");
    uint64_t kib = 0;
    for (std::string word; status >> word;) {
      if (word == "RssFile:") status >> kib;
    }
    return kib << 10;
  };
  const uint64_t before = resident();
  uint64_t most = before;
  pack.progress = [&](uint64_t, uint64_t) { most = std::max(most, resident()); };
  PackReport report;
  REQUIRE(pack_model(pack, &report).ok());
  CHECK(report.bytes_in > 190 << 20);
  CHECK(most - before < 32 << 20);
}
