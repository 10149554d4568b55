// What all SIMD kernels share: the vector type, loads that convert to float, and tails. Compiled once per target.
#if defined(LETHE_BASE_SIMD_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LETHE_BASE_SIMD_SIMD_INL_H_
#undef LETHE_BASE_SIMD_SIMD_INL_H_
#else
#define LETHE_BASE_SIMD_SIMD_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace lethe::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::CappedTag<float, 16>;  // never wider than the 16 rows of a weight panel
using DI = hn::RebindToSigned<DF>;
using VF = hn::Vec<DF>;
using VI = hn::Vec<DI>;
inline constexpr DF df;
inline constexpr DI di;
inline constexpr size_t kLanes = hn::MaxLanes(df);

using DU8 = hn::Repartition<uint8_t, DF>;
using DI8 = hn::Repartition<int8_t, DF>;
using DI16 = hn::Repartition<int16_t, DF>;
using DU16 = hn::Repartition<uint16_t, DF>;
using VU8 = hn::Vec<DU8>;
using VI8 = hn::Vec<DI8>;
inline constexpr DU8 du8;
inline constexpr DI8 di8;
inline constexpr DI16 di16;
inline constexpr DU16 du16;

// The same four bytes in every lane.
template <class Byte>
HWY_INLINE VI8 broadcast4(const Byte* from) {
  int32_t four;
  std::memcpy(&four, from, 4);
  return hn::BitCast(di8, hn::Set(di, four));
}

// sum + the four products of every lane.
HWY_INLINE VI add_dot4(VU8 a, VI8 b, VI sum) { return hn::SumOfMulQuadAccumulate(di, a, b, sum); }
// The same for a <= 127 and b >= -127, which is less work where there is no instruction for all four products.
HWY_INLINE VI add_small_dot4(VU8 a, VI8 b, VI sum) {
#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3_DL
  return hn::Add(sum, hn::WidenMulPairwiseAdd(di, hn::SatWidenMulPairwiseAdd(di16, a, b), hn::Set(di16, 1)));
#elif HWY_ARCH_ARM
  return hn::SumOfMulQuadAccumulate(di, hn::BitCast(di8, a), b, sum);
#else
  return add_dot4(a, b, sum);
#endif
}

// IEEE half, as stored in files and in the KV pool; bfloat16, as recurrent states may be.
using Half = hwy::float16_t;
using Bf16 = hwy::bfloat16_t;

// kLanes consecutive elements as floats. No alignment needed.
HWY_INLINE VF load_float(const float* from) { return hn::LoadU(df, from); }
HWY_INLINE VF load_float(const Half* from) { return hn::PromoteTo(df, hn::LoadU(hn::Rebind<Half, DF>(), from)); }
HWY_INLINE VF load_float(const Bf16* from) { return hn::PromoteTo(df, hn::LoadU(hn::Rebind<Bf16, DF>(), from)); }
HWY_INLINE VF load_float(const int8_t* from) {
  return hn::ConvertTo(df, hn::PromoteTo(di, hn::LoadU(hn::Rebind<int8_t, DF>(), from)));
}

// The first `count` of them, zeros after.
HWY_INLINE VF load_float_n(const float* from, size_t count) { return hn::LoadN(df, from, count); }
HWY_INLINE VF load_float_n(const Half* from, size_t count) {
  return hn::PromoteTo(df, hn::LoadN(hn::Rebind<Half, DF>(), from, count));
}
HWY_INLINE VF load_float_n(const Bf16* from, size_t count) {
  return hn::PromoteTo(df, hn::LoadN(hn::Rebind<Bf16, DF>(), from, count));
}
HWY_INLINE VF load_float_n(const int8_t* from, size_t count) {
  return hn::ConvertTo(df, hn::PromoteTo(di, hn::LoadN(hn::Rebind<int8_t, DF>(), from, count)));
}

// Calls f(i, count) for i = 0, kLanes, ...: `count` is kLanes, a constant once inlined, except for the tail.
template <class F>
HWY_INLINE void for_lanes(size_t n, const F& f) {
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) f(i, kLanes);
  if (i < n) f(i, n - i);
}

HWY_INLINE VF load_lanes(const float* from, size_t count) {
  return count == kLanes ? hn::LoadU(df, from) : hn::LoadN(df, from, count);
}
HWY_INLINE void store_lanes(VF v, float* to, size_t count) {
  if (count == kLanes) {
    hn::StoreU(v, df, to);
  } else {
    hn::StoreN(v, df, to, count);
  }
}

}  // namespace lethe::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
