// The observer of state.h: writes attention into the ring and folds every hop into the averages.
#include "runtime/base/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cache/namm/recorder.cc"
#include <algorithm>

#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "runtime/base/simd/simd-inl.h"
#include "runtime/cache/namm/spectrum-inl.h"
#include "runtime/cache/namm/state.h"

HWY_BEFORE_NAMESPACE();
namespace lethe::namm::HWY_NAMESPACE {

constexpr hn::Rebind<uint16_t, DF> dcode;
static_assert(kBlockSlots % kLanes == 0);

constexpr double power(double base, uint32_t exponent) { return exponent == 0 ? 1 : base * power(base, exponent - 1); }
constexpr float kFrameDecay = static_cast<float>(power(kTokenDecay, kHop));

HWY_INLINE VF decode_lanes(const uint16_t* codes) {
  const VI bits = hn::ShiftLeft<kStateShift>(hn::PromoteTo(di, hn::LoadU(dcode, codes)));
  return hn::Sub(hn::BitCast(df, hn::Add(bits, hn::Set(di, kLeastStateBits))), hn::Set(df, kLeastState));
}
HWY_INLINE hn::Vec<decltype(dcode)> encode_lanes(VF x) {
  const VI bits = hn::BitCast(di, hn::Add(hn::Max(x, hn::Zero(df)), hn::Set(df, kLeastState)));
  const VI rounded = hn::Sub(bits, hn::Set(di, kLeastStateBits - (1 << (kStateShift - 1))));
  return hn::DemoteTo(dcode, hn::ShiftRight<kStateShift>(rounded));
}

// The attention of one query.  attention [count], row [32]
HWY_INLINE void write_row(const float* attention, size_t count, uint16_t* row) {
  for_lanes(count, [&](size_t i, size_t lanes) HWY_ATTR {
    const auto codes = encode_lanes(load_lanes(attention + i, lanes));
    if (lanes == kLanes) {
      hn::StoreU(codes, dcode, row + i);
    } else {
      hn::StoreN(codes, dcode, row + i, lanes);
    }
  });
}

// Adds the frame of the last two hops to the averages.  older, newer [16][32], averages [17][32]
HWY_INLINE void fold_frame(const uint16_t* older, const uint16_t* newer, uint16_t* averages) {
  const VF keep = hn::Set(df, kFrameDecay), take = hn::Set(df, 1 - kFrameDecay);
  for (size_t slot = 0; slot < kBlockSlots; slot += kLanes) {
    VF frame[kFrame], magnitudes[kBins];
    for (size_t i = 0; i < kHop; ++i) frame[i] = decode_lanes(older + i * kBlockSlots + slot);
    for (size_t i = 0; i < kHop; ++i) frame[kHop + i] = decode_lanes(newer + i * kBlockSlots + slot);
    spectrum_lanes(frame, magnitudes);
    for (size_t k = 0; k < kBins; ++k) {
      uint16_t* const average = averages + k * kBlockSlots + slot;
      const VF sum = hn::MulAdd(keep, decode_lanes(average), hn::Mul(take, magnitudes[k]));
      hn::StoreU(encode_lanes(sum), dcode, average);
    }
  }
}

// sum += attention.  attention [count], upper, lower [32]
HWY_INLINE void add_to_sum(const float* attention, size_t count, uint16_t* upper, uint16_t* lower) {
  for (size_t slot = 0; slot < count; ++slot) {
    const uint32_t bits = static_cast<uint32_t>(upper[slot]) << 16 | lower[slot];
    const uint32_t sum = hwy::BitCastScalar<uint32_t>(hwy::BitCastScalar<float>(bits) + attention[slot]);
    upper[slot] = static_cast<uint16_t>(sum >> 16);
    lower[slot] = static_cast<uint16_t>(sum);
  }
}

void observe(const ObserveArgs& args, uint32_t parts) {
  const KvLayout& layout = args.pool.layout;
  const StateRows rows(parts);
  uint32_t index = args.start_block;
  for (uint32_t rank = args.rank_begin; rank < args.rank_end; rank += kBlockSlots, index = args.pool.next[index]) {
    uint8_t* const block = args.pool.blocks + uint64_t{index} * layout.block_bytes;
    const uint32_t count = std::min(kBlockSlots, args.rank_end - rank);
    uint16_t* const ring = state_row(layout, block, rows.ring);
    for (uint32_t t = 0; t < args.queries; ++t) {
      const float* attention = args.attention + uint64_t{t} * args.stride + (rank - args.rank_begin);
      const uint32_t position = args.first_query_position + t, at = position % kFrame;
      if (parts & kRing) write_row(attention, count, ring + at * kBlockSlots);
      if (parts & kSum) {
        add_to_sum(attention, count, state_row(layout, block, rows.sum), state_row(layout, block, rows.sum + 1));
      }
      if ((parts & kAverages) && position % kHop == kHop - 1) {
        const uint16_t* const newer = ring + (at + 1 - kHop) * kBlockSlots;
        const uint16_t* const older = ring + (at + 1) % kFrame * kBlockSlots;
        fold_frame(older, newer, state_row(layout, block, rows.averages));
      }
    }
  }
}

void frame_magnitudes(const float* frame, float* magnitudes) {
  for (size_t slot = 0; slot < kBlockSlots; slot += kLanes) {
    VF in[kFrame], out[kBins];
    for (size_t i = 0; i < kFrame; ++i) in[i] = hn::LoadU(df, frame + i * kBlockSlots + slot);
    spectrum_lanes(in, out);
    for (size_t k = 0; k < kBins; ++k) hn::StoreU(out[k], df, magnitudes + k * kBlockSlots + slot);
  }
}

}  // namespace lethe::namm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lethe::namm {

HWY_EXPORT(observe);
HWY_EXPORT(frame_magnitudes);

namespace {

template <uint32_t kParts>
void see(const ObserveArgs& args) {
  HWY_DYNAMIC_DISPATCH(observe)(args, kParts);
}

}  // namespace

Observer observer_of(uint32_t parts) {
  switch (parts) {
    case kRing: return {kEveryQuery, see<kRing>};
    case kRing | kAverages: return {kEveryQuery, see < kRing | kAverages > };
    case kSum: return {kEveryQuery, see<kSum>};
    case kRing | kSum: return {kEveryQuery, see < kRing | kSum > };
    case kRing | kAverages | kSum: return {kEveryQuery, see < kRing | kAverages | kSum > };
    default: return {};
  }
}

void frame_magnitudes(const float* frame, float* magnitudes) {
  HWY_DYNAMIC_DISPATCH(frame_magnitudes)(frame, magnitudes);
}

}  // namespace lethe::namm
#endif
