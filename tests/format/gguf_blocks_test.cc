// Every type of weights in GGUF files against gguf's own reference (tools/reference/gguf_blocks.py), and what a file
// keeps of them.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "runtime/backend/cpu/panel.h"
#include "tests/support/tiny_model.h"
#include "tools/pack/convert.h"

using namespace lethe;
using namespace lethe::test;

namespace {

struct Fixture {
  SourceTensor tensor;
  std::vector<float> weights;
};

// `bytes` must outlive the fixtures.
std::vector<Fixture> read_fixtures(const std::string& bytes) {
  std::vector<Fixture> out;
  for (size_t at = 0; at < bytes.size();) {
    uint32_t head[3];
    std::memcpy(head, bytes.data() + at, sizeof head);
    at += sizeof head;
    const auto type = static_cast<GgmlType>(head[0]);
    const size_t count = size_t{head[1]} * head[2], size = count / ggml_block(type).elements * ggml_block(type).bytes;
    Fixture& fixture = out.emplace_back();
    fixture.tensor.name = ggml_type_name(type);
    fixture.tensor.type = type;
    fixture.tensor.rows = head[1];
    fixture.tensor.cols = head[2];
    fixture.tensor.data = {reinterpret_cast<const uint8_t*>(bytes.data()) + at, size};
    fixture.weights.resize(count);
    std::memcpy(fixture.weights.data(), bytes.data() + at + size, count * sizeof(float));
    at += size + count * sizeof(float);
  }
  return out;
}

struct Stored {
  Status status;
  std::vector<float> weights;  // as kernels read them
  ConversionError error;
};

Stored convert(const SourceTensor& tensor, WeightFormat format) {
  PanelConverter converter(tensor, format);
  std::vector<uint8_t> panel(panel_bytes(format, tensor.cols));
  std::vector<uint64_t> rows(tensor.rows);
  for (size_t row = 0; row < rows.size(); ++row) rows[row] = row;
  Stored out{converter.convert_panel(rows, panel.data()), {}, converter.error()};
  for (size_t row = 0; row < rows.size(); ++row) {
    for (size_t k = 0; k < tensor.cols; ++k) {
      out.weights.push_back(cpu::panel_weight({panel.data(), format, tensor.cols}, row, k));
    }
  }
  return out;
}

bool is_k_type(GgmlType type) { return type == GgmlType::kQ4_K || type == GgmlType::kQ5_K || type == GgmlType::kQ6_K; }

}  // namespace

TEST_CASE("blocks of every type have the reference's weights, bit by bit") {
  const std::string bytes = read_file(LETHE_TEST_DATA "/gguf_blocks.bin");
  const std::vector<Fixture> fixtures = read_fixtures(bytes);
  CHECK(fixtures.size() == 11);
  for (const Fixture& fixture : fixtures) {
    CAPTURE(fixture.tensor.name);
    const Stored stored = convert(fixture.tensor, WeightFormat::kF32);
    REQUIRE(stored.status.ok());
    REQUIRE(stored.weights.size() == fixture.weights.size());
    CHECK(std::memcmp(stored.weights.data(), fixture.weights.data(), fixture.weights.size() * sizeof(float)) == 0);
  }
}

TEST_CASE("types of 32-weight blocks are kept exactly") {
  const std::string bytes = read_file(LETHE_TEST_DATA "/gguf_blocks.bin");
  for (const Fixture& fixture : read_fixtures(bytes)) {
    if (ggml_block(fixture.tensor.type).elements != 32) continue;
    CAPTURE(fixture.tensor.name);
    const Stored stored = convert(fixture.tensor, format_of_blocks(fixture.tensor.type));
    REQUIRE(stored.status.ok());
    CHECK(stored.weights == fixture.weights);
    CHECK(stored.error.max_abs == 0);
  }
}

// Scales of d * sc that fit halves are rounded to 11 bits: at most 2^-11 of the scale a step, or the smallest halves'
// spacing of 2^-25 on either side. Products beyond a half's range are refused.
TEST_CASE("the K types keep their quants; scales are rounded to halves and the error is reported") {
  const std::string bytes = read_file(LETHE_TEST_DATA "/gguf_blocks.bin");
  size_t refused = 0;
  for (const Fixture& fixture : read_fixtures(bytes)) {
    if (!is_k_type(fixture.tensor.type)) continue;
    const WeightFormat format = format_of_blocks(fixture.tensor.type);
    const size_t block_bytes = ggml_block(fixture.tensor.type).bytes;
    for (size_t block = 0; block < fixture.tensor.data.size() / block_bytes; ++block) {  // each as a tensor
      CAPTURE(fixture.tensor.name);
      CAPTURE(block);
      const SourceTensor one = {"one", fixture.tensor.type, 1, 256,
                                fixture.tensor.data.subspan(block * block_bytes, block_bytes)};
      const float* weights = &fixture.weights[block * 256];
      const Stored stored = convert(one, format);
      float largest_param = 0;
      for (size_t g = 0; g < 8; ++g) {
        const QuantGroup group = read_group(one.type, one.data.data(), g);
        largest_param = std::max({largest_param, std::abs(group.d[0]), std::abs(group.d[1]), std::abs(group.m)});
      }
      if (largest_param >= 65520) {  // rounds to infinity
        CHECK(stored.status.code() == ErrorCode::kUnsupported);
        ++refused;
        continue;
      }
      REQUIRE(stored.status.ok());
      double max_abs = 0;
      for (size_t i = 0; i < 256; ++i) {
        const QuantGroup group = read_group(one.type, one.data.data(), i / 32);
        const double d = std::abs(group.d[i % 32 / 16]), q = std::abs(group.q[i % 32] - quant_offset(format));
        const double bound = q * std::max(d * 0x1p-11, 0x1p-25) +
                             (has_minimum(format) ? std::max(std::abs(group.m) * 0x1p-11, 0x1p-25) : 0);
        const double error = std::abs(static_cast<double>(stored.weights[i]) - weights[i]);
        REQUIRE(error <= bound * 1.001);
        max_abs = std::max(max_abs, error);
      }
      CHECK(stored.error.max_abs == max_abs);
    }
  }
  CHECK(refused > 0);
}

TEST_CASE("a scale that is not finite is corrupt, in every block type") {
  const std::string bytes = read_file(LETHE_TEST_DATA "/gguf_blocks.bin");
  for (const Fixture& fixture : read_fixtures(bytes)) {
    if (ggml_block(fixture.tensor.type).elements == 1) continue;
    CAPTURE(fixture.tensor.name);
    std::vector<uint8_t> data(fixture.tensor.data.begin(), fixture.tensor.data.end());
    const uint16_t infinity = 0x7c00;
    std::memcpy(data.data() + (fixture.tensor.type == GgmlType::kQ6_K ? 208 : 0), &infinity, 2);
    SourceTensor tensor = fixture.tensor;
    tensor.data = data;
    CHECK(convert(tensor, format_of_blocks(tensor.type)).status.code() == ErrorCode::kCorruptModel);
    CHECK(convert(tensor, WeightFormat::kF32).status.code() == ErrorCode::kCorruptModel);
  }
}
