// What a slot remembers of the attention it got, and the observer that writes it while attention is computed.
//
// All of it is numbers of 16 bits, in rows of the block's state section: row r of a slot is at [r][slot]. So vectors
// run over slots, and whatever moves slots moves this. Zero is the state of a token that nobody has seen.
//
//   ring      [32]  attention of the query at position p, in row p % 32: the open hop and the one before it
//   averages  [17]  exponential average, over frames, of the magnitudes of the spectrum
//   sum       [2]   attention of all queries, a float: its upper 16 bits, then the lower ones
//
// Ring and averages are floats without a sign: 5 bits of exponent, 11 of mantissa, from 4e-12 to just below 32. That is
// one bit more than a half has, and what averages need most: they are rounded again with every hop. (In halves scores
// would deviate twice as much, more than by the bfloat16 in which the authors record attention.)
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "runtime/cache/kv_layout.h"
#include "runtime/cache/namm/inputs.h"
#include "runtime/cache/observe.h"

namespace lethe::namm {

// The code of x is that of the upper bits of (x + 2^-27), less those of 2^-27: so 0 is 0. Rounds to nearest; what is
// negative becomes 0, what is too large the largest, and what is not a number one of the two.
inline constexpr float kLeastState = 0x1p-27f;
inline constexpr int32_t kLeastStateBits = std::bit_cast<int32_t>(kLeastState);
inline constexpr int kStateShift = 12;
constexpr uint16_t encode_state(float x) {
  const int32_t bits =
      std::bit_cast<int32_t>(std::max(x, 0.0f) + kLeastState) - kLeastStateBits + (1 << (kStateShift - 1));
  return static_cast<uint16_t>(std::clamp(bits >> kStateShift, 0, 0xffff));
}
constexpr float decode_state(uint16_t code) {
  return std::bit_cast<float>((static_cast<int32_t>(code) << kStateShift) + kLeastStateBits) - kLeastState;
}

inline constexpr double kTokenDecay = 0.99;  // of the averages, for every token that comes

// Rows of the state section, for a set of StatePart. Parts that are not in it have no rows.
struct StateRows {
  uint32_t ring = 0;
  uint32_t averages, sum, count;
  constexpr explicit StateRows(uint32_t parts)
      : averages(ring + ((parts & kRing) != 0 ? kFrame : 0)),
        sum(averages + ((parts & kAverages) != 0 ? kBins : 0)),
        count(sum + ((parts & kSum) != 0 ? 2 : 0)) {}
  constexpr uint32_t bytes_per_slot() const { return 2 * count; }
};

// The row of a block's state section.  [32]
inline uint16_t* state_row(const KvLayout& layout, uint8_t* block, uint32_t row) {
  return reinterpret_cast<uint16_t*>(block + layout.state_offset) + row * kBlockSlots;
}
inline const uint16_t* state_row(const KvLayout& layout, const uint8_t* block, uint32_t row) {
  return reinterpret_cast<const uint16_t*>(block + layout.state_offset) + row * kBlockSlots;
}

// Sees every query, and closes a hop after each whose position is one before a multiple of 16. Nothing to see: no part.
Observer observer_of(uint32_t parts);

// The spectrum by itself, of 32 tokens: magnitudes of the one-sided transform of a frame under a periodic Hann window.
//   frame       [32][32 tokens]   samples, the oldest first
//   magnitudes  [17][32 tokens]
void frame_magnitudes(const float* frame, float* magnitudes);

}  // namespace lethe::namm
