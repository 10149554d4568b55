// Linear layers with quantised weights and int8 activations: an exact integer dot product per scale, then floats. One
// token reads the weights as they are; several share weights that were unpacked once. Results have the same bits.
#if defined(LETHE_BACKEND_CPU_LINEAR_QUANTISED_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LETHE_BACKEND_CPU_LINEAR_QUANTISED_INL_H_
#undef LETHE_BACKEND_CPU_LINEAR_QUANTISED_INL_H_
#else
#define LETHE_BACKEND_CPU_LINEAR_QUANTISED_INL_H_
#endif

#include <type_traits>

#include "hwy/cache_control.h"
#include "runtime/backend/cpu/dot-inl.h"
#include "runtime/backend/cpu/linear-inl.h"
#include "runtime/base/simd/simd-inl.h"

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

// What a float operation needs of a unit: y += scale_w * (scale_x * dot) + minimum_w * sum_x, in this order everywhere.
HWY_INLINE VF add_unit(VI dot, VF scale, VF minimum, VF x_scale, VF x_sum, VF acc) {
  const VF product = hn::Mul(hn::ConvertTo(df, dot), x_scale);
  return hn::MulAdd(scale, product, hn::MulAdd(minimum, x_sum, acc));
}

// The activations of one token.
struct InputRow {
  const int8_t* quants;
  const float *scales, *sums, *half_sums;
};
HWY_INLINE InputRow input_row(const LinearArgs& args, size_t token) {
  const size_t groups = args.weight.cols / kGroup, at = token * groups;
  return {args.xq.quants + token * args.weight.cols, args.xq.scales + at, args.xq.sums + at, args.xq.half_sums + at};
}
// Of the inputs of a unit.
template <size_t kInputs>
HWY_INLINE VF unit_sum(const InputRow& x, size_t unit) {
  if constexpr (kInputs == kGroup) return hn::Set(df, x.sums[unit]);
  const float first = x.half_sums[unit / 2];
  return hn::Set(df, unit % 2 == 0 ? first : x.sums[unit / 2] - first);
}
template <size_t kInputs>
HWY_INLINE VF unit_scale(const InputRow& x, size_t unit) {
  return hn::Set(df, x.scales[unit * kInputs / kGroup]);
}

template <size_t kIndex>
using Index = std::integral_constant<size_t, kIndex>;

template <class Use>
HWY_INLINE void for_each_quad(const Use& use) {
  use(Index<0>());
  use(Index<1>());
  use(Index<2>());
  use(Index<3>());
}

template <WeightFormat kFormat>
struct Quantised {
  static constexpr int kHighBits = static_cast<int>(quant_bits(kFormat)) - 4;  // in a line of their own, below 8 bits
  static constexpr bool kNibbles = quant_bits(kFormat) < 8;
  static constexpr size_t kInputs = scale_inputs(kFormat);
  static constexpr size_t kLineInputs = kNibbles ? 8 : 4;
  static constexpr size_t kLowLines = kInputs / kLineInputs;

  // x86 without VNNI adds products of up to 6 bits in 16-bit lanes: 8 steps of at most 2 * 15 * 127 fit, 4 of
  // 2 * 31 * 127, 2 of 2 * 63 * 127. 0: all are added in 32 bits.
  static constexpr size_t kSteps16 = kNibbles && HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3_DL ? size_t{8} >> kHighBits : 0;

  // Scale and minimum of a unit for one vector of rows.
  static HWY_INLINE void load_params(const uint8_t* panel, size_t part, size_t unit, VF& scale, VF& minimum) {
    const auto* at = reinterpret_cast<const Half*>(panel + params_offset(kFormat, unit)) + part * kLanes;
    scale = load_float(at);
    if constexpr (has_minimum(kFormat)) {
      minimum = load_float(at + kPanelRows);
    } else {
      minimum = hn::Mul(scale, hn::Set(df, (kNibbles ? 0 : kDotOffset) - quant_offset(kFormat)));
    }
  }

