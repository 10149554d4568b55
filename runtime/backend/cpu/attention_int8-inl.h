// Attention's two products over int8 pools, in integers.
//
// What multiplies the stored bytes, queries and the weights of a span (with the values' scales in them), become 14-bit
// integers with one scale a row, as an upper and a lower half of 7 bits: hardly a loss, where 8 bits would round the
// many small weights beside one large one to nothing; and 7-bit factors suit every instruction set's products of bytes.
#if defined(LETHE_BACKEND_CPU_ATTENTION_INT8_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LETHE_BACKEND_CPU_ATTENTION_INT8_INL_H_
#undef LETHE_BACKEND_CPU_ATTENTION_INT8_INL_H_
#else
#define LETHE_BACKEND_CPU_ATTENTION_INT8_INL_H_
#endif

#include <span>

#include "runtime/backend/cpu/dot-inl.h"
#include "runtime/backend/cpu/kernels.h"
#include "runtime/base/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lethe::cpu::HWY_NAMESPACE {

class Int8Blocks {
 public:
  // Blocks between two steps of the online softmax: many share the roundings of one.
  static constexpr size_t kSpanBlocks = kSpanSlots / kBlockSlots;
  // Which leaves the order of the bytes, so that memory does not see it coming.
  static constexpr bool kFetchAhead = true;

  // scratch [int8_scratch_floats(rows, head_dim)]
  Int8Blocks(const KvLayout& layout, size_t rows, float* scratch)
      : layout_(layout), rows_(rows), width_((layout.head_dim + kQuad - 1) / kQuad * kQuad) {
    query_scales_ = scratch;
    query_offsets_ = reinterpret_cast<int32_t*>(query_scales_ + rows);
    weight_scales_ = reinterpret_cast<float*>(query_offsets_ + rows);
    queries_ = reinterpret_cast<int8_t*>(weight_scales_ + rows);
    weights_ = reinterpret_cast<uint8_t*>(queries_ + rows * 2 * width_);
  }

  // Quantises the queries that score() is to use: [rows][head_dim].
  void set_queries(const float* queries) {
    const hn::Rebind<int8_t, DF> d8;
    const size_t n = layout_.head_dim;
    for (size_t row = 0; row < rows_; ++row, queries += n) {
      VF largest = hn::Zero(df), poison = hn::Zero(df);
      for_lanes(n, [&](size_t i, size_t count) HWY_ATTR {
        const VF x = load_lanes(queries + i, count);
        largest = hn::Max(largest, hn::Abs(x));
        poison = hn::MulAdd(x, hn::Zero(df), poison);  // NaN where x is not finite: integers would hide it
      });
      const float most = hn::ReduceMax(df, largest);
      const VF inverse = hn::Set(df, most > 0 ? kMost / most : 0.0f);
      int8_t* upper = queries_ + row * 2 * width_;
      int8_t* lower = upper + width_;
      for (size_t i = n; i < width_; ++i) upper[i] = lower[i] = 0;
      VI sum = hn::Zero(di);
      for_lanes(n, [&](size_t i, size_t count) HWY_ATTR {
        const VF ratio = hn::Mul(load_lanes(queries + i, count), inverse);
        const VI quant = hn::NearestInt(hn::Min(hn::Max(ratio, hn::Set(df, -kMost)), hn::Set(df, kMost)));
        hn::StoreN(hn::DemoteTo(d8, hn::ShiftRight<7>(quant)), d8, upper + i, count);
        hn::StoreN(hn::DemoteTo(d8, hn::And(quant, hn::Set(di, 127))), d8, lower + i, count);
        sum = hn::Add(sum, count == kLanes ? quant : hn::IfThenElseZero(hn::FirstN(di, count), quant));
      });
      query_scales_[row] = most / kMost + hn::ReduceSum(df, poison);
      query_offsets_[row] = (kKeyOffset - kDotOffset) * hn::ReduceSum(di, sum);
    }
  }

  // scores [rows][kSpanSlots], from the block's first slot on
  void score(const uint8_t* block, float* scores) const {
    size_t row = 0;
    for (; row + kRows <= rows_; row += kRows) score_rows<kRows>(block, row, scores);
    score_rest<kRows - 1>(block, row, scores);
  }

