// Kernels over rows of activations and over logits.
#include <algorithm>
#include <limits>

#include "tests/kernels/support.h"

namespace lethe::cpu {
namespace {

constexpr size_t kSizes[] = {1, 3, 15, 16, 17, 31, 32, 33, 64, 100, 576, 1537};
constexpr float kInfinity = std::numeric_limits<float>::infinity();

void require_close(float a, double b, double relative, double absolute = 0) {
  REQUIRE(std::abs(a - b) <= relative * std::abs(b) + absolute);
}

// Runs a test on the reference and on every target.
template <class Test>
void for_all_kernels(const Test& test) {
  test(reference_kernels());
  for_each_target(test);
}

}  // namespace

TEST_CASE("rms_norm") {
  for (const size_t n : kSizes) {
    CAPTURE(n);
    const std::vector<float> x = random_floats(3 * n), weight = random_floats(n);
    for_all_kernels([&](const Kernels& kernels) {
      std::vector<float> y(3 * n), in_place = x;
      kernels.rms_norm(x.data(), weight.data(), 1e-5f, 3, n, y.data());
      kernels.rms_norm(in_place.data(), weight.data(), 1e-5f, 3, n, in_place.data());
      REQUIRE(y == in_place);
      for (size_t row = 0; row < 3; ++row) {
        double squares = 0;
        for (size_t i = 0; i < n; ++i) squares += std::pow(static_cast<double>(x[row * n + i]), 2);
        const double root = std::sqrt(squares / static_cast<double>(n) + 1e-5f);
        for (size_t i = 0; i < n; ++i) require_close(y[row * n + i], x[row * n + i] / root * weight[i], 1e-6);
      }
    });
  }
  for_all_kernels([&](const Kernels& kernels) {
    float zeros[5] = {}, weight[5] = {1, 1, 1, 1, 1};
    kernels.rms_norm(zeros, weight, 1e-6f, 1, 5, zeros);
    for (const float zero : zeros) REQUIRE(zero == 0);
  });
}

TEST_CASE("layer_norm, with and without a bias") {
  for (const size_t n : kSizes) {
    CAPTURE(n);
    std::vector<float> x = random_floats(3 * n);
    for (float& value : x) value += 3;  // a mean that matters
    const std::vector<float> weight = random_floats(n), bias = random_floats(n);
    for (const float* shift : {static_cast<const float*>(nullptr), bias.data()}) {
      for_all_kernels([&](const Kernels& kernels) {
        std::vector<float> y(3 * n), in_place = x;
        kernels.layer_norm(x.data(), weight.data(), shift, 1e-5f, 3, n, y.data());
        kernels.layer_norm(in_place.data(), weight.data(), shift, 1e-5f, 3, n, in_place.data());
        REQUIRE(y == in_place);
        for (size_t row = 0; row < 3; ++row) {
          const float* in = &x[row * n];
          double mean = 0, variance = 0;
          for (size_t i = 0; i < n; ++i) mean += in[i] / static_cast<double>(n);
          for (size_t i = 0; i < n; ++i) variance += (in[i] - mean) * (in[i] - mean) / static_cast<double>(n);
          const double root = std::sqrt(variance + 1e-5);
          for (size_t i = 0; i < n; ++i) {
            const double expected = (in[i] - mean) / root * weight[i] + (shift == nullptr ? 0.0 : shift[i]);
            require_close(y[row * n + i], expected, 2e-6, n == 1 ? 1e-3 : 1e-5);  // float sums around a mean of 3
          }
        }
      });
    }
  }
}

TEST_CASE("quantise: the scale is max / 127, the quants are the nearest, the sum is theirs") {
  std::vector<float> x = random_floats(5 * 96, 3);
  std::fill_n(&x[32], 32, 0.0f);      // a group of zeros
  std::fill_n(&x[64], 32, 2.8e-43f);  // subnormal: the scale is coarse
  x[96] = -1000;                      // an outlier
  for_all_kernels([&](const Kernels& kernels) {
    Activations out(5, 96);
    kernels.quantise(x.data(), 5, 96, out.view());
    for (size_t g = 0; g < 15; ++g) {
      float largest = 0;
      int sum = 0, half_sum = 0;
      for (size_t i = 0; i < 32; ++i) largest = std::max(largest, std::abs(x[g * 32 + i]));
      REQUIRE(out.scales[g] == largest / 127.0f);
      for (size_t i = 0; i < 32; ++i) {
        const float scale = out.scales[g];
        const int expected =
            scale == 0 ? 0 : std::clamp(static_cast<int>(std::nearbyint(x[g * 32 + i] / scale)), -127, 127);
        REQUIRE(out.quants[g * 32 + i] == expected);
        sum += expected;
        if (i < 16) half_sum += expected;
      }
      REQUIRE(out.sums[g] == out.scales[g] * static_cast<float>(sum));
      REQUIRE(out.half_sums[g] == out.scales[g] * static_cast<float>(half_sum));
    }
  });
}

TEST_CASE("rope rotates the pairs (i, i + half) and leaves the rest") {
  for (const size_t head_dim : {16, 64, 80, 128}) {
    for (const size_t rotary_dim : {head_dim, head_dim / 2, size_t{10}}) {
      const size_t tokens = 3, heads = 2, half = rotary_dim / 2, stride = heads * head_dim + 5;
      std::vector<float> cos(tokens * half), sin(tokens * half), angles = random_floats(tokens * half, 10);
      for (size_t i = 0; i < angles.size(); ++i) cos[i] = std::cos(angles[i]), sin[i] = std::sin(angles[i]);
      const std::vector<float> x = random_floats(tokens * stride);
      for_all_kernels([&](const Kernels& kernels) {
        std::vector<float> y = x;
        kernels.rope(y.data(), tokens, stride, heads, head_dim,
                     {cos.data(), sin.data(), nullptr, static_cast<uint32_t>(rotary_dim)});
        for (size_t at = 0; at < x.size(); ++at) {
          const size_t t = at / stride, column = at % stride, d = column % head_dim;
          double expected = x[at];
          if (column < heads * head_dim && d < rotary_dim) {
            const double angle = angles[t * half + d % half];
            expected = d < half ? x[at] * std::cos(angle) - x[at + half] * std::sin(angle)
                                : x[at - half] * std::sin(angle) + x[at] * std::cos(angle);
          }
          require_close(y[at], expected, 1e-6, 1e-6);
        }
      });
    }
  }
}

TEST_CASE("the other activations, with and without a factor") {
  const std::pair<Activation, double (*)(double)> kinds[] = {
      {Activation::kGeluTanh,
       [](double x) {
         return 0.5 * x * (1 + std::tanh(std::sqrt(2 / 3.14159265358979) * (x + 0.044715 * x * x * x)));
       }},
      {Activation::kGelu, [](double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); }},
      {Activation::kRelu, [](double x) { return std::max(x, 0.0); }}};
  for (const auto& [kind, expected] : kinds) {
    for (const size_t n : kSizes) {
      std::vector<float> gate(n), up = random_floats(n);
      for (size_t i = 0; i < n; ++i) gate[i] = -12.0f + 24.0f * static_cast<float>(i) / static_cast<float>(n);
      for_all_kernels([&](const Kernels& kernels) {
        std::vector<float> plain(n), in_place_up = up;
        kernels.activate(kind, gate.data(), nullptr, n, plain.data());
        kernels.activate(kind, gate.data(), in_place_up.data(), n, in_place_up.data());
        for (size_t i = 0; i < n; ++i) {
          require_close(plain[i], expected(gate[i]), 1e-6, 5e-7);
          require_close(in_place_up[i], expected(gate[i]) * up[i], 1e-6, 2e-6);
        }
      });
    }
    for_all_kernels([&](const Kernels& kernels) {
      const float gate[] = {-1e20f, -1000, 1000, kInfinity, NAN};
      float out[5];
      kernels.activate(kind, gate, nullptr, 5, out);
      CHECK(std::abs(out[0]) < 1e-30f);
      CHECK(std::abs(out[1]) < 1e-30f);
      CHECK(out[2] == 1000);
      CHECK(out[3] == kInfinity);
      CHECK(std::isnan(out[4]));
    });
  }
}

