// A tile of a linear layer with quantised weights and int8 activations: an exact integer dot product per scale, then
// float: y += scale_w * (scale_x * dot) + minimum_w * sum_x.
#if defined(LETHE_BACKEND_CPU_LINEAR_QUANTISED_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LETHE_BACKEND_CPU_LINEAR_QUANTISED_INL_H_
#undef LETHE_BACKEND_CPU_LINEAR_QUANTISED_INL_H_
#else
#define LETHE_BACKEND_CPU_LINEAR_QUANTISED_INL_H_
#endif

#include "runtime/backend/cpu/linear-inl.h"
#include "runtime/backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lethe::cpu::HWY_NAMESPACE {

// Nibbles with the `kCount` bits from bit `kFrom` on of every byte of `line` above them.
template <int kFrom, int kCount>
HWY_INLINE VU8 with_high_bits(VU8 nibbles, VU8 line) {
  const auto lanes = hn::BitCast(du16, line);
  const VU8 mask = hn::Set(du8, ((1 << kCount) - 1) << 4);
  if constexpr (kFrom <= 4) {
    return hn::OrAnd(nibbles, hn::BitCast(du8, hn::ShiftLeft<4 - kFrom>(lanes)), mask);
  } else {
    return hn::OrAnd(nibbles, hn::BitCast(du8, hn::ShiftRight<kFrom - 4>(lanes)), mask);
  }
}

template <WeightFormat kFormat>
struct QuantisedTile {
  static constexpr int kBits = quant_bits(kFormat);
  static constexpr int kHighBits = kBits - 4;  // in a line of their own, below 8 bits
  static constexpr bool kNibbles = kBits < 8;
  static constexpr size_t kInputs = scale_inputs(kFormat);
  static constexpr size_t kLineInputs = kNibbles ? 8 : 4;
  static constexpr size_t kLowLines = kInputs / kLineInputs;
  static constexpr int kDecodeVectors = kParts;  // one panel at a time: one stream, which is what memory reads fastest
  // Where a scale covers only part of a group, the group's sum is no use: the offset is multiplied like a weight.
  static constexpr bool kOffsetIsWeight = kInputs != kGroup;

  // x86 without VNNI adds products of up to 6 bits in 16-bit lanes: 8 steps of at most 2 * 15 * 127 fit, 4 of
  // 2 * 31 * 127, 2 of 2 * 63 * 127; a line has 2. Elsewhere all lines are added in 32 bits.
  static constexpr bool kSum16 = kNibbles && HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3_DL;
  static constexpr size_t kSumLines = kSum16 ? size_t{4} >> kHighBits : kLowLines;

  // dot + the four products of every lane.
  static HWY_INLINE VI add_products(VU8 weight, VI8 input, VI dot) {
    if constexpr (kSum16) {
      return hn::BitCast(di, hn::Add(hn::BitCast(di16, dot), hn::SatWidenMulPairwiseAdd(di16, weight, input)));
    } else if constexpr (kNibbles && HWY_ARCH_ARM) {
      return hn::SumOfMulQuadAccumulate(di, hn::BitCast(di8, weight), input, dot);  // one signed instruction, or none
    } else {
      return hn::SumOfMulQuadAccumulate(di, weight, input, dot);
    }
  }
  static HWY_INLINE VI widen_sum(VI dot) {
    if constexpr (kSum16) {
      return hn::WidenMulPairwiseAdd(di, hn::BitCast(di16, dot), hn::Set(di16, 1));
    } else {
      return dot;
    }
  }

  // Adds the products of low line kLine and those after it up to kEnd. W = V, or V + 1: the last is the offset.
  template <size_t kLine, size_t kEnd, int T, int V, int W>
  static HWY_INLINE void add_lines(const uint8_t* const (&lines)[V], const VU8 (&high_line)[V],
                                   const int8_t* HWY_RESTRICT quants, size_t stride, VI (&dot)[T][W]) {
    if constexpr (kLine < kEnd) {
      const VU8 nibble = hn::Set(du8, 15);
      VU8 low[W], high[W];
      HWY_UNROLL(4)
      for (int v = 0; v < V; ++v) {
        const VU8 both = hn::LoadU(du8, lines[v] + kLine * kLineBytes);
        low[v] = kNibbles ? hn::And(both, nibble) : both;
        high[v] = hn::And(hn::BitCast(du8, hn::ShiftRight<4>(hn::BitCast(du16, both))), nibble);
        if constexpr (kNibbles && kHighBits > 0) {
          constexpr int kFrom = 2 * kLine * kHighBits;
          low[v] = with_high_bits<kFrom, kHighBits>(low[v], high_line[v]);
          high[v] = with_high_bits<kFrom + kHighBits, kHighBits>(high[v], high_line[v]);
        }
      }
      if constexpr (W > V) low[V] = high[V] = hn::Set(du8, quant_offset(kFormat));
      HWY_UNROLL(8)
      for (int t = 0; t < T; ++t) {
        const int8_t* x = quants + static_cast<size_t>(t) * stride + kLine * kLineInputs;
        const VI8 x_low = broadcast4(x);
        HWY_UNROLL(4)
        for (int w = 0; w < W; ++w) dot[t][w] = add_products(low[w], x_low, dot[t][w]);
        if constexpr (kNibbles) {
          const VI8 x_high = broadcast4(x + 4);
          HWY_UNROLL(4)
          for (int w = 0; w < W; ++w) dot[t][w] = add_products(high[w], x_high, dot[t][w]);
        }
      }
      add_lines<kLine + 1, kEnd>(lines, high_line, quants, stride, dot);
    }
  }

