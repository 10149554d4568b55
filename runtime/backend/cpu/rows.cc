// Kernels that go over rows of activations: norm, quantisation, RoPE, activation and residual.
#include "runtime/base/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/backend/cpu/rows.cc"
#include <cmath>

#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "runtime/backend/cpu/kernels.h"
#include "runtime/backend/cpu/simd_tables.h"
#include "runtime/base/simd/math-inl.h"
#include "runtime/base/simd/simd-inl.h"

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

void layer_norm(const float* x, const float* weight, const float* bias, float eps, size_t rows, size_t n, float* y) {
  for (size_t row = 0; row < rows; ++row, x += n, y += n) {
    VF sum = hn::Zero(df);
    for_lanes(n, [&](size_t i, size_t count) HWY_ATTR { sum = hn::Add(sum, load_lanes(x + i, count)); });
    const VF mean = hn::Set(df, hn::ReduceSum(df, sum) / static_cast<float>(n));
    VF squares = hn::Zero(df);
    for_lanes(n, [&](size_t i, size_t count) HWY_ATTR {
      const VF v = hn::Sub(load_lanes(x + i, count), mean);
      squares = hn::MulAdd(count == kLanes ? v : hn::IfThenElseZero(hn::FirstN(df, count), v), v, squares);
    });
    const VF scale = hn::Set(df, 1.0f / std::sqrt(hn::ReduceSum(df, squares) / static_cast<float>(n) + eps));
    for_lanes(n, [&](size_t i, size_t count) HWY_ATTR {
      const VF v = hn::Mul(hn::Sub(load_lanes(x + i, count), mean), scale);
      const VF shift = bias == nullptr ? hn::Zero(df) : load_lanes(bias + i, count);
      store_lanes(hn::MulAdd(v, load_lanes(weight + i, count), shift), y + i, count);
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
    VI sum = hn::Zero(di), half_sum = sum;
    for (size_t i = 0; i < kGroup; i += kLanes) {
      if (i == kGroup / 2) half_sum = sum;
      const VF ratio = hn::IfThenZeroElse(zero, hn::Div(hn::LoadU(df, in + i), hn::Set(df, scale)));
      // A subnormal scale is coarse: the ratio can exceed 127.
      const VI quant = hn::NearestInt(hn::Min(hn::Max(ratio, hn::Set(df, -127.0f)), hn::Set(df, 127.0f)));
      hn::StoreU(hn::DemoteTo(d8, quant), d8, out.quants + group * kGroup + i);
      sum = hn::Add(sum, quant);
    }
    out.scales[group] = scale;
    out.sums[group] = scale * static_cast<float>(hn::ReduceSum(di, sum));
    out.half_sums[group] = scale * static_cast<float>(hn::ReduceSum(di, half_sum));
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

HWY_INLINE VF sigmoid_times(VF x, VF argument) {
  return hn::Div(x, hn::Add(hn::Set(df, 1.0f), exp_lanes(hn::Neg(argument))));
}
template <Activation kActivation>
HWY_INLINE VF activation_lanes(VF x) {
  if constexpr (kActivation == Activation::kSilu) return sigmoid_times(x, x);
  if constexpr (kActivation == Activation::kGeluTanh) {  // (1 + tanh(u)) / 2 = sigmoid(2u)
    const VF cube = hn::Mul(hn::Mul(x, x), x);
    const VF twice =
        hn::MulAdd(cube, hn::Set(df, 2 * 0.7978845608f * 0.044715f), hn::Mul(x, hn::Set(df, 1.5957691216f)));
    return sigmoid_times(x, twice);
  }
  if constexpr (kActivation == Activation::kGelu) return hn::Mul(x, normal_cdf_lanes(x));
  if constexpr (kActivation == Activation::kRelu) return hn::IfThenZeroElse(hn::Lt(x, hn::Zero(df)), x);
}

template <Activation kActivation>
void activate_as(const float* gate, const float* up, size_t n, float* out) {
  for_lanes(n, [&](size_t i, size_t count) HWY_ATTR {
    const VF v = activation_lanes<kActivation>(load_lanes(gate + i, count));
    store_lanes(up == nullptr ? v : hn::Mul(v, load_lanes(up + i, count)), out + i, count);
  });
}

void activate(Activation activation, const float* gate, const float* up, size_t n, float* out) {
  switch (activation) {
    case Activation::kSilu: return activate_as<Activation::kSilu>(gate, up, n, out);
    case Activation::kGeluTanh: return activate_as<Activation::kGeluTanh>(gate, up, n, out);
    case Activation::kGelu: return activate_as<Activation::kGelu>(gate, up, n, out);
    case Activation::kRelu: return activate_as<Activation::kRelu>(gate, up, n, out);
  }
}

void add(float* x, const float* y, size_t n) {
  for_lanes(n, [&](size_t i, size_t count) HWY_ATTR {
    store_lanes(hn::Add(load_lanes(x + i, count), load_lanes(y + i, count)), x + i, count);
  });
}

void scale(float* x, float factor, size_t n) {
  for_lanes(n, [&](size_t i, size_t count)
                   HWY_ATTR { store_lanes(hn::Mul(load_lanes(x + i, count), hn::Set(df, factor)), x + i, count); });
}

void softcap(float* x, float cap, size_t n) {
  for_lanes(n, [&](size_t i, size_t count) HWY_ATTR {
    const VF v = tanh_lanes(hn::Mul(load_lanes(x + i, count), hn::Set(df, 1.0f / cap)));
    store_lanes(hn::Mul(v, hn::Set(df, cap)), x + i, count);
  });
}

}  // namespace lethe::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lethe::cpu {

HWY_EXPORT(rms_norm);
HWY_EXPORT(layer_norm);
HWY_EXPORT(quantise);
HWY_EXPORT(rope);
HWY_EXPORT(activate);
HWY_EXPORT(add);
HWY_EXPORT(scale);
HWY_EXPORT(softcap);

void set_simd_rows(Kernels& kernels) {
  kernels.rms_norm = HWY_DYNAMIC_POINTER(rms_norm);
  kernels.layer_norm = HWY_DYNAMIC_POINTER(layer_norm);
  kernels.quantise = HWY_DYNAMIC_POINTER(quantise);
  kernels.rope = HWY_DYNAMIC_POINTER(rope);
  kernels.activate = HWY_DYNAMIC_POINTER(activate);
  kernels.add = HWY_DYNAMIC_POINTER(add);
  kernels.scale = HWY_DYNAMIC_POINTER(scale);
  kernels.softcap = HWY_DYNAMIC_POINTER(softcap);
}

}  // namespace lethe::cpu
#endif
