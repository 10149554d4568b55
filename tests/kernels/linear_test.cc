#include <string>

#include "runtime/base/half.h"
#include "tests/kernels/support.h"
#include "tests/support/pack_weights.h"

namespace lethe::cpu {
namespace {

constexpr WeightFormat kFormats[] = {WeightFormat::kF32, WeightFormat::kF16, WeightFormat::kQ8,  WeightFormat::kQ4,
                                     WeightFormat::kQ4M, WeightFormat::kQ5,  WeightFormat::kQ5M, WeightFormat::kQ6};
constexpr WeightFormat kQuantisedFormats[] = {WeightFormat::kQ8, WeightFormat::kQ4,  WeightFormat::kQ4M,
                                              WeightFormat::kQ5, WeightFormat::kQ5M, WeightFormat::kQ6};

struct LinearCase {
  LinearCase(WeightFormat format, size_t n, size_t k, size_t m)
      : rows(n),
        cols(k),
        tokens(m),
        packed(test::pack_weights(format, random_floats(n * k, 0.1f), n, k)),
        x(random_floats(m * k)),
        xq(m, is_quantised(format) ? k : 0) {
    weight = {packed.data(), format, static_cast<uint32_t>(n), static_cast<uint32_t>(k)};
    if (is_quantised(format)) reference_kernels().quantise(x.data(), m, k, xq.view());
  }

  // Tokens first..first+count-1. Columns between the rows of y and the stride must stay as they are.
  std::vector<float> run(const Kernels& kernels, size_t first, size_t count) {
    const size_t stride = rows + 3;
    std::vector<float> y(count * stride, 12345.0f);
    const size_t groups = cols / kGroup;
    QuantisedRows quantised{};
    if (is_quantised(weight.format)) {
      quantised = {&xq.quants[first * cols], &xq.scales[first * groups], &xq.sums[first * groups],
                   &xq.half_sums[first * groups]};
    }
    const uint32_t panels = static_cast<uint32_t>((rows + 15) / 16);
    std::vector<uint8_t> scratch(linear_scratch_bytes(cols), 0xff);
    const LinearArgs args{weight,        &x[first * cols],
                          quantised,     static_cast<uint32_t>(count),
                          y.data(),      static_cast<uint32_t>(stride),
                          scratch.data()};
    kernels.linear(args, 0, panels / 2);  // in two calls, as threads would
    kernels.linear(args, panels / 2, panels);
    std::vector<float> packed_y;
    for (size_t t = 0; t < count; ++t) {
      packed_y.insert(packed_y.end(), &y[t * stride], &y[t * stride + rows]);
      for (size_t i = rows; i < stride; ++i) REQUIRE(y[t * stride + i] == 12345.0f);
    }
    return packed_y;
  }

  // What a weight is multiplied with.
  double input(size_t t, size_t k) const {
    if (!is_quantised(weight.format)) return x[t * cols + k];
    return static_cast<double>(xq.scales[(t * cols + k) / kGroup]) * xq.quants[t * cols + k];
  }