  // The dot products from low line kLine on, kSumLines at a time.
  template <size_t kLine, int T, int V, int W>
  static HWY_INLINE void dot_unit(const uint8_t* const (&lines)[V], const VU8 (&high_line)[V],
                                  const int8_t* HWY_RESTRICT quants, size_t stride, VI (&dot)[T][W]) {
    VI part[T][W];
    HWY_UNROLL(8)
    for (int t = 0; t < T; ++t) {
      HWY_UNROLL(4)
      for (int w = 0; w < W; ++w) part[t][w] = hn::Zero(di);
    }
    add_lines<kLine, kLine + kSumLines>(lines, high_line, quants, stride, part);
    HWY_UNROLL(8)
    for (int t = 0; t < T; ++t) {
      HWY_UNROLL(4)
      for (int w = 0; w < W; ++w) {
        dot[t][w] = kLine == 0 ? widen_sum(part[t][w]) : hn::Add(dot[t][w], widen_sum(part[t][w]));
      }
    }
    if constexpr (kLine + kSumLines < kLowLines) dot_unit<kLine + kSumLines>(lines, high_line, quants, stride, dot);
  }

  // y of T tokens from `token` on, for V vectors of rows from vector `first` on. The order of the float operations of
  // an output does not depend on T and V.
  template <int T, int V>
  static HWY_INLINE void run(const LinearArgs& args, size_t first, size_t token) {
    constexpr int W = V + (kOffsetIsWeight ? 1 : 0);
    const size_t cols = args.weight.cols;
    const size_t groups = cols / kGroup;
    const uint8_t* panels[V];
    for (size_t v = 0; v < V; ++v) panels[v] = panel_of(args.weight, first + v);
    const int8_t* HWY_RESTRICT quants = args.xq.quants + token * cols;
    const float* HWY_RESTRICT scales = args.xq.scales + token * groups;
    const float* HWY_RESTRICT sums = args.xq.sums + token * groups;

    VF acc[T][V];
    HWY_UNROLL(8)
    for (int t = 0; t < T; ++t) {
      HWY_UNROLL(4)
      for (int v = 0; v < V; ++v) acc[t][v] = hn::Zero(df);
    }
    for (size_t unit = 0; unit < cols / kInputs; ++unit) {
      const uint8_t* lines[V];
      VU8 high_line[V];
      HWY_UNROLL(4)
      for (int v = 0; v < V; ++v) {
        lines[v] = panels[v] + quants_offset(kFormat, unit) + part_of(first + static_cast<size_t>(v)) * kLanes * 4;
        high_line[v] = hn::Zero(du8);
        if constexpr (kNibbles && kHighBits > 0) high_line[v] = hn::LoadU(du8, lines[v] + kLowLines * kLineBytes);
      }
      VI dot[T][W];
      dot_unit<0>(lines, high_line, quants + unit * kInputs, cols, dot);

      VF scale[V], minimum[V];
      HWY_UNROLL(4)
      for (int v = 0; v < V; ++v) {
        const auto* at = reinterpret_cast<const Half*>(panels[v] + params_offset(kFormat, unit)) +
                         part_of(first + static_cast<size_t>(v)) * kLanes;
        scale[v] = load_float(at);
        if constexpr (has_minimum(kFormat)) {
          minimum[v] = load_float(at + kPanelRows);
        } else {
          minimum[v] = hn::Mul(scale[v], hn::Set(df, -quant_offset(kFormat)));
        }
      }
      const size_t group = unit * kInputs / kGroup;
      HWY_UNROLL(8)
      for (int t = 0; t < T; ++t) {
        const VF x_scale = hn::Set(df, scales[static_cast<size_t>(t) * groups + group]);
        const VF x_sum = hn::Set(df, sums[static_cast<size_t>(t) * groups + group]);
        HWY_UNROLL(4)
        for (int v = 0; v < V; ++v) {
          if constexpr (kOffsetIsWeight) {
            const VF product = hn::Mul(hn::ConvertTo(df, hn::Sub(dot[t][v], dot[t][V])), x_scale);
            acc[t][v] = hn::MulAdd(scale[v], product, acc[t][v]);
          } else {
            const VF product = hn::Mul(hn::ConvertTo(df, dot[t][v]), x_scale);
            acc[t][v] = hn::MulAdd(scale[v], product, hn::MulAdd(minimum[v], x_sum, acc[t][v]));
          }
        }
      }
    }
    store_tile<T, V>(args, first, token, acc);
  }
};

}  // namespace lethe::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