  // Calls use(Index<inputs before it>(), factors) for every line of 4 inputs of a unit, as bytes in [16 rows][4].
  template <size_t kLine = 0, class Use>
  static HWY_INLINE void for_each_line(const uint8_t* low_lines, VU8 high_line, const Use& use) {
    if constexpr (kLine < kLowLines) {
      const VU8 both = hn::LoadU(du8, low_lines + kLine * kLineBytes);
      if constexpr (!kNibbles) {
        use(Index<kLine * kLineInputs>(), dot_factor(both));
      } else {
        const VU8 nibble = hn::Set(du8, 15);
        VU8 low = hn::And(both, nibble);
        VU8 high = hn::And(hn::BitCast(du8, hn::ShiftRight<4>(hn::BitCast(du16, both))), nibble);
        if constexpr (kHighBits > 0) {
          constexpr int kFrom = 2 * static_cast<int>(kLine) * kHighBits;
          low = with_high_bits<kFrom, kHighBits>(low, high_line);
          high = with_high_bits<kFrom + kHighBits, kHighBits>(high, high_line);
        }
        use(Index<kLine * kLineInputs>(), low);
        use(Index<kLine * kLineInputs + 4>(), high);
      }
      for_each_line<kLine + 1>(low_lines, high_line, use);
    }
  }
  static HWY_INLINE VU8 load_high_line(const uint8_t* low_lines) {
    if constexpr (kNibbles && kHighBits > 0) return hn::LoadU(du8, low_lines + kLowLines * kLineBytes);
    return hn::Zero(du8);
  }
};

// A dot product of bytes: a sum in 32 bits, and where products are added in 16 bits first, that one.
template <size_t kSteps16>
struct Dot {
  VI sum, sum16;

  HWY_INLINE Dot() : sum(hn::Zero(di)), sum16(hn::Zero(di)) {}
  template <class Input>  // what quad_of returns
  HWY_INLINE void add(size_t step, VU8 weight, Input input) {
    if constexpr (kSteps16 != 0) {
      sum16 = hn::BitCast(di, hn::Add(hn::BitCast(di16, sum16), hn::SatWidenMulPairwiseAdd(di16, weight, input)));
      if ((step + 1) % kSteps16 == 0) {
        sum = hn::Add(sum, hn::WidenMulPairwiseAdd(di, hn::BitCast(di16, sum16), hn::Set(di16, 1)));
        sum16 = hn::Zero(di);
      }
    } else {
      sum = add_dot4(weight, input, sum);
    }
  }
};

// One token: bound by memory, one pass over the weights in the order of their bytes, a panel at a time.
template <WeightFormat kFormat>
HWY_INLINE void decode_panel(const LinearArgs& args, size_t panel_index) {
  using Q = Quantised<kFormat>;
  const uint8_t* panel = args.weight.data + panel_index * panel_bytes(kFormat, args.weight.cols);
  const InputRow x = input_row(args, 0);
  VF acc[1][kParts];
  for (size_t part = 0; part < kParts; ++part) acc[0][part] = hn::Zero(df);
  for (size_t unit = 0; unit < args.weight.cols / Q::kInputs; ++unit) {
    Quads inputs[Q::kInputs / 16];
    for (size_t i = 0; i < Q::kInputs / 16; ++i) inputs[i] = load_quads(x.quants + unit * Q::kInputs + i * 16);
    const VF x_scale = unit_scale<Q::kInputs>(x, unit), x_sum = unit_sum<Q::kInputs>(x, unit);
    HWY_UNROLL(4)
    for (size_t part = 0; part < kParts; ++part) {
      const uint8_t* lines = panel + quants_offset(kFormat, unit) + part * kLanes * 4;
      Dot<Q::kSteps16> dot;
      // The line of high bits comes first in use and last in memory; asked for first, it keeps the hardware from
      // reading ahead, which halves the speed of some formats.
      if constexpr (Q::kNibbles && Q::kHighBits > 0) hwy::Prefetch(lines);
      Q::for_each_line(lines, Q::load_high_line(lines), [&](auto input, VU8 weight) HWY_ATTR {
        dot.add(input / 4, weight, quad_of<input / 4 % 4>(inputs[input / 16]));
      });
      VF scale, minimum;
      Q::load_params(panel, part, unit, scale, minimum);
      acc[0][part] = add_unit(dot.sum, scale, minimum, x_scale, x_sum, acc[0][part]);
    }
  }
  store_tile<1, kParts>(args, panel_index * kParts, 0, acc);
}

