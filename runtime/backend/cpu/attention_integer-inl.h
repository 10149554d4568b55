// Attention's two products over pools of 8-bit and 4-bit integers, in integers.
//
// What multiplies the stored numbers, queries and the weights of a span (with the values' scales in them), become
// 14-bit integers with one scale a row, as an upper and a lower half of 7 bits: hardly a loss, where 8 bits would round
// the many small weights beside one large one to nothing; and 7-bit factors suit every instruction set's products of
// bytes.
//
// Numbers of 4 bits are multiplied as their codes, 0 to 15, two vectors for every one loaded; what the codes differ by
// from the numbers (2 * code - 15) is one product for a whole row. Keys of 4 bits are transformed (cache/hadamard.h),
// so queries are too; of such values the weighted sum comes out transformed.
#if defined(LETHE_BACKEND_CPU_ATTENTION_INTEGER_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LETHE_BACKEND_CPU_ATTENTION_INTEGER_INL_H_
#undef LETHE_BACKEND_CPU_ATTENTION_INTEGER_INL_H_
#else
#define LETHE_BACKEND_CPU_ATTENTION_INTEGER_INL_H_
#endif

#include <span>

#include "runtime/backend/cpu/dot-inl.h"
#include "runtime/backend/cpu/hadamard-inl.h"
#include "runtime/backend/cpu/kernels.h"
#include "runtime/base/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lethe::cpu::HWY_NAMESPACE {

inline constexpr float kMost14 = 16383;

// The bytes' part `kPart` of 8 / kBits.
template <int kBits, size_t kPart>
HWY_INLINE VU8 unpack(VU8 bytes) {
  if constexpr (kBits == 8) return bytes;
  if constexpr (kPart == 0) return hn::And(bytes, hn::Set(du8, 15));
  return hn::ShiftRight<4>(bytes);
}

// Of a tile of rows, by the number of vector registers: four sums a row.
inline constexpr int kIntegerRows = HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64 ? 4 : 2;
inline constexpr size_t kIntegerVectors = 2;
static_assert(kBlockSlots % (kIntegerVectors * kLanes) == 0);

template <int kBits>
class IntegerKeys {
 public:
  IntegerKeys(const KvLayout& layout, size_t rows)
      : layout_(layout), rows_(rows), width_(key_rows(layout) * kRowDims) {}

  // Takes its part of the scratch and gives the rest.
  float* place(float* scratch) {
    scales_ = scratch;
    offsets_ = reinterpret_cast<int32_t*>(scales_ + rows_);
    transformed_ = reinterpret_cast<float*>(offsets_ + rows_);
    queries_ = reinterpret_cast<int8_t*>(transformed_ + (kBits == 4 ? layout_.head_dim : 0));
    return reinterpret_cast<float*>(queries_ + rows_ * 2 * width_);
  }

  // Quantises the queries that score() is to use: [rows][head_dim].
  void set_queries(const float* queries) {
    const hn::Rebind<int8_t, DF> d8;
    const size_t n = layout_.head_dim;
    for (size_t row = 0; row < rows_; ++row, queries += n) {
      const float* query = queries;
      if constexpr (kBits == 4) {
        hadamard_row(queries, n, transformed_);
        query = transformed_;
      }
      VF largest = hn::Zero(df), poison = hn::Zero(df);
      for_lanes(n, [&](size_t i, size_t count) HWY_ATTR {
        const VF x = load_lanes(query + i, count);
        largest = hn::Max(largest, hn::Abs(x));
        poison = hn::MulAdd(x, hn::Zero(df), poison);  // NaN where x is not finite: integers would hide it
      });
      const float most = hn::ReduceMax(df, largest);
      const VF inverse = hn::Set(df, most > 0 ? kMost14 / most : 0.0f);
      int8_t* upper = queries_ + row * 2 * width_;
      int8_t* lower = upper + width_;
      for (size_t i = n; i < width_; ++i) upper[i] = lower[i] = 0;
      VI sum = hn::Zero(di);
      for_lanes(n, [&](size_t i, size_t count) HWY_ATTR {
        const VF ratio = hn::Mul(load_lanes(query + i, count), inverse);
        const VI quant = hn::NearestInt(hn::Min(hn::Max(ratio, hn::Set(df, -kMost14)), hn::Set(df, kMost14)));
        hn::StoreN(hn::DemoteTo(d8, hn::ShiftRight<7>(quant)), d8, upper + i, count);
        hn::StoreN(hn::DemoteTo(d8, hn::And(quant, hn::Set(di, 127))), d8, lower + i, count);
        sum = hn::Add(sum, count == kLanes ? quant : hn::IfThenElseZero(hn::FirstN(di, count), quant));
      });
      scales_[row] = most / kMost14 + hn::ReduceSum(df, poison);
      offsets_[row] = (kBits == 8 ? kKeyOffset - kDotOffset : kOffset4) * hn::ReduceSum(di, sum);
    }
  }

