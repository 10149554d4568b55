#include "runtime/cache/namm/features.h"

#include "runtime/base/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cache/namm/features.cc"
#include <algorithm>
#include <bit>
#include <cmath>

#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "runtime/base/simd/math-inl.h"
#include "runtime/base/simd/simd-inl.h"
#include "runtime/cache/key_geometry.h"
#include "runtime/cache/list_reader.h"
#include "runtime/cache/namm/state.h"

HWY_BEFORE_NAMESPACE();
namespace lethe::namm::HWY_NAMESPACE {
using namespace lethe::cpu::HWY_NAMESPACE;  // NOLINT(google-build-using-namespace): DF, VF and their helpers

// 50000^(-i/4) radians in 2^-64 turns, so that an age of any length loses nothing.
constexpr uint64_t kAgeTurns[kAgePairs] = {2935890503282001226u, 196334831054218665u, 13129701479669248u,
                                           878036057176339u};

// ages [32], out [4 sines, 4 cosines][32]
void age_codes(const uint32_t* ages, float* out) {
  for (size_t pair = 0; pair < kAgePairs; ++pair) {
    HWY_ALIGN int32_t phases[kBlockSlots];
    for (size_t i = 0; i < kBlockSlots; ++i) phases[i] = static_cast<int32_t>(ages[i] * kAgeTurns[pair] >> 32);
    for (size_t i = 0; i < kBlockSlots; i += kLanes) {
      VF sine, cosine;
      sin_cos_lanes(hn::Load(di, phases + i), sine, cosine);
      hn::StoreU(sine, df, out + pair * kBlockSlots + i);
      hn::StoreU(cosine, df, out + (kAgePairs + pair) * kBlockSlots + i);
    }
  }
}

// Adds the distances between every token of two blocks to the sums of both.  a, b [dims][32], sums [32]
void add_distances(const float* a, const float* b, size_t dims, size_t a_count, size_t b_count, float* a_sums,
                   float* b_sums) {
  for (size_t i = 0; i < a_count; ++i) {
    VF sum = hn::Zero(df);
    for (size_t j = 0; j < b_count; j += kLanes) {
      VF square = hn::Zero(df);
      for (size_t d = 0; d < dims; ++d) {
        const VF x = hn::Sub(hn::LoadU(df, b + d * kBlockSlots + j), hn::Set(df, a[d * kBlockSlots + i]));
        square = hn::MulAdd(x, x, square);
      }
      const VF distance = hn::IfThenElseZero(hn::FirstN(df, b_count - j), hn::Sqrt(square));
      sum = hn::Add(sum, distance);
      hn::StoreU(hn::Add(hn::LoadU(df, b_sums + j), distance), df, b_sums + j);
    }
    a_sums[i] += hn::ReduceSum(df, sum);
  }
}

}  // namespace lethe::namm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lethe::namm {

HWY_EXPORT(age_codes);
HWY_EXPORT(add_distances);

namespace {

// Where the inputs of a list go: numbers of one kind stand in `width` rows of every block, from `first` on.
struct Rows {
  float* out;
  uint32_t width, first;

