#include "runtime/base/half.h"

#include <doctest/doctest.h>

#include <cmath>

namespace lethe {

TEST_CASE("half_to_float: the formula of IEEE 754 for all finite halves, and the special ones") {
  for (uint32_t half = 0; half < 0x10000; ++half) {
    const int exponent = static_cast<int>(half >> 10 & 31u), mantissa = static_cast<int>(half & 0x3ffu);
    const float value = half_to_float(static_cast<uint16_t>(half));
    if (exponent == 31) {
      CHECK((mantissa == 0 ? std::isinf(value) : std::isnan(value)));
    } else {
      const double magnitude = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
      REQUIRE(std::abs(value) == magnitude);
    }
    REQUIRE(std::signbit(value) == (half >= 0x8000));
  }
}

TEST_CASE("float_to_half inverts, and rounds to the nearest with ties to even") {
  for (uint32_t half = 0; half < 0x7c00; ++half) {
    const float here = half_to_float(static_cast<uint16_t>(half));
    REQUIRE(float_to_half(here) == half);
    REQUIRE(float_to_half(-here) == (half | 0x8000u));
    const float next = half == 0x7bff ? 65536.0f : half_to_float(static_cast<uint16_t>(half + 1));
    const float middle = (here + next) / 2;  // exact in float
    REQUIRE(float_to_half(std::nextafter(middle, 0.0f)) == half);
    REQUIRE(float_to_half(middle) == half + half % 2);
    REQUIRE(float_to_half(std::nextafter(middle, 1e9f)) == half + 1);
  }
  CHECK(float_to_half(1e9f) == 0x7c00);
  CHECK(float_to_half(-INFINITY) == 0xfc00);
  CHECK(std::isnan(half_to_float(float_to_half(NAN))));
}

TEST_CASE("float_to_bf16 inverts bf16_to_float, and rounds to the nearest with ties to even") {
  for (uint32_t bf16 = 0; bf16 < 0x7f80; ++bf16) {
    const float here = bf16_to_float(static_cast<uint16_t>(bf16));
    // Sign, 8 bits of exponent, 7 of mantissa.
    const int exponent = static_cast<int>(bf16 >> 7), mantissa = static_cast<int>(bf16 & 127);
    REQUIRE(here == (exponent == 0 ? std::ldexp(mantissa, -133) : std::ldexp(128 + mantissa, exponent - 134)));
    REQUIRE(float_to_bf16(here) == bf16);
    REQUIRE(float_to_bf16(-here) == (bf16 | 0x8000u));
    const double next = bf16 == 0x7f7f ? 0x1p128 : bf16_to_float(static_cast<uint16_t>(bf16 + 1));
    const float middle = static_cast<float>((here + next) / 2);  // exact in float
    REQUIRE(float_to_bf16(std::nextafter(middle, 0.0f)) == bf16);
    REQUIRE(float_to_bf16(middle) == bf16 + bf16 % 2);
    REQUIRE(float_to_bf16(std::nextafter(middle, INFINITY)) == bf16 + 1);
  }
  CHECK(float_to_bf16(INFINITY) == 0x7f80);
  CHECK(float_to_bf16(-INFINITY) == 0xff80);
  CHECK(std::isnan(bf16_to_float(float_to_bf16(NAN))));
  CHECK(std::isnan(bf16_to_float(float_to_bf16(std::bit_cast<float>(0x7fffffffu)))));
  CHECK(std::isnan(bf16_to_float(float_to_bf16(std::bit_cast<float>(0x7f800001u)))));
}

}  // namespace lethe
