#include "runtime/sample/random.h"

#include <doctest/doctest.h>

namespace lethe {
namespace {

// From the authors' xoshiro256plusplus.c with state 1, 2, 3, 4.
TEST_CASE("xoshiro256++ gives the numbers of its reference") {
  Random random(Random::State{1, 2, 3, 4});
  for (const uint64_t expected : {41943041ull, 58720359ull, 3588806011781223ull, 3591011842654386ull,
                                  9228616714210784205ull, 9973669472204895162ull, 14011001112246962877ull,
                                  12406186145184390807ull, 15849039046786891736ull, 10450023813501588000ull}) {
    CHECK(random.next() == expected);
  }
}

// From the authors' splitmix64.c with seed 1234567.
TEST_CASE("SplitMix64 seeds with the numbers of its reference") {
  CHECK(Random(1234567).state() ==
        Random::State{6457827717110365317ull, 3203168211198807973ull, 9817491932198370423ull, 4593380528125082431ull});
}

TEST_CASE("uniform numbers fill [0, 1) evenly") {
  Random random(5);
  int bins[10] = {};
  for (int i = 0; i < 100000; ++i) {
    const double value = random.uniform();
    REQUIRE(value >= 0);
    REQUIRE(value < 1);
    ++bins[static_cast<int>(value * 10)];
  }
  double chi_square = 0;
  for (const int count : bins) chi_square += (count - 10000.0) * (count - 10000.0) / 10000.0;
  CHECK(chi_square < 27.9);  // 9 degrees of freedom, p = 0.001
}

}  // namespace
}  // namespace lethe