TEST_CASE("scale and softcap") {
  for (const size_t n : kSizes) {
    const std::vector<float> x = random_floats(n, 20);
    for_all_kernels([&](const Kernels& kernels) {
      std::vector<float> scaled = x, capped = x, wide = x;
      kernels.scale(scaled.data(), 25.298f, n);
      kernels.softcap(capped.data(), 30, n);
      kernels.softcap(wide.data(), 1e6f, n);  // tanh near 0
      for (size_t i = 0; i < n; ++i) {
        REQUIRE(scaled[i] == x[i] * 25.298f);
        require_close(capped[i], 30 * std::tanh(static_cast<double>(x[i]) / 30), 1e-6);
        require_close(wide[i], 1e6 * std::tanh(static_cast<double>(x[i]) / 1e6), 1e-6);
      }
    });
  }
}

TEST_CASE("silu, and with it exp, over the whole range") {
  for (const size_t n : kSizes) {
    std::vector<float> gate(n), up = random_floats(n);
    for (size_t i = 0; i < n; ++i) gate[i] = -86.5f + 173.0f * static_cast<float>(i) / static_cast<float>(n);
    for_all_kernels([&](const Kernels& kernels) {
      std::vector<float> out(n), in_place = gate, in_place_up = up;
      kernels.activate(Activation::kSilu, gate.data(), up.data(), n, out.data());
      kernels.activate(Activation::kSilu, in_place.data(), up.data(), n, in_place.data());
      kernels.activate(Activation::kSilu, gate.data(), in_place_up.data(), n, in_place_up.data());
      REQUIRE(out == in_place);
      REQUIRE(out == in_place_up);
      for (size_t i = 0; i < n; ++i) {
        const double g = gate[i];
        require_close(out[i], g / (1 + std::exp(-g)) * up[i], 6e-7);
      }
    });
  }
  for_all_kernels([&](const Kernels& kernels) {
    const float gate[] = {-1000, -89, 1000, 0, kInfinity, NAN}, up[] = {1, 1, 1, 1, 1, 1};
    float out[6];
    kernels.activate(Activation::kSilu, gate, up, 6, out);
    CHECK(std::abs(out[0]) < 1e-30f);
    CHECK(std::abs(out[1]) < 1e-30f);
    CHECK(out[2] == 1000);
    CHECK(out[3] == 0);
    CHECK(out[4] == kInfinity);
    CHECK(std::isnan(out[5]));
  });
}

