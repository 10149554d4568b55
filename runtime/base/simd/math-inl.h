// Vectorised exp and what is made of it, sine and cosine. Polynomials: Cephes (S. Moshier), expf, sinf and cosf.
#if defined(LETHE_BASE_SIMD_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LETHE_BASE_SIMD_MATH_INL_H_
#undef LETHE_BASE_SIMD_MATH_INL_H_
#else
#define LETHE_BASE_SIMD_MATH_INL_H_
#endif

#include "runtime/base/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lethe::cpu::HWY_NAMESPACE {

// exp(x) within about 2 ulp; 0 below -87.3 (also for -inf), infinity from about 89 on, NaN for NaN.
HWY_INLINE VF exp_lanes(VF x) {
  const VF lowest = hn::Set(df, -87.3f);
  // Only the exponent is clamped: where it was, r is large, so that the polynomial overflows or the mask applies.
  const VF scaled = hn::Mul(x, hn::Set(df, 1.44269504f));
  const VI n = hn::NearestInt(hn::Min(hn::Max(scaled, hn::Set(df, -126.0f)), hn::Set(df, 127.0f)));
  const VF nf = hn::ConvertTo(df, n);
  const VF r = hn::NegMulAdd(nf, hn::Set(df, -2.12194440e-4f), hn::NegMulAdd(nf, hn::Set(df, 0.693359375f), x));
  VF p = hn::Set(df, 1.9875691500e-4f);
  p = hn::MulAdd(p, r, hn::Set(df, 1.3981999507e-3f));
  p = hn::MulAdd(p, r, hn::Set(df, 8.3334519073e-3f));
  p = hn::MulAdd(p, r, hn::Set(df, 4.1665795894e-2f));
  p = hn::MulAdd(p, r, hn::Set(df, 1.6666665459e-1f));
  p = hn::MulAdd(p, r, hn::Set(df, 5.0000001201e-1f));
  p = hn::Add(hn::MulAdd(p, hn::Mul(r, r), r), hn::Set(df, 1.0f));
  const VF power = hn::BitCast(df, hn::ShiftLeft<23>(hn::Add(n, hn::Set(di, 127))));
  return hn::IfThenZeroElse(hn::Lt(x, lowest), hn::Mul(p, power));
}

// 2^x for x <= 0 within 2e-7, but never below 2^-100, so that products with it seldom become subnormal; NaN gives any
// number. Less work than exp_lanes. The polynomial is 1 at 0 and has the least largest error over [-1/2, 1/2].
HWY_INLINE VF exp2_negative_lanes(VF x) {
  const VF magic = hn::Set(df, 0x1.8p23f);  // adding it rounds to an integer, in the lowest bits
  const VF bounded = hn::Max(x, hn::Set(df, -100.0f));
  const VF rounded = hn::Add(bounded, magic);
  const VF r = hn::Sub(bounded, hn::Sub(rounded, magic));
  VF p = hn::Set(df, 1.3264652392e-3f);
  p = hn::MulAdd(p, r, hn::Set(df, 9.6715113244e-3f));
  p = hn::MulAdd(p, r, hn::Set(df, 5.5507339628e-2f));
  p = hn::MulAdd(p, r, hn::Set(df, 2.4022242124e-1f));
  p = hn::MulAdd(p, r, hn::Set(df, 6.9314697753e-1f));
  p = hn::MulAdd(p, r, hn::Set(df, 1.0f));
  return hn::BitCast(df, hn::Add(hn::BitCast(di, p), hn::ShiftLeft<23>(hn::BitCast(di, rounded))));
}

// tanh(x) within about 3 ulp (Cephes, tanhf: a polynomial near 0, 1 - 2 / (exp(2x) + 1) elsewhere).
HWY_INLINE VF tanh_lanes(VF x) {
  const VF one = hn::Set(df, 1.0f);
  const VF magnitude = hn::Abs(x);
  const VF t = exp_lanes(hn::Mul(magnitude, hn::Set(df, -2.0f)));
  const VF far = hn::CopySign(hn::Div(hn::Sub(one, t), hn::Add(one, t)), x);
  const VF z = hn::Mul(x, x);
  VF p = hn::Set(df, -5.70498872745e-3f);
  p = hn::MulAdd(p, z, hn::Set(df, 2.06390887954e-2f));
  p = hn::MulAdd(p, z, hn::Set(df, -5.37397155531e-2f));
  p = hn::MulAdd(p, z, hn::Set(df, 1.33314422036e-1f));
  p = hn::MulAdd(p, z, hn::Set(df, -3.33332819422e-1f));
  const VF near = hn::MulAdd(hn::Mul(p, z), x, x);
  return hn::IfThenElse(hn::Lt(magnitude, hn::Set(df, 0.625f)), near, far);
}