  // scores [rows][kSpanSlots], from the block's first slot on
  void score(const uint8_t* block, float* scores) const {
    size_t row = 0;
    for (; row + kIntegerRows <= rows_; row += kIntegerRows) score_rows<kIntegerRows>(block, row, scores);
    score_rest<kIntegerRows - 1>(block, row, scores);
  }

 private:
  static constexpr size_t kRowDims = kQuad * (8 / kBits);

  template <int R>
  HWY_INLINE void score_rest(const uint8_t* block, size_t row, float* scores) const {
    if constexpr (R > 0) {
      if (rows_ - row == R) return score_rows<R>(block, row, scores);
      score_rest<R - 1>(block, row, scores);
    }
  }

  template <int R>
  struct Sums {
    VI upper[R][kIntegerVectors], lower[R][kIntegerVectors];

    HWY_INLINE Sums() {
      for (int r = 0; r < R; ++r) {
        for (size_t v = 0; v < kIntegerVectors; ++v) upper[r][v] = lower[r][v] = hn::Zero(di);
      }
    }
  };

  // Adds the products of four dimensions, `quads` of kIntegerVectors * kLanes slots.
  template <int R>
  HWY_INLINE void add_quads(const VU8* quads, const int8_t* HWY_RESTRICT queries, Sums<R>& sums) const {
    HWY_UNROLL(4)
    for (int r = 0; r < R; ++r) {
      const int8_t* at = queries + static_cast<size_t>(r) * 2 * width_;
      const VI8 high = broadcast4(at), low = broadcast4(at + width_);
      for (size_t v = 0; v < kIntegerVectors; ++v) {
        if constexpr (kBits == 8) {
          sums.upper[r][v] = add_dot4(quads[v], high, sums.upper[r][v]);
          sums.lower[r][v] = add_dot4(quads[v], low, sums.lower[r][v]);
        } else {
          sums.upper[r][v] = add_small_dot4(quads[v], high, sums.upper[r][v]);
          sums.lower[r][v] = add_small_dot4(quads[v], low, sums.lower[r][v]);
        }
      }
    }
  }