TEST_CASE("add") {
  for (const size_t n : kSizes) {
    const std::vector<float> x = random_floats(n), y = random_floats(n);
    for_all_kernels([&](const Kernels& kernels) {
      std::vector<float> sum = x;
      kernels.add(sum.data(), y.data(), n);
      for (size_t i = 0; i < n; ++i) REQUIRE(sum[i] == x[i] + y[i]);
    });
  }
}

TEST_CASE("argmax: the largest, the lowest index of equals, never NaN") {
  for_all_kernels([&](const Kernels& kernels) {
    for (const size_t n : kSizes) {
      CAPTURE(n);
      for (size_t winner = 0; winner < n; winner += 1 + n / 9) {
        std::vector<float> x = random_floats(n);
        x[winner] = 100;
        x[n - 1] = 100;
        if (winner > 0) x[winner - 1] = NAN;
        REQUIRE(kernels.argmax(x.data(), n).id == winner);
        REQUIRE(kernels.argmax(x.data(), n).value == 100);
      }
      std::vector<float> low(n, -kInfinity);
      low[0] = NAN;
      REQUIRE(kernels.argmax(low.data(), n).id == 1);  // also n == 1: nothing but NaN
    }
    REQUIRE(kernels.argmax(nullptr, 0).id == 0);
  });
}

TEST_CASE("log_sum_exp") {
  for (const size_t n : kSizes) {
    std::vector<float> x = random_floats(n, 5);
    for (const float shift : {0.0f, 1000.0f, -1000.0f}) {
      for (float& value : x) value += shift;
      double sum = 0;
      for (const float value : x) sum += std::exp(static_cast<double>(value) - x[0]);
      for_all_kernels([&](const Kernels& kernels) {
        require_close(kernels.log_sum_exp(x.data(), n), x[0] + std::log(sum), 3e-7, 1e-6);
      });
    }
  }
  for_all_kernels([&](const Kernels& kernels) {
    const float mixed[] = {-kInfinity, 2, -kInfinity}, none[] = {-kInfinity, -kInfinity}, bad[] = {1, NAN, 2};
    CHECK(kernels.log_sum_exp(mixed, 3) == doctest::Approx(2));
    CHECK(kernels.log_sum_exp(none, 2) == -kInfinity);
    CHECK(kernels.log_sum_exp(none, 0) == -kInfinity);
    CHECK(std::isnan(kernels.log_sum_exp(bad, 3)));
  });
}

}  // namespace lethe::cpu