  // acc = factor * acc + weights values, over the first `slots` slots of consecutive blocks. Weights behind them, up to
  // the end of their block, are zero.
  //   weights [rows][kSpanSlots], factors [rows], acc [rows][head_dim]
  void add_values(std::span<const uint8_t* const> blocks, size_t /*slots*/, const float* weights, const float* factors,
                  float* acc) const {
    for (size_t row = 0; row < rows_; ++row) quantise_weights(blocks, row, weights + row * kSpanSlots);
    size_t row = 0;
    for (; row + kRows <= rows_; row += kRows) add_rows<kRows>(blocks, row, factors, acc);
    add_rest<kRows - 1>(blocks, row, factors, acc);
  }

 private:
  // Of a tile, by the number of vector registers: four sums a row.
  static constexpr int kRows = HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64 ? 4 : 2;
  static constexpr size_t kVectors = 2;
  static_assert(kBlockSlots % (kVectors * kLanes) == 0);

  template <int R>
  HWY_INLINE void score_rest(const uint8_t* block, size_t row, float* scores) const {
    if constexpr (R > 0) {
      if (rows_ - row == R) return score_rows<R>(block, row, scores);
      score_rest<R - 1>(block, row, scores);
    }
  }

  template <int R>
  HWY_NOINLINE void score_rows(const uint8_t* block, size_t row, float* scores) const {
    const auto* scale = reinterpret_cast<const float*>(block + layout_.key_scale_offset);
    for (size_t slot = 0; slot < kBlockSlots; slot += kVectors * kLanes) {
      const uint8_t* HWY_RESTRICT keys = block + layout_.keys_offset + slot * kQuad;
      const int8_t* HWY_RESTRICT queries = queries_ + row * 2 * width_;
      VI upper[R][kVectors], lower[R][kVectors];
      HWY_UNROLL(4)
      for (int r = 0; r < R; ++r) {
        for (size_t v = 0; v < kVectors; ++v) upper[r][v] = lower[r][v] = hn::Zero(di);
      }
      for (size_t d = 0; d < width_; d += kQuad, keys += kBlockSlots * kQuad) {
        VU8 line[kVectors];
        for (size_t v = 0; v < kVectors; ++v) line[v] = dot_factor(hn::LoadU(du8, keys + v * kLanes * kQuad));
        HWY_UNROLL(4)
        for (int r = 0; r < R; ++r) {
          const int8_t* at = queries + static_cast<size_t>(r) * 2 * width_ + d;
          const VI8 high = broadcast4(at), low = broadcast4(at + width_);
          for (size_t v = 0; v < kVectors; ++v) {
            upper[r][v] = add_dot4(line[v], high, upper[r][v]);
            lower[r][v] = add_dot4(line[v], low, lower[r][v]);
          }
        }
      }
      for (size_t v = 0; v < kVectors; ++v) {
        const VF key_scale = hn::LoadU(df, scale + slot + v * kLanes);
        HWY_UNROLL(4)
        for (int r = 0; r < R; ++r) {
          const size_t at = row + static_cast<size_t>(r);
          const VI dot = hn::Add(hn::ShiftLeft<7>(upper[r][v]), lower[r][v]);
          const VF whole = hn::ConvertTo(df, hn::Sub(dot, hn::Set(di, query_offsets_[at])));
          const VF score = hn::Mul(whole, hn::Mul(key_scale, hn::Set(df, query_scales_[at])));
          hn::StoreU(score, df, scores + at * kSpanSlots + slot + v * kLanes);
        }
      }
    }
  }

  void quantise_weights(std::span<const uint8_t* const> blocks, size_t row, const float* weights) const {
    const hn::Rebind<uint8_t, DF> d8;
    float scaled[kSpanSlots];
    VF top = hn::Zero(df), poison = hn::Zero(df);
    for (size_t b = 0; b < blocks.size(); ++b) {
      const auto* scale = reinterpret_cast<const float*>(blocks[b] + layout_.value_scale_offset);
      for (size_t i = 0; i < kBlockSlots; i += kLanes) {
        const VF weight = hn::LoadU(df, weights + b * kBlockSlots + i);
        // What was never stored has any scale, also NaN.
        const VF product = hn::IfThenElseZero(hn::Gt(weight, hn::Zero(df)), hn::Mul(weight, hn::LoadU(df, scale + i)));
        hn::StoreU(product, df, scaled + b * kBlockSlots + i);
        top = hn::Max(top, product);
        poison = hn::MulAdd(product, hn::Zero(df), poison);  // as of queries
      }
    }
    const float most = hn::ReduceMax(df, top);
    weight_scales_[row] = most / kMost + hn::ReduceSum(df, poison);
    const VF inverse = hn::Set(df, most > 0 ? kMost / most : 0.0f);
    uint8_t* upper = weights_ + row * 2 * kSpanSlots;
    uint8_t* lower = upper + kSpanSlots;
    for (size_t i = 0; i < blocks.size() * kBlockSlots; i += kLanes) {
      const VI quant = hn::NearestInt(hn::Min(hn::Mul(hn::LoadU(df, scaled + i), inverse), hn::Set(df, kMost)));
      hn::StoreU(hn::DemoteTo(d8, hn::ShiftRight<7>(quant)), d8, upper + i);
      hn::StoreU(hn::DemoteTo(d8, hn::And(quant, hn::Set(di, 127))), d8, lower + i);
    }
  }