// Several tokens: the weights of one or two panels are unpacked to bytes and floats, once for all tokens.
//   quants [cols/4][16 rows][4], params [units][2][16 rows]: scales, minimums
struct UnpackedPanel {
  uint8_t* quants;
  float* params;
};
HWY_INLINE UnpackedPanel unpacked_panel(const LinearArgs& args, size_t index, size_t units) {
  const size_t cols = args.weight.cols, bytes = kPanelRows * (cols + units * 2 * sizeof(float));
  uint8_t* base = args.scratch + index * bytes;
  return {base, reinterpret_cast<float*>(base + kPanelRows * cols)};
}

template <WeightFormat kFormat>
HWY_INLINE void unpack(const uint8_t* panel, size_t units, const UnpackedPanel& out) {
  using Q = Quantised<kFormat>;
  for (size_t unit = 0; unit < units; ++unit) {
    for (size_t part = 0; part < kParts; ++part) {
      const uint8_t* lines = panel + quants_offset(kFormat, unit) + part * kLanes * 4;
      uint8_t* to = out.quants + unit * Q::kInputs * kPanelRows + part * kLanes * 4;
      Q::for_each_line(lines, Q::load_high_line(lines),
                       [&](auto input, VU8 weight) HWY_ATTR { hn::StoreU(weight, du8, to + input * kPanelRows); });
      VF scale, minimum;
      Q::load_params(panel, part, unit, scale, minimum);
      hn::StoreU(scale, df, out.params + unit * 2 * kPanelRows + part * kLanes);
      hn::StoreU(minimum, df, out.params + (unit * 2 + 1) * kPanelRows + part * kLanes);
    }
  }
}

inline constexpr int kTileVectors = 2;
// Tokens of a tile, by the number of vector registers: two sums for every token and vector.
inline constexpr int kTileTokens = HWY_TARGET <= HWY_AVX3 || LETHE_ARM_DOT_PRODUCTS ? 6 : 3;
inline constexpr size_t kTilePanels = kTileVectors > kParts ? kTileVectors / kParts : 1;

