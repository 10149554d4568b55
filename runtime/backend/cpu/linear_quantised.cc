// Linear layers with 8- and 4-bit weights and int8 activations: an exact integer dot product per group of 32 inputs,
// then float: y += scale_w * (scale_x * dot) + minimum_w * sum_x.
#include "runtime/backend/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/backend/cpu/linear_quantised.cc"
#include <cstring>

#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "runtime/backend/cpu/kernels.h"
#include "runtime/backend/cpu/linear-inl.h"
#include "runtime/backend/cpu/simd-inl.h"
#include "runtime/backend/cpu/simd_tables.h"

HWY_BEFORE_NAMESPACE();
namespace lethe::cpu::HWY_NAMESPACE {

using DU8 = hn::Repartition<uint8_t, DF>;
using DI8 = hn::Repartition<int8_t, DF>;
using DI16 = hn::Repartition<int16_t, DF>;
using VU8 = hn::Vec<DU8>;
using VI8 = hn::Vec<DI8>;
inline constexpr DU8 du8;
inline constexpr DI8 di8;
inline constexpr DI16 di16;

// Four activations in every lane.
HWY_INLINE VI8 broadcast4(const int8_t* from) {
  int32_t four;
  std::memcpy(&four, from, 4);
  return hn::BitCast(di8, hn::Set(di, four));
}

// x86 without VNNI: 4-bit weights times int8 fit 16-bit lanes for a whole group (8 steps of at most 2 * 15 * 127).
inline constexpr bool kSum16 = HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3_DL;

// dot + the four products of every lane. A dot is opened with zero and closed by finish_dot.
template <bool kFourBits>
HWY_INLINE VI add_products(VU8 weight, VI8 input, VI dot) {
  if constexpr (kFourBits && kSum16) {
    return hn::BitCast(di, hn::Add(hn::BitCast(di16, dot), hn::SatWidenMulPairwiseAdd(di16, weight, input)));
  } else if constexpr (kFourBits && HWY_ARCH_ARM) {
    return hn::SumOfMulQuadAccumulate(di, hn::BitCast(di8, weight), input, dot);  // one signed instruction, or none
  } else {
    return hn::SumOfMulQuadAccumulate(di, weight, input, dot);
  }
}

template <bool kFourBits>
HWY_INLINE VI finish_dot(VI dot) {
  if constexpr (kFourBits && kSum16) {
    return hn::WidenMulPairwiseAdd(di, hn::BitCast(di16, dot), hn::Set(di16, 1));
  } else {
    return dot;
  }
}

template <WeightFormat kFormat>
struct QuantisedTile {
  static constexpr bool kFourBits = kFormat != WeightFormat::kQ8;
  static constexpr size_t kLineInputs = kFourBits ? 8 : 4;
  static constexpr size_t kGroupLines = kGroup / kLineInputs;
  static constexpr size_t kParamStride = kFormat == WeightFormat::kQ4M ? 2 * kPanelRows : kPanelRows;  // halves

