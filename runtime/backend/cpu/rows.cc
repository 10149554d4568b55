// Kernels that go over rows of activations: norm, quantisation, RoPE, gate and residual.
#include "runtime/backend/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/backend/cpu/rows.cc"
#include <cmath>

#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "runtime/backend/cpu/kernels.h"
#include "runtime/backend/cpu/math-inl.h"
#include "runtime/backend/cpu/simd-inl.h"
#include "runtime/backend/cpu/simd_tables.h"

HWY_BEFORE_NAMESPACE();
namespace lethe::cpu::HWY_NAMESPACE {

void rms_norm(const float* x, const float* weight, float eps, size_t rows, size_t n, float* y) {
  for (size_t row = 0; row < rows; ++row, x += n, y += n) {
    VF squares = hn::Zero(df);
    for_lanes(n, [&](size_t i, size_t count) HWY_ATTR {
      const VF v = load_lanes(x + i, count);
      squares = hn::MulAdd(v, v, squares);
    });
    const float mean = hn::ReduceSum(df, squares) / static_cast<float>(n);
    const VF scale = hn::Set(df, 1.0f / std::sqrt(mean + eps));
    for_lanes(n, [&](size_t i, size_t count) HWY_ATTR {
      const VF v = hn::Mul(load_lanes(x + i, count), scale);
      store_lanes(hn::Mul(v, load_lanes(weight + i, count)), y + i, count);
    });
  }
}

void quantise(const float* x, size_t rows, size_t k, QuantisedRows out) {
  const hn::Rebind<int8_t, DF> d8;
  for (size_t group = 0; group < rows * k / kGroup; ++group) {
    const float* in = x + group * kGroup;
    VF largest = hn::Zero(df);
    for (size_t i = 0; i < kGroup; i += kLanes) largest = hn::Max(largest, hn::Abs(hn::LoadU(df, in + i)));
    const float scale = hn::ReduceMax(df, largest) / 127.0f;
    const auto zero = hn::Eq(hn::Set(df, scale), hn::Zero(df));
    VI sum = hn::Zero(di);
    for (size_t i = 0; i < kGroup; i += kLanes) {
      const VF ratio = hn::IfThenZeroElse(zero, hn::Div(hn::LoadU(df, in + i), hn::Set(df, scale)));
      // A subnormal scale is coarse: the ratio can exceed 127.
      const VI quant = hn::NearestInt(hn::Min(hn::Max(ratio, hn::Set(df, -127.0f)), hn::Set(df, 127.0f)));
      hn::StoreU(hn::DemoteTo(d8, quant), d8, out.quants + group * kGroup + i);
      sum = hn::Add(sum, quant);
    }
    out.scales[group] = scale;
    out.sums[group] = scale * static_cast<float>(hn::ReduceSum(di, sum));
  }
}

void rope(float* x, size_t tokens, size_t stride, size_t heads, size_t head_dim, const RopeTable& table) {
  const size_t half = table.rotary_dim / 2;
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t head = 0; head < heads; ++head) {
      float* low = x + t * stride + head * head_dim;
      float* high = low + half;
      for_lanes(half, [&](size_t i, size_t count) HWY_ATTR {
        const VF c = load_lanes(table.cos + t * half + i, count);
        const VF s = load_lanes(table.sin + t * half + i, count);
        const VF a = load_lanes(low + i, count);
        const VF b = load_lanes(high + i, count);
        store_lanes(hn::NegMulAdd(b, s, hn::Mul(a, c)), low + i, count);
        store_lanes(hn::MulAdd(a, s, hn::Mul(b, c)), high + i, count);
      });
    }
  }
}

void silu_mul(const float* gate, const float* up, size_t n, float* out) {
  for_lanes(n, [&](size_t i, size_t count) HWY_ATTR {
    const VF g = load_lanes(gate + i, count);
    const VF silu = hn::Div(g, hn::Add(hn::Set(df, 1.0f), exp_lanes(hn::Neg(g))));
    store_lanes(hn::Mul(silu, load_lanes(up + i, count)), out + i, count);
  });
}

void add(float* x, const float* y, size_t n) {
  for_lanes(n, [&](size_t i, size_t count) HWY_ATTR {
    store_lanes(hn::Add(load_lanes(x + i, count), load_lanes(y + i, count)), x + i, count);
  });
}

}  // namespace lethe::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lethe::cpu {

HWY_EXPORT(rms_norm);
HWY_EXPORT(quantise);
HWY_EXPORT(rope);
HWY_EXPORT(silu_mul);
HWY_EXPORT(add);

void set_simd_rows(Kernels& kernels) {
  kernels.rms_norm = HWY_DYNAMIC_POINTER(rms_norm);
  kernels.quantise = HWY_DYNAMIC_POINTER(quantise);
  kernels.rope = HWY_DYNAMIC_POINTER(rope);
  kernels.silu_mul = HWY_DYNAMIC_POINTER(silu_mul);
  kernels.add = HWY_DYNAMIC_POINTER(add);
}

}  // namespace lethe::cpu
#endif