  size_t rows, cols, tokens;
  test::PackedMatrix packed;
  std::vector<float> x;
  Activations xq;
  MatrixView weight;
};

std::vector<LinearCase> cases() {
  std::vector<LinearCase> all;
  for (const WeightFormat format : kFormats) {
    for (const size_t k : {32, 96, 576, 1536}) {
      for (const size_t n : {1, 16, 37, 80}) {
        all.emplace_back(format, n, k, k == 576 ? 9 : 5);
      }
    }
    for (size_t m = 1; m <= 9; ++m) all.emplace_back(format, 50, 64, m);
    all.emplace_back(format, 33, 96, 17);
  }
  for (const size_t k : {1, 7, 33, 577}) {
    all.emplace_back(WeightFormat::kF32, 19, k, 3);
    all.emplace_back(WeightFormat::kF16, 19, k, 3);
  }
  return all;
}

std::string describe(const LinearCase& c) {
  return std::string(weight_format_name(c.weight.format)) + " N " + std::to_string(c.rows) + " K " +
         std::to_string(c.cols) + " M " + std::to_string(c.tokens);
}

}  // namespace

// The reference against a matrix product in double over the weights that the packer says it wrote, and every target
// against the reference. Bound per output: 4e-6 of the sum of the absolute products (float sums of K terms).
TEST_CASE("linear is the matrix product, on every target") {
  for (LinearCase& c : cases()) {
    CAPTURE(describe(c));
    const std::vector<float> expected = c.run(reference_kernels(), 0, c.tokens);
    std::vector<double> bounds;
    for (size_t t = 0; t < c.tokens; ++t) {
      for (size_t row = 0; row < c.rows; ++row) {
        double sum = 0, magnitude = 0;
        for (size_t k = 0; k < c.cols; ++k) {
          const double product = c.input(t, k) * c.packed.weights[row * c.cols + k];
          sum += product;
          magnitude += std::abs(product);
        }
        bounds.push_back(4e-6 * magnitude);
        REQUIRE(std::abs(expected[t * c.rows + row] - sum) <= 1e-6 * magnitude);
      }
    }
    for_each_target([&](const Kernels& kernels) {
      const std::vector<float> y = c.run(kernels, 0, c.tokens);
      for (size_t i = 0; i < y.size(); ++i) REQUIRE(std::abs(y[i] - expected[i]) <= bounds[i]);
    });
  }
}

TEST_CASE("int8 activations cost at most half a step per input") {
  for (const WeightFormat format : kQuantisedFormats) {
    LinearCase c(format, 16, 96, 4);
    const std::vector<float> y = c.run(reference_kernels(), 0, c.tokens);
    for (size_t t = 0; t < c.tokens; ++t) {
      for (size_t row = 0; row < c.rows; ++row) {
        double sum = 0, bound = 0;
        for (size_t k = 0; k < c.cols; ++k) {
          const double weight = c.packed.weights[row * c.cols + k];
          sum += weight * c.x[t * c.cols + k];
          bound += std::abs(weight) * c.xq.scales[(t * c.cols + k) / kGroup] * 0.5;
        }
        REQUIRE(std::abs(y[t * c.rows + row] - sum) <= bound * 1.001);
        REQUIRE(y[t * c.rows + row] != 0);
      }
    }
  }
}

TEST_CASE("a row of y has the same bits alone and among others") {
  for (const WeightFormat format : kFormats) {
    for (const size_t tokens : {2, 9, 15}) {
      LinearCase c(format, 100, 160, tokens);
      CAPTURE(describe(c));
      for_each_target([&](const Kernels& kernels) {
        const std::vector<float> together = c.run(kernels, 0, tokens);
        for (size_t t = 0; t < tokens; ++t) {
          const std::vector<float> alone = c.run(kernels, t, 1);
          for (size_t i = 0; i < c.rows; ++i) REQUIRE(alone[i] == together[t * c.rows + i]);
        }
      });
    }
  }
}

TEST_CASE("extreme quants do not overflow") {
  const size_t k = 64;
  for (const WeightFormat format : kQuantisedFormats) {
    for (const bool largest : {true, false}) {
      LinearCase c(format, 16, k, 8);
      // Every quant the largest or 0, of scale 1, no minimum, times +-127.
      for (test::Line& line : c.packed.lines) std::fill_n(line.bytes, 64, largest ? uint8_t{255} : uint8_t{0});
      auto* halves = reinterpret_cast<uint16_t*>(c.packed.lines[0].bytes);
      const test::QuantText text = test::quant_text(format);
      for (size_t unit = 0; unit < k / text.inputs; ++unit) {
        std::fill_n(halves + text.params_at(unit) / 2, 16, uint16_t{0x3c00});
        if (text.minimum) std::fill_n(halves + text.params_at(unit) / 2 + 16, 16, uint16_t{0});
      }
      for (size_t t = 0; t < c.tokens; ++t) {
        std::fill_n(&c.xq.quants[t * k], k, t % 2 == 0 ? int8_t{127} : int8_t{-127});
        std::fill_n(&c.xq.scales[t * 2], 2, 1.0f);
        std::fill_n(&c.xq.sums[t * 2], 2, t % 2 == 0 ? 127.0f * 32 : -127.0f * 32);
        std::fill_n(&c.xq.half_sums[t * 2], 2, t % 2 == 0 ? 127.0f * 16 : -127.0f * 16);
      }
      const auto weight = static_cast<float>((largest ? (1 << text.bits) - 1 : 0) - text.offset);
      for_each_target([&](const Kernels& kernels) {
        const std::vector<float> y = c.run(kernels, 0, c.tokens);
        for (size_t i = 0; i < y.size(); ++i) {
          REQUIRE(y[i] == (i / 16 % 2 == 0 ? 1.0f : -1.0f) * weight * 127.0f * static_cast<float>(k));
        }
      });
    }
  }
}

TEST_CASE("embed_row reads the weights that were packed") {
  for (const WeightFormat format : kFormats) {
    LinearCase c(format, 37, 96, 1);
    const Kernels simd = simd_kernels();
    for (const Kernels* kernels : {&reference_kernels(), &simd}) {
      for (const uint32_t id : {0u, 15u, 16u, 36u}) {
        std::vector<float> row(c.cols);
        kernels->embed_row(c.weight, id, row.data());
        for (size_t k = 0; k < c.cols; ++k) REQUIRE(row[k] == c.packed.weights[id * c.cols + k]);
      }
    }
  }
}

TEST_CASE("NaN and infinity stay in their row") {
  for (const WeightFormat format : kFormats) {
    for (const float bad : {NAN, INFINITY}) {
      LinearCase c(format, 20, 64, 5);
      c.x[2 * c.cols + 7] = bad;
      for_each_target([&](const Kernels& kernels) {
        if (is_quantised(format)) kernels.quantise(c.x.data(), c.tokens, c.cols, c.xq.view());
        const std::vector<float> y = c.run(kernels, 0, c.tokens);
        for (size_t i = 0; i < y.size(); ++i) {
          if (i / c.rows != 2) REQUIRE(std::isfinite(y[i]));
        }
        if (!is_quantised(format)) REQUIRE(!std::isfinite(y[2 * c.rows]));
      });
    }
  }
}

}  // namespace lethe::cpu