  // y of T tokens from `token` on, for V vectors of rows from vector `first` on. The order of the float operations of
  // an output does not depend on T and V.
  template <int T, int V>
  static HWY_INLINE void run(const LinearArgs& args, size_t first, size_t token) {
    const size_t cols = args.weight.cols;
    const size_t groups = cols / kGroup;
    const Half* HWY_RESTRICT params[V];
    const uint8_t* HWY_RESTRICT lines[V];
    for (size_t v = 0; v < V; ++v) {
      const uint8_t* panel = panel_of(args.weight, first + v);
      params[v] = reinterpret_cast<const Half*>(panel) + part_of(first + v) * kLanes;
      lines[v] = panel + panel_params_bytes(kFormat, cols) + part_of(first + v) * kLanes * 4;
    }
    const int8_t* HWY_RESTRICT quants = args.xq.quants + token * cols;
    const float* HWY_RESTRICT scales = args.xq.scales + token * groups;
    const float* HWY_RESTRICT sums = args.xq.sums + token * groups;

    VF acc[T][V];
    HWY_UNROLL(8)
    for (int t = 0; t < T; ++t) {
      HWY_UNROLL(4)
      for (int v = 0; v < V; ++v) acc[t][v] = hn::Zero(df);
    }
    for (size_t group = 0; group < groups; ++group) {
      VI dot[T][V];
      HWY_UNROLL(8)
      for (int t = 0; t < T; ++t) {
        HWY_UNROLL(4)
        for (int v = 0; v < V; ++v) dot[t][v] = hn::Zero(di);
      }
      HWY_UNROLL(8)
      for (size_t line = 0; line < kGroupLines; ++line) {
        VU8 low[V], high[V];
        HWY_UNROLL(4)
        for (int v = 0; v < V; ++v) {
          const VU8 both = hn::LoadU(du8, lines[v] + (group * kGroupLines + line) * kLineBytes);
          const VU8 mask = hn::Set(du8, 15);
          low[v] = kFourBits ? hn::And(both, mask) : both;
          high[v] = hn::And(hn::BitCast(du8, hn::ShiftRight<4>(hn::BitCast(di16, both))), mask);
        }
        HWY_UNROLL(8)
        for (int t = 0; t < T; ++t) {
          const int8_t* x = quants + static_cast<size_t>(t) * cols + group * kGroup + line * kLineInputs;
          const VI8 x_low = broadcast4(x);
          HWY_UNROLL(4)
          for (int v = 0; v < V; ++v) dot[t][v] = add_products<kFourBits>(low[v], x_low, dot[t][v]);
          if constexpr (kFourBits) {
            const VI8 x_high = broadcast4(x + 4);
            HWY_UNROLL(4)
            for (int v = 0; v < V; ++v) dot[t][v] = add_products<kFourBits>(high[v], x_high, dot[t][v]);
          }
        }
      }
      VF scale[V], minimum[V];
      HWY_UNROLL(4)
      for (int v = 0; v < V; ++v) {
        const Half* at = params[v] + group * kParamStride;
        scale[v] = load_float(at);
        if constexpr (kFormat == WeightFormat::kQ4M) {
          minimum[v] = load_float(at + kPanelRows);
        } else {
          minimum[v] = hn::Mul(scale[v], hn::Set(df, kFourBits ? -8.0f : -128.0f));
        }
      }
      HWY_UNROLL(8)
      for (int t = 0; t < T; ++t) {
        const VF x_scale = hn::Set(df, scales[static_cast<size_t>(t) * groups + group]);
        const VF x_sum = hn::Set(df, sums[static_cast<size_t>(t) * groups + group]);
        HWY_UNROLL(4)
        for (int v = 0; v < V; ++v) {
          const VF product = hn::Mul(hn::ConvertTo(df, finish_dot<kFourBits>(dot[t][v])), x_scale);
          acc[t][v] = hn::MulAdd(scale[v], product, hn::MulAdd(minimum[v], x_sum, acc[t][v]));
        }
      }
    }
    store_tile<T, V>(args, first, token, acc);
  }
};

void linear(const LinearArgs& args, uint32_t panel_begin, uint32_t panel_end) {
  switch (args.weight.format) {
    case WeightFormat::kQ8: return for_tiles<QuantisedTile<WeightFormat::kQ8>>(args, panel_begin, panel_end);
    case WeightFormat::kQ4: return for_tiles<QuantisedTile<WeightFormat::kQ4>>(args, panel_begin, panel_end);
    case WeightFormat::kQ4M: return for_tiles<QuantisedTile<WeightFormat::kQ4M>>(args, panel_begin, panel_end);
    default: return linear_float(args, panel_begin, panel_end);
  }
}

}  // namespace lethe::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lethe::cpu {
HWY_EXPORT(linear);
void set_simd_linear(Kernels& kernels) { kernels.linear = HWY_DYNAMIC_POINTER(linear); }
}  // namespace lethe::cpu
#endif
