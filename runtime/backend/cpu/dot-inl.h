// Sums of products of bytes. Compiled once per target.
#if defined(LETHE_BACKEND_CPU_DOT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LETHE_BACKEND_CPU_DOT_INL_H_
#undef LETHE_BACKEND_CPU_DOT_INL_H_
#else
#define LETHE_BACKEND_CPU_DOT_INL_H_
#endif

#include <cstdint>
#include <cstring>

#include "runtime/base/simd/simd-inl.h"

// NEON has dot products here (base/simd/targets.h). GCC has their intrinsics only in functions for Armv8.2, which every
// core with dot products is.
#undef LETHE_ARM_DOT_PRODUCTS
#if HWY_ARCH_ARM_A64 && HWY_TARGET == HWY_NEON
#define LETHE_ARM_DOT_PRODUCTS 1
#ifndef __ARM_FEATURE_DOTPROD
#undef HWY_TARGET_STR
#define HWY_TARGET_STR "arch=armv8.2-a+crypto+dotprod"
#endif
#else
#define LETHE_ARM_DOT_PRODUCTS 0
#endif

HWY_BEFORE_NAMESPACE();
namespace lethe::cpu::HWY_NAMESPACE {

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

// Four times four bytes, and those of one index: what add_dot4 multiplies with every lane. Arm's dot product picks them
// out of a register, others load them.
#if LETHE_ARM_DOT_PRODUCTS
using Quads = VI8;
template <size_t kIndex>
struct Quad {
  Quads quads;
};
HWY_INLINE Quads load_quads(const int8_t* from) { return hn::LoadU(di8, from); }
template <size_t kIndex>
HWY_INLINE Quad<kIndex> quad_of(Quads quads) {
  return {quads};
}
#else
using Quads = const int8_t*;
HWY_INLINE Quads load_quads(const int8_t* from) { return from; }
template <size_t kIndex>
HWY_INLINE VI8 quad_of(Quads quads) {
  return broadcast4(quads + kIndex * 4);
}
#endif

// Sums of four products of bytes, the first factors stored unsigned. Arm multiplies signed bytes: there a full byte
// becomes a factor by losing kDotOffset, so that a sum is short of kDotOffset times the sum of the second factors.
// One of the two factors is never below -127.
#if HWY_ARCH_ARM_A64
inline constexpr int kDotOffset = 128;
HWY_INLINE VU8 dot_factor(VU8 full) { return hn::Xor(full, hn::Set(du8, 128)); }
// sum + the four products of every lane, of a dot_factor or of a <= 127.
HWY_INLINE VI add_dot4(VU8 a, VI8 b, VI sum) {
  const VI8 factor = hn::BitCast(di8, a);
#if LETHE_ARM_DOT_PRODUCTS
  return VI(vdotq_s32(sum.raw, factor.raw, b.raw));
#else
  // Two products fit into 16 bits.
  const int16x8_t low = vmull_s8(vget_low_s8(factor.raw), vget_low_s8(b.raw));
  return VI(vpadalq_s16(sum.raw, vpaddq_s16(low, vmull_high_s8(factor.raw, b.raw))));
#endif
}
#if LETHE_ARM_DOT_PRODUCTS
template <size_t kIndex>
HWY_INLINE VI add_dot4(VU8 a, Quad<kIndex> b, VI sum) {
  return VI(vdotq_laneq_s32(sum.raw, hn::BitCast(di8, a).raw, b.quads.raw, kIndex));
}
#endif
#else
inline constexpr int kDotOffset = 0;
HWY_INLINE VU8 dot_factor(VU8 full) { return full; }
HWY_INLINE VI add_dot4(VU8 a, VI8 b, VI sum) { return hn::SumOfMulQuadAccumulate(di, a, b, sum); }
#endif
// The same for a <= 127 and b >= -127, which is less work on x86 without VNNI.
HWY_INLINE VI add_small_dot4(VU8 a, VI8 b, VI sum) {
#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3_DL
  return hn::Add(sum, hn::WidenMulPairwiseAdd(di, hn::SatWidenMulPairwiseAdd(di16, a, b), hn::Set(di16, 1)));
#else
  return add_dot4(a, b, sum);
#endif
}

}  // namespace lethe::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
