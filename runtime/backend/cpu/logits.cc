// Kernels that reduce the logits of one token.
#include "runtime/base/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/backend/cpu/logits.cc"
#include <cmath>
#include <limits>

#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "runtime/backend/cpu/kernels.h"
#include "runtime/backend/cpu/simd_tables.h"
#include "runtime/base/simd/math-inl.h"
#include "runtime/base/simd/simd-inl.h"
#include "runtime/base/simd/target_choice.h"

HWY_BEFORE_NAMESPACE();
namespace lethe::cpu::HWY_NAMESPACE {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The largest value that is not NaN; -infinity if there is none.
HWY_INLINE float largest(const float* x, size_t n) {
  VF best = hn::Set(df, -kInfinity);
  float rest = -kInfinity;
  for_lanes(n, [&](size_t i, size_t count) HWY_ATTR {
    if (count == kLanes) {
      const VF v = hn::LoadU(df, x + i);
      best = hn::IfThenElse(hn::Gt(v, best), v, best);
    } else {
      for (size_t j = i; j < n; ++j) rest = x[j] > rest ? x[j] : rest;
    }
  });
  return HWY_MAX(hn::ReduceMax(df, best), rest);
}

TopLogit argmax(const float* logits, size_t n) {
  const float top = largest(logits, n);
  const VF wanted = hn::Set(df, top);
  size_t i = 0;
  while (i + kLanes <= n && hn::AllFalse(df, hn::Eq(hn::LoadU(df, logits + i), wanted))) i += kLanes;
  while (i < n && logits[i] != top) ++i;
  return {top, static_cast<uint32_t>(i)};
}

float log_sum_exp(const float* logits, size_t n) {
  const float top = largest(logits, n);
  if (std::isinf(top)) return top;
  VF sum = hn::Zero(df);
  for_lanes(n, [&](size_t i, size_t count) HWY_ATTR {
    const VF e = exp_lanes(hn::Sub(load_lanes(logits + i, count), hn::Set(df, top)));
    sum = hn::Add(sum, count == kLanes ? e : hn::IfThenElseZero(hn::FirstN(df, count), e));
  });
  return top + std::log(hn::ReduceSum(df, sum));
}

const char* target_name() { return lethe::target_name(HWY_TARGET); }

}  // namespace lethe::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lethe::cpu {

HWY_EXPORT(argmax);
HWY_EXPORT(log_sum_exp);
HWY_EXPORT(target_name);

void set_simd_logits(Kernels& kernels) {
  kernels.name = HWY_DYNAMIC_DISPATCH(target_name)();
  kernels.argmax = HWY_DYNAMIC_POINTER(argmax);
  kernels.log_sum_exp = HWY_DYNAMIC_POINTER(log_sum_exp);
}

}  // namespace lethe::cpu
#endif