// y of T tokens from `token` on, for V vectors of rows: of unpacked vector `from` on, which is vector `first` of y.
template <class Q, int T, int V>
HWY_INLINE void unpacked_tile(const LinearArgs& args, size_t first, size_t from, size_t token) {
  const size_t cols = args.weight.cols, units = cols / Q::kInputs;
  const uint8_t* HWY_RESTRICT weights[V];
  const float* HWY_RESTRICT params[V];
  for (size_t v = 0; v < V; ++v) {
    const UnpackedPanel panel = unpacked_panel(args, (from + v) / kParts, units);
    weights[v] = panel.quants + part_of(from + v) * kLanes * 4;
    params[v] = panel.params + part_of(from + v) * kLanes;
  }
  const InputRow rows = input_row(args, token);
  VF acc[T][V];
  HWY_UNROLL(8)
  for (int t = 0; t < T; ++t) {
    for (int v = 0; v < V; ++v) acc[t][v] = hn::Zero(df);
  }
  for (size_t unit = 0; unit < units; ++unit) {
    Dot<Q::kSteps16> dot[T][V];
    HWY_UNROLL(2)
    for (size_t i = 0; i < Q::kInputs; i += 16) {
      Quads inputs[T];
      HWY_UNROLL(8)
      for (int t = 0; t < T; ++t) {
        inputs[t] = load_quads(rows.quants + static_cast<size_t>(t) * cols + unit * Q::kInputs + i);
      }
      for_each_quad([&](auto quad) HWY_ATTR {
        const size_t step = i / 4 + quad;
        VU8 line[V];
        for (int v = 0; v < V; ++v) line[v] = hn::LoadU(du8, weights[v] + step * kLineBytes);
        HWY_UNROLL(8)
        for (int t = 0; t < T; ++t) {
          const auto input = quad_of<quad>(inputs[t]);
          for (int v = 0; v < V; ++v) dot[t][v].add(step, line[v], input);
        }
      });
    }
    VF scale[V], minimum[V];
    for (int v = 0; v < V; ++v) {
      scale[v] = hn::LoadU(df, params[v]);
      minimum[v] = hn::LoadU(df, params[v] + kPanelRows);
      weights[v] += Q::kInputs / 4 * kLineBytes;
      params[v] += 2 * kPanelRows;
    }
    HWY_UNROLL(8)
    for (int t = 0; t < T; ++t) {
      const size_t at = static_cast<size_t>(t) * (cols / kGroup);
      const InputRow x{nullptr, rows.scales + at, rows.sums + at, rows.half_sums + at};
      const VF x_scale = unit_scale<Q::kInputs>(x, unit), x_sum = unit_sum<Q::kInputs>(x, unit);
      for (int v = 0; v < V; ++v) {
        acc[t][v] = add_unit(dot[t][v].sum, scale[v], minimum[v], x_scale, x_sum, acc[t][v]);
      }
    }
  }
  store_tile<T, V>(args, first, token, acc);
}

// All token tiles of size T from `token` on, then smaller ones.
template <class Q, int T, int V>
HWY_INLINE void unpacked_tokens(const LinearArgs& args, size_t first, size_t from, size_t token) {
  for (; token + T <= args.tokens; token += T) unpacked_tile<Q, T, V>(args, first, from, token);
  if constexpr (T > 1) {
    if (token < args.tokens) unpacked_tokens<Q, T / 2, V>(args, first, from, token);
  }
}

// `count` unpacked vectors, which are the vectors of y from `first` on.
template <class Q>
HWY_NOINLINE void multiply_unpacked(const LinearArgs& args, size_t first, size_t count) {
  size_t from = 0;
  for (; from + kTileVectors <= count; from += kTileVectors) {
    unpacked_tokens<Q, kTileTokens, kTileVectors>(args, first + from, from, 0);
  }
  if (from < count) unpacked_tokens<Q, kTileTokens, 1>(args, first + from, from, 0);
}

// Formats that are the same once unpacked share the code.
template <size_t kSteps, size_t kUnit>
struct UnpackedFormat {
  static constexpr size_t kSteps16 = kSteps, kInputs = kUnit;
};

template <WeightFormat kFormat>
HWY_INLINE void linear_quantised(const LinearArgs& args, size_t panel_begin, size_t panel_end) {
  using Q = Quantised<kFormat>;
  if (args.tokens == 1) {
    for (size_t panel = panel_begin; panel < panel_end; ++panel) decode_panel<kFormat>(args, panel);
    return;
  }
  const size_t units = args.weight.cols / Q::kInputs;
  for (size_t panel = panel_begin; panel < panel_end; panel += kTilePanels) {
    const size_t count = HWY_MIN(kTilePanels, panel_end - panel);
    for (size_t i = 0; i < count; ++i) {
      const uint8_t* packed = args.weight.data + (panel + i) * panel_bytes(kFormat, args.weight.cols);
      unpack<kFormat>(packed, units, unpacked_panel(args, i, units));
    }
    multiply_unpacked<UnpackedFormat<Q::kSteps16, Q::kInputs>>(args, panel * kParts, count * kParts);
  }
}

}  // namespace lethe::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