  template <int R>
  HWY_NOINLINE void score_rows(const uint8_t* block, size_t row, float* scores) const {
    const auto* scale = reinterpret_cast<const float*>(block + layout_.key_scale_offset);
    for (size_t slot = 0; slot < kBlockSlots; slot += kIntegerVectors * kLanes) {
      const uint8_t* HWY_RESTRICT keys = block + layout_.keys_offset + slot * kQuad;
      const int8_t* HWY_RESTRICT queries = queries_ + row * 2 * width_;
      Sums<R> sums;
      for (size_t d = 0; d < width_; d += kRowDims, keys += kBlockSlots * kQuad) {
        VU8 bytes[kIntegerVectors], quads[kIntegerVectors];
        for (size_t v = 0; v < kIntegerVectors; ++v) {
          bytes[v] = hn::LoadU(du8, keys + v * kLanes * kQuad);
          quads[v] = kBits == 8 ? dot_factor(bytes[v]) : unpack<kBits, 0>(bytes[v]);
        }
        add_quads(quads, queries + d, sums);
        if constexpr (kBits == 4) {
          for (size_t v = 0; v < kIntegerVectors; ++v) quads[v] = unpack<kBits, 1>(bytes[v]);
          add_quads(quads, queries + d + kQuad, sums);
        }
      }
      for (size_t v = 0; v < kIntegerVectors; ++v) {
        const VF key_scale = hn::LoadU(df, scale + slot + v * kLanes);
        HWY_UNROLL(4)
        for (int r = 0; r < R; ++r) {
          const size_t at = row + static_cast<size_t>(r);
          constexpr int kDoubled = kBits == 8 ? 0 : 1;
          const VI dot =
              hn::Add(hn::ShiftLeft<7 + kDoubled>(sums.upper[r][v]), hn::ShiftLeft<kDoubled>(sums.lower[r][v]));
          const VF whole = hn::ConvertTo(df, hn::Sub(dot, hn::Set(di, offsets_[at])));
          const VF score = hn::Mul(whole, hn::Mul(key_scale, hn::Set(df, scales_[at])));
          hn::StoreU(score, df, scores + at * kSpanSlots + slot + v * kLanes);
        }
      }
    }
  }

  const KvLayout& layout_;
  const size_t rows_;
  const size_t width_;  // head_dim in whole rows of the section
  float* scales_;       // [rows]
  int32_t* offsets_;    // [rows]
  float* transformed_;  // [head_dim], of 4 bits
  int8_t* queries_;     // [rows][2][width]
};

template <int kBits>
class IntegerValues {
 public:
  IntegerValues(const KvLayout& layout, size_t rows, float* scratch) : layout_(layout), rows_(rows) {
    scales_ = scratch;
    offsets_ = reinterpret_cast<int32_t*>(scales_ + rows);
    weights_ = reinterpret_cast<uint8_t*>(offsets_ + rows);
  }

  // acc = factor * acc + weights values, over consecutive blocks. Weights behind the last slot, up to the end of its
  // block, are zero.
  //   weights [rows][kSpanSlots], factors [rows], acc [rows][head_dim]
  void add(std::span<const uint8_t* const> blocks, const float* weights, const float* factors, float* acc) const {
    for (size_t row = 0; row < rows_; ++row) quantise_weights(blocks, row, weights + row * kSpanSlots);
    size_t row = 0;
    for (; row + kIntegerRows <= rows_; row += kIntegerRows) add_rows<kIntegerRows>(blocks, row, factors, acc);
    add_rest<kIntegerRows - 1>(blocks, row, factors, acc);
  }