  float* of_block(uint32_t rank) const { return out + (size_t{rank} / kBlockSlots * width + first) * kBlockSlots; }
};

uint32_t newest_position(const KvPoolView& pool, const KvList& list) {
  const uint8_t* block = pool.blocks + uint64_t{list.last_block} * pool.layout.block_bytes;
  return block_positions(pool.layout, block)[(list.length - 1) % kBlockSlots];
}

// Rows `order(0)`, `order(1)`, ... of the state as numbers.
template <typename Order>
void read_state(const KvPoolView& pool, const KvList& list, uint32_t count, Order order, const Rows& rows) {
  for_each_block(pool, list, [&](const uint8_t* block, uint32_t rank, uint32_t) {
    float* out = rows.of_block(rank);
    for (uint32_t i = 0; i < count; ++i, out += kBlockSlots) {
      const uint16_t* codes = state_row(pool.layout, block, order(i));
      for (uint32_t slot = 0; slot < kBlockSlots; ++slot) {
        out[slot] = decode_state(codes[slot]);
      }
    }
  });
}

template <typename Function>
void read_sums(const KvPoolView& pool, const KvList& list, uint32_t row, Function function, const Rows& rows) {
  for_each_block(pool, list, [&](const uint8_t* block, uint32_t rank, uint32_t count) {
    const uint16_t *upper = state_row(pool.layout, block, row), *lower = state_row(pool.layout, block, row + 1);
    for (uint32_t slot = 0; slot < count; ++slot) {
      rows.of_block(rank)[slot] =
          function(std::bit_cast<float>(static_cast<uint32_t>(upper[slot]) << 16 | lower[slot]));
    }
  });
}

// Shows write(ages [32], out) every block's ages; those behind the last token are of no token.
template <typename Write>
void read_ages(const KvPoolView& pool, const KvList& list, Write write, const Rows& rows) {
  const uint32_t newest = newest_position(pool, list);
  for_each_block(pool, list, [&](const uint8_t* block, uint32_t rank, uint32_t) {
    uint32_t ages[kBlockSlots];
    for (uint32_t slot = 0; slot < kBlockSlots; ++slot) {
      ages[slot] = newest - block_positions(pool.layout, block)[slot];
    }
    write(ages, rows.of_block(rank));
  });
}

// A number of each age, as read_ages calls it.
template <typename Function>
auto per_age(Function function) {
  return [=](const uint32_t* ages, float* out) {
    for (uint32_t slot = 0; slot < kBlockSlots; ++slot) out[slot] = function(static_cast<float>(ages[slot]));
  };
}

// One number for each token, first token to last.
template <typename Read>
void read_tokens(const KvList& list, std::span<float> scratch, Read read, const Rows& rows) {
  const std::span<float> numbers = scratch.first(list.length);
  read(numbers);
  for (uint32_t rank = 0; rank < list.length; ++rank) rows.of_block(rank)[rank % kBlockSlots] = numbers[rank];
}

// Keys, then values, of a block.  out [2 head_dim][32]
void read_pairs(const KvLayout& layout, const uint8_t* block, float* out) {
  read_keys(layout, block, out);
  read_values(layout, block, out + layout.head_dim * kBlockSlots);
}

// Quadratic in the length of the list and in head_dim: an ablation, not for use.
void read_diversity(const KvPoolView& pool, const KvList& list, std::span<float> work, const Rows& rows) {
  const size_t dims = size_t{2} * pool.layout.head_dim;
  float *const a = work.data(), *const b = a + dims * kBlockSlots;
  for_each_block(pool, list,
                 [&](const uint8_t*, uint32_t rank, uint32_t) { std::fill_n(rows.of_block(rank), kBlockSlots, 0.0f); });
  for_each_block(pool, list, [&](const uint8_t* block, uint32_t rank, uint32_t count) {
    read_pairs(pool.layout, block, a);
    for_each_block(pool, list, [&](const uint8_t* other, uint32_t other_rank, uint32_t other_count) {
      if (other_rank > rank) return;
      float unused[kBlockSlots] = {};  // a block meets itself once, from both sides
      read_pairs(pool.layout, other, b);
      HWY_DYNAMIC_DISPATCH(add_distances)
      (a, b, dims, count, other_count, rows.of_block(rank), other_rank == rank ? unused : rows.of_block(other_rank));
    });
  });
  const float others = static_cast<float>(std::max(1u, list.length - 1));
  for_each_block(pool, list, [&](const uint8_t*, uint32_t rank, uint32_t) {
    for (uint32_t slot = 0; slot < kBlockSlots; ++slot) rows.of_block(rank)[slot] /= others;
  });
}

}  // namespace

void read_features(const Shape& shape, const Moments* moments, const KvPoolView& pool, const KvList& list,
                   const FeatureWork& work, float* out) {
  const StateRows state(shape.state_parts());
  const uint32_t width = shape.width();
  uint32_t first = 0, moment = 0;
  for (const Input input : shape.list()) {
    const Rows rows{out, width, first};
    switch (input) {
      case Input::kAge: read_ages(pool, list, HWY_DYNAMIC_POINTER(age_codes), rows); break;
      case Input::kSpectrum: read_state(pool, list, kBins, [&](uint32_t i) { return state.averages + i; }, rows); break;
      case Input::kRawAttention: {
        const uint32_t newest = newest_position(pool, list);
        read_state(pool, list, kFrame, [&](uint32_t i) { return state.ring + (newest - i) % kFrame; }, rows);
        break;
      }
      case Input::kAttentionSum: read_sums(pool, list, state.sum, [](float sum) { return sum; }, rows); break;
      case Input::kLogAttention:
        read_sums(pool, list, state.sum, [](float sum) { return std::log2(kLeastAttention + sum); }, rows);
        break;
      case Input::kRecency: read_ages(pool, list, per_age([](float age) { return age; }), rows); break;
      case Input::kLogRecency:
        read_ages(pool, list, per_age([](float age) { return std::log2(1 + age); }), rows);
        break;
      case Input::kDiversity: read_diversity(pool, list, work.block, rows); break;
      case Input::kKeyNorm:
        read_tokens(list, work.tokens, [&](auto numbers) { key_norms(pool, list, work.block, numbers); }, rows);
        break;
      case Input::kKeyCosine:
        read_tokens(list, work.tokens, [&](auto numbers) { key_cosines(pool, list, work.block, numbers); }, rows);
        break;
      case Input::kValueNorm:
        for_each_block(pool, list, [&](const uint8_t* block, uint32_t rank, uint32_t) {
          value_norms(pool.layout, block, work.block.data(), rows.of_block(rank));
        });
        break;
    }
    const InputInfo& info = info_of(input);
    first += info.width;
    if (!info.is_standardised) continue;
    for_each_block(pool, list, [&](const uint8_t*, uint32_t rank, uint32_t) {
      float* numbers = rows.of_block(rank);
      for (uint32_t i = 0; i < info.width && moments != nullptr; ++i, numbers += kBlockSlots) {
        const float mean = moments->means[moment + i], scale = moments->inverse_deviations[moment + i];
        for (uint32_t slot = 0; slot < kBlockSlots; ++slot) numbers[slot] = (numbers[slot] - mean) * scale;
      }
    });
    moment += info.width;
  }
  // What lies behind the last token may be anything, and must not meet a key.
  const uint32_t used = list.length % kBlockSlots;
  float* row = Rows{out, width, 0}.of_block(list.length - 1);
  for (uint32_t i = 0; i < width && used != 0; ++i, row += kBlockSlots) {
    std::fill(row + used, row + kBlockSlots, 0.0f);
  }
}

}  // namespace lethe::namm
#endif
