// What all SIMD kernels share: the vector type, loads that convert to float, and tails. Compiled once per target.
//
// A structure of vectors needs a constructor of its own: GCC compiles an implicit one for the baseline, into which
// Highway's code for a better target cannot be inlined.
#if defined(LETHE_BASE_SIMD_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LETHE_BASE_SIMD_SIMD_INL_H_
#undef LETHE_BASE_SIMD_SIMD_INL_H_
#else
#define LETHE_BASE_SIMD_SIMD_INL_H_
#endif

#include <cstddef>
#include <cstdint>

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