  template <int R>
  HWY_INLINE void add_rest(std::span<const uint8_t* const> blocks, size_t row, const float* factors, float* acc) const {
    if constexpr (R > 0) {
      if (rows_ - row == R) return add_rows<R>(blocks, row, factors, acc);
      add_rest<R - 1>(blocks, row, factors, acc);
    }
  }

  template <int R>
  HWY_NOINLINE void add_rows(std::span<const uint8_t* const> blocks, size_t row, const float* factors,
                             float* acc) const {
    const size_t n = layout_.head_dim;
    size_t col = 0;
    for (; col + kVectors * kLanes <= n; col += kVectors * kLanes)
      add_tile<R, kVectors>(blocks, row, col, factors, acc);
    for (; col < n; col += kLanes) add_tile<R, 1>(blocks, row, col, factors, acc);
  }

  // The last vector of columns may reach beyond the values: into the scales and positions behind them, for lanes that
  // are not stored.
  template <int R, size_t V>
  HWY_INLINE void add_tile(std::span<const uint8_t* const> blocks, size_t row, size_t col, const float* factors,
                           float* acc) const {
    const size_t n = layout_.head_dim;
    VI upper[R][V], lower[R][V];
    HWY_UNROLL(4)
    for (int r = 0; r < R; ++r) {
      for (size_t v = 0; v < V; ++v) upper[r][v] = lower[r][v] = hn::Zero(di);
    }
    const uint8_t* HWY_RESTRICT weights = weights_ + row * 2 * kSpanSlots;
    for (const uint8_t* block : blocks) {
      const auto* HWY_RESTRICT values = reinterpret_cast<const int8_t*>(block + layout_.values_offset) + col * kQuad;
      for (size_t slot = 0; slot < kBlockSlots; slot += kQuad, values += n * kQuad) {
        VI8 line[V];
        for (size_t v = 0; v < V; ++v) line[v] = hn::LoadU(di8, values + v * kLanes * kQuad);
        HWY_UNROLL(4)
        for (int r = 0; r < R; ++r) {
          const uint8_t* at = weights + static_cast<size_t>(r) * 2 * kSpanSlots + slot;
          const VU8 high = hn::BitCast(du8, broadcast4(at)), low = hn::BitCast(du8, broadcast4(at + kSpanSlots));
          for (size_t v = 0; v < V; ++v) {
            upper[r][v] = add_small_dot4(high, line[v], upper[r][v]);
            lower[r][v] = add_small_dot4(low, line[v], lower[r][v]);
          }
        }
      }
      weights += kBlockSlots;
    }
    for (size_t v = 0; v < V; ++v) {
      const size_t at = col + v * kLanes, count = HWY_MIN(kLanes, n - at);
      HWY_UNROLL(4)
      for (int r = 0; r < R; ++r) {
        const size_t index = row + static_cast<size_t>(r);
        const VF sum = hn::ConvertTo(df, hn::Add(hn::ShiftLeft<7>(upper[r][v]), lower[r][v]));
        const VF before = hn::Mul(load_lanes(acc + index * n + at, count), hn::Set(df, factors[index]));
        store_lanes(hn::MulAdd(sum, hn::Set(df, weight_scales_[index]), before), acc + index * n + at, count);
      }
    }
  }

  static constexpr float kMost = 16383;  // of 14 bits

  const KvLayout& layout_;
  const size_t rows_;
  const size_t width_;      // head_dim in whole quads
  float* query_scales_;     // [rows]
  int32_t* query_offsets_;  // [rows]
  float* weight_scales_;    // [rows]
  int8_t* queries_;         // [rows][2][width]
  uint8_t* weights_;        // [rows][2][kSpanSlots]
};

}  // namespace lethe::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
