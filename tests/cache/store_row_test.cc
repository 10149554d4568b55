// Keys and values through a block and back, against the text of kv_layout.h and hadamard.h.
#include "runtime/cache/store_row.h"

#include <doctest/doctest.h>

#include <random>
#include <vector>

#include "runtime/cache/list_reader.h"
#include "tests/cache/pool_model.h"
#include "tests/support/transformed.h"

using namespace lethe;
using namespace lethe::test;

namespace {

constexpr uint32_t kHeadDims[] = {1, 5, 10, 16, 40, 64, 80, 96, 128, 256, 320, 512};

// Like keys: one element much larger than the others.
std::vector<float> random_row(std::mt19937& random, uint32_t dim) {
  std::normal_distribution<float> normal;
  std::vector<float> row(dim);
  for (float& x : row) x = normal(random);
  row[dim / 2] *= 12;
  return row;
}

double largest(const std::vector<double>& x) {
  double most = 0;
  for (const double value : x) most = std::max(most, std::abs(value));
  return most;
}

// The largest error of an element, before it is transformed back.
double step(uint32_t bits, const std::vector<double>& x) {
  if (bits == 16) return largest(x) * 0x1p-11;
  return bits == 8 ? largest(x) / 127 / 2 : largest(transformed(x)) / 15;
}

}  // namespace

TEST_CASE("hadamard: its definition, for rows and for transposed ones, and its own inverse") {
  std::mt19937 random(1);
  for (const uint32_t dim : kHeadDims) {
    CAPTURE(dim);
    constexpr size_t kWidth = 3;
    std::vector<std::vector<float>> rows;
    std::vector<float> columns(dim * kWidth);
    for (size_t i = 0; i < kWidth; ++i) {
      rows.push_back(random_row(random, dim));
      for (size_t d = 0; d < dim; ++d) columns[d * kWidth + i] = rows[i][d];
    }
    hadamard(columns.data(), dim, kWidth);
    for (size_t i = 0; i < kWidth; ++i) {
      const std::vector<double> expected = transformed({rows[i].begin(), rows[i].end()});
      std::vector<float> row = rows[i];
      hadamard(row.data(), dim, 1);
      for (size_t d = 0; d < dim; ++d) {
        REQUIRE(std::abs(row[d] - expected[d]) < 1e-5);
        REQUIRE(row[d] == columns[d * kWidth + i]);
      }
      hadamard(row.data(), dim, 1);
      for (size_t d = 0; d < dim; ++d) REQUIRE(std::abs(row[d] - rows[i][d]) < 1e-5);
    }
  }
}

TEST_CASE("stored keys and values are read back within half a step") {
  std::mt19937 random(2);
  for (const KvType type : kKvTypes) {
    for (const uint32_t dim : kHeadDims) {
      CAPTURE(kv_type_name(type));
      CAPTURE(dim);
      const KvLayout layout = make_kv_layout(type, dim);
      std::vector<uint8_t> block(layout.block_bytes, 0xff);
      std::vector<std::vector<float>> keys, values;
      for (uint32_t slot = 0; slot < 32; ++slot) {
        keys.push_back(random_row(random, dim));
        values.push_back(random_row(random, dim));
        std::vector<float> k = keys.back(), v = values.back();
        store_key(layout, block.data(), slot, k.data());
        store_value(layout, block.data(), slot, v.data());
      }
      std::vector<float> read(dim * 32), value(dim);
      read_keys(layout, block.data(), read.data());
      for (uint32_t slot = 0; slot < 32; ++slot) {
        const std::vector<double> k(keys[slot].begin(), keys[slot].end()), v(values[slot].begin(), values[slot].end());
        read_value(layout, block.data(), slot, value.data());
        double key_error = 0, value_error = 0;  // squared: the transform keeps lengths, not elements
        for (uint32_t d = 0; d < dim; ++d) {
          key_error += std::pow(read[d * 32 + slot] - k[d], 2);
          value_error += std::pow(value[d] - v[d], 2);
        }
        REQUIRE(std::sqrt(key_error / dim) <= 1.0001 * step(layout.key_bits, k));
        REQUIRE(std::sqrt(value_error / dim) <= 1.0001 * step(layout.value_bits, v));
      }
    }
  }
}

TEST_CASE("zeros are read back as zeros, and what is not finite as NaN") {
  for (const KvType type : {KvType::kInt8, KvType::kInt8k4v, KvType::kInt4}) {
    CAPTURE(kv_type_name(type));
    const KvLayout layout = make_kv_layout(type, 16);
    std::vector<uint8_t> block(layout.block_bytes, 0xff);
    float keys[16 * 32], value[16];
    for (const float bad : {0.0f, NAN, INFINITY}) {
      float row[16] = {0, bad}, copy[16] = {0, bad};
      store_key(layout, block.data(), 7, row);
      store_value(layout, block.data(), 7, copy);
      read_keys(layout, block.data(), keys);
      read_value(layout, block.data(), 7, value);
      for (uint32_t d = 0; d < 16; ++d) {
        CHECK((bad == 0 ? keys[d * 32 + 7] == 0 : std::isnan(keys[d * 32 + 7])));
        CHECK((bad == 0 ? value[d] == 0 : std::isnan(value[d])));
      }
    }
  }
}