// The normal distribution up to x, (1 + erf(x / sqrt(2))) / 2, within 1e-7 (Abramowitz & Stegun 7.1.26).
HWY_INLINE VF normal_cdf_lanes(VF x) {
  const VF one = hn::Set(df, 1.0f);
  const VF y = hn::Mul(hn::Abs(x), hn::Set(df, 0.70710678f));
  const VF t = hn::Div(one, hn::MulAdd(y, hn::Set(df, 0.3275911f), one));
  VF p = hn::Set(df, 1.061405429f);
  p = hn::MulAdd(p, t, hn::Set(df, -1.453152027f));
  p = hn::MulAdd(p, t, hn::Set(df, 1.421413741f));
  p = hn::MulAdd(p, t, hn::Set(df, -0.284496736f));
  p = hn::MulAdd(p, t, hn::Set(df, 0.254829592f));
  const VF tail = hn::Mul(hn::Mul(hn::Set(df, 0.5f), hn::Mul(p, t)), exp_lanes(hn::Neg(hn::Mul(y, y))));
  return hn::IfThenElse(hn::Lt(x, hn::Zero(df)), tail, hn::Sub(one, tail));
}

// 1 / (1 + exp(-x)) within about 4 ulp; 0 below -87.3.
HWY_INLINE VF sigmoid_lanes(VF x) {
  return hn::Div(hn::Set(df, 1.0f), hn::Add(hn::Set(df, 1.0f), exp_lanes(hn::Neg(x))));
}

// log(1 + exp(x)) within about 4 ulp; 0 below -87.3, x from 17 on: max(x, 0) + log(1 + u), u = exp(-|x|), with the
// series of the inverse hyperbolic tangent: log(1 + u) = 2 atanh(s), s = u / (2 + u), which is at most 1/3.
HWY_INLINE VF softplus_lanes(VF x) {
  const VF u = exp_lanes(hn::Neg(hn::Abs(x)));
  const VF s = hn::Div(u, hn::Add(u, hn::Set(df, 2.0f)));
  const VF z = hn::Mul(s, s);
  VF p = hn::Set(df, 2.0f / 15);
  p = hn::MulAdd(p, z, hn::Set(df, 2.0f / 13));
  p = hn::MulAdd(p, z, hn::Set(df, 2.0f / 11));
  p = hn::MulAdd(p, z, hn::Set(df, 2.0f / 9));
  p = hn::MulAdd(p, z, hn::Set(df, 2.0f / 7));
  p = hn::MulAdd(p, z, hn::Set(df, 2.0f / 5));
  p = hn::MulAdd(p, z, hn::Set(df, 2.0f / 3));
  p = hn::MulAdd(hn::Mul(p, z), s, hn::Add(s, s));
  return hn::Add(p, hn::Max(x, hn::Zero(df)));  // p hands on a NaN, whatever Max does with it
}

HWY_INLINE float exp_one(float x) { return hn::GetLane(exp_lanes(hn::Set(df, x))); }

// Sine and cosine of an angle in units of 2^-32 turns: reduction is exact, whatever the angle. Error about 3e-7.
HWY_INLINE void sin_cos_lanes(VI phase, VF& sine, VF& cosine) {
  const VI quadrant = hn::ShiftRight<30>(hn::Add(phase, hn::Set(di, 1 << 29)));
  const VI rest = hn::Sub(phase, hn::ShiftLeft<30>(quadrant));
  const VF x = hn::Mul(hn::ConvertTo(df, rest), hn::Set(df, 1.46291807926715968e-9f));  // 2 pi / 2^32: within pi/4
  const VF z = hn::Mul(x, x);
  VF s = hn::MulAdd(hn::Set(df, -1.9515295891e-4f), z, hn::Set(df, 8.3321608736e-3f));
  s = hn::MulAdd(s, z, hn::Set(df, -1.6666654611e-1f));
  s = hn::MulAdd(hn::Mul(s, z), x, x);
  VF c = hn::MulAdd(hn::Set(df, 2.443315711809948e-5f), z, hn::Set(df, -1.388731625493765e-3f));
  c = hn::MulAdd(c, z, hn::Set(df, 4.166664568298827e-2f));
  c = hn::MulAdd(hn::Mul(c, z), z, hn::NegMulAdd(z, hn::Set(df, 0.5f), hn::Set(df, 1.0f)));
  const auto swap = hn::RebindMask(df, hn::TestBit(quadrant, hn::Set(di, 1)));
  const VI two = hn::Set(di, 2);
  const VI sine_sign = hn::ShiftLeft<30>(hn::And(quadrant, two));
  const VI cosine_sign = hn::ShiftLeft<30>(hn::And(hn::Add(quadrant, hn::Set(di, 1)), two));
  sine = hn::Xor(hn::IfThenElse(swap, c, s), hn::BitCast(df, sine_sign));
  cosine = hn::Xor(hn::IfThenElse(swap, s, c), hn::BitCast(df, cosine_sign));
}

}  // namespace lethe::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