 private:
  static constexpr size_t kParts = 8 / kBits;  // of a byte, each of its own columns

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
    scales_[row] = most / kMost14 + hn::ReduceSum(df, poison);
    const VF inverse = hn::Set(df, most > 0 ? kMost14 / most : 0.0f);
    uint8_t* upper = weights_ + row * 2 * kSpanSlots;
    uint8_t* lower = upper + kSpanSlots;
    VI sum = hn::Zero(di);
    for (size_t i = 0; i < blocks.size() * kBlockSlots; i += kLanes) {
      const VI quant = hn::NearestInt(hn::Min(hn::Mul(hn::LoadU(df, scaled + i), inverse), hn::Set(df, kMost14)));
      hn::StoreU(hn::DemoteTo(d8, hn::ShiftRight<7>(quant)), d8, upper + i);
      hn::StoreU(hn::DemoteTo(d8, hn::And(quant, hn::Set(di, 127))), d8, lower + i);
      sum = hn::Add(sum, quant);
    }
    offsets_[row] = kBits == 4 ? kOffset4 * hn::ReduceSum(di, sum) : 0;
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
    constexpr size_t kLoads = kIntegerVectors / kParts;
    const size_t columns = value_columns(layout_);
    size_t col = 0;
    for (; col + kLoads * kLanes <= columns; col += kLoads * kLanes)
      add_tile<R, kLoads>(blocks, row, col, factors, acc);
    for (; col < columns; col += kLanes) add_tile<R, 1>(blocks, row, col, factors, acc);
  }

  // The last vector of columns may reach beyond the values: into the scales and positions behind them, for lanes that
  // are not stored.
  template <int R, size_t L>
  HWY_INLINE void add_tile(std::span<const uint8_t* const> blocks, size_t row, size_t col, const float* factors,
                           float* acc) const {
    constexpr size_t V = L * kParts;  // vector v of sums: of load v / kParts the part v % kParts
    const size_t n = layout_.head_dim, columns = value_columns(layout_);
    VI upper[R][V], lower[R][V];
    HWY_UNROLL(4)
    for (int r = 0; r < R; ++r) {
      for (size_t v = 0; v < V; ++v) upper[r][v] = lower[r][v] = hn::Zero(di);
    }
    const uint8_t* HWY_RESTRICT weights = weights_ + row * 2 * kSpanSlots;
    for (const uint8_t* block : blocks) {
      const uint8_t* HWY_RESTRICT values = block + layout_.values_offset + col * kQuad;
      for (size_t slot = 0; slot < kBlockSlots; slot += kQuad, values += columns * kQuad) {
        VI8 line[V];
        for (size_t load = 0; load < L; ++load) {
          const VU8 bytes = hn::LoadU(du8, values + load * kLanes * kQuad);
          line[load * kParts] = hn::BitCast(di8, unpack<kBits, 0>(bytes));
          if constexpr (kParts == 2) line[load * kParts + 1] = hn::BitCast(di8, unpack<kBits, 1>(bytes));
        }
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
      const size_t part = v % kParts;
      const size_t at = part * columns + col + v / kParts * kLanes;
      const size_t count = HWY_MIN(kLanes, (part == 0 ? columns : n) - at);
      HWY_UNROLL(4)
      for (int r = 0; r < R; ++r) {
        const size_t index = row + static_cast<size_t>(r);
        VI dot = hn::Add(hn::ShiftLeft<7>(upper[r][v]), lower[r][v]);
        if constexpr (kBits == 4) dot = hn::Sub(hn::Add(dot, dot), hn::Set(di, offsets_[index]));
        const VF sum = hn::ConvertTo(df, dot);
        const VF before = hn::Mul(load_lanes(acc + index * n + at, count), hn::Set(df, factors[index]));
        store_lanes(hn::MulAdd(sum, hn::Set(df, scales_[index]), before), acc + index * n + at, count);
      }
    }
  }

  const KvLayout& layout_;
  const size_t rows_;
  float* scales_;     // [rows]
  int32_t* offsets_;  // [rows]
  uint8_t* weights_;  // [rows][2][kSpanSlots]
};

// Blocks of integers: as HalfBlocks.
template <int kKeyBits, int kValueBits>
class IntegerBlocks {
 public:
  // Blocks between two steps of the online softmax: many share the roundings of one.
  static constexpr size_t kSpanBlocks = kSpanSlots / kBlockSlots;
  // Which leaves the order of the bytes, so that memory does not see it coming.
  static constexpr bool kFetchAhead = true;

  // scratch [integer_scratch_floats(rows, head_dim)]
  IntegerBlocks(const KvLayout& layout, size_t rows, float* scratch)
      : keys_(layout, rows), values_(layout, rows, keys_.place(scratch)), layout_(layout), rows_(rows) {}

  void set_queries(const float* queries) { keys_.set_queries(queries); }
  void score(const uint8_t* block, float* scores) const { keys_.score(block, scores); }
  void add_values(std::span<const uint8_t* const> blocks, size_t /*slots*/, const float* weights, const float* factors,
                  float* acc) const {
    values_.add(blocks, weights, factors, acc);
  }
  // Once all values are in.
  void finish(float* acc) const {
    if constexpr (kValueBits == 4) {
      const size_t n = layout_.head_dim;
      for (size_t row = 0; row < rows_; ++row) hadamard_row(acc + row * n, n, acc + row * n);
    }
  }

 private:
  IntegerKeys<kKeyBits> keys_;
  IntegerValues<kValueBits> values_;
  const KvLayout& layout_;
  const size_t rows_;
};

}  // namespace lethe::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
