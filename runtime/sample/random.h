// A small random number generator with a state that can be saved.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace lethe {

// xoshiro256++ 1.0 (Blackman and Vigna, "Scrambled Linear Pseudorandom Number Generators", ACM TOMS 47, 2021), seeded
// with SplitMix64 as its authors advise. The same numbers on every machine.
class Random {
 public:
  using State = std::array<uint64_t, 4>;  // any but all zeros

  explicit Random(uint64_t seed = 0) {
    for (uint64_t& word : state_) {  // SplitMix64 never gives four zeros in a row
      seed += 0x9e3779b97f4a7c15ull;
      uint64_t mixed = (seed ^ seed >> 30) * 0xbf58476d1ce4e5b9ull;
      mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111ebull;
      word = mixed ^ mixed >> 31;
    }
  }
  explicit Random(const State& state) : state_(state) {}
  const State& state() const { return state_; }

  uint64_t next() {
    const uint64_t result = std::rotl(state_[0] + state_[3], 23) + state_[0];
    const uint64_t shifted = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= shifted;
    state_[3] = std::rotl(state_[3], 45);
    return result;
  }
  // Uniform in [0, 1), multiples of 2^-53.
  double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

 private:
  State state_;
};

}  // namespace lethe
