// Attention's two products in floats: for pools of halves, and for keys that had to be rotated.
//
// Both are the same small one, `multiply_rows`: lanes run over the 32 slots of a block for the scores (keys are stored
// transposed) and over head_dim for the weighted values; a tile of (query, head) rows shares every load of a key or a
// value.
#if defined(LETHE_BACKEND_CPU_ATTENTION_FLOAT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LETHE_BACKEND_CPU_ATTENTION_FLOAT_INL_H_
#undef LETHE_BACKEND_CPU_ATTENTION_FLOAT_INL_H_
#else
#define LETHE_BACKEND_CPU_ATTENTION_FLOAT_INL_H_
#endif

#include <algorithm>
#include <span>

#include "runtime/backend/cpu/kernels.h"
#include "runtime/base/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lethe::cpu::HWY_NAMESPACE {

// Row-major operands of multiply_rows: out = (factor * out) + a b. Strides in elements.
template <class B>
struct Product {
  const float* a;  // [rows][n]
  size_t a_stride;
  const B* b;  // [n][cols], float or Half
  size_t b_stride;
  size_t rows, n, cols;
  const float* factors;  // [rows], or null to overwrite out
  float* out;            // [rows][cols]
  size_t out_stride;
};

// R rows, V vectors of columns from `col` on; `count` < kLanes only with V == 1. One chain of sums per output.
template <int R, int V, class B>
HWY_INLINE void multiply_tile(const Product<B>& p, size_t row, size_t col, size_t count) {
  float* out = p.out + row * p.out_stride + col;
  VF acc[R][V];
  HWY_UNROLL(8)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(2)
    for (int v = 0; v < V; ++v) {
      const size_t at = static_cast<size_t>(r) * p.out_stride + static_cast<size_t>(v) * kLanes;
      acc[r][v] = p.factors == nullptr
                      ? hn::Zero(df)
                      : hn::Mul(load_lanes(out + at, count), hn::Set(df, p.factors[row + static_cast<size_t>(r)]));
    }
  }
  const float* HWY_RESTRICT a = p.a + row * p.a_stride;
  const B* HWY_RESTRICT b = p.b + col;
  for (size_t i = 0; i < p.n; ++i) {
    VF line[V];
    HWY_UNROLL(2)
    for (int v = 0; v < V; ++v) {
      const B* at = b + i * p.b_stride + static_cast<size_t>(v) * kLanes;
      line[v] = count == kLanes ? load_float(at) : load_float_n(at, count);
    }
    HWY_UNROLL(8)
    for (int r = 0; r < R; ++r) {
      const VF left = hn::Set(df, a[static_cast<size_t>(r) * p.a_stride + i]);
      HWY_UNROLL(2)
      for (int v = 0; v < V; ++v) acc[r][v] = hn::MulAdd(left, line[v], acc[r][v]);
    }
  }
  HWY_UNROLL(8)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(2)
    for (int v = 0; v < V; ++v) {
      const size_t at = static_cast<size_t>(r) * p.out_stride + static_cast<size_t>(v) * kLanes;
      store_lanes(acc[r][v], out + at, count);
    }
  }
}

template <int R, class B>
HWY_NOINLINE void multiply_columns(const Product<B>& p, size_t row) {
  size_t col = 0;
  for (; col + 2 * kLanes <= p.cols; col += 2 * kLanes) multiply_tile<R, 2>(p, row, col, kLanes);
  for (; col + kLanes <= p.cols; col += kLanes) multiply_tile<R, 1>(p, row, col, kLanes);
  if (col < p.cols) multiply_tile<R, 1>(p, row, col, p.cols - col);
}

template <int R, class B>
HWY_INLINE void multiply_rest(const Product<B>& p, size_t row) {
  if constexpr (R > 0) {
    if (p.rows - row == R) return multiply_columns<R>(p, row);
    multiply_rest<R - 1>(p, row);
  }
}

template <class B>
void multiply_rows(const Product<B>& p) {
  constexpr int kRows = HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64 ? 8 : 4;  // by the number of vector registers
  size_t row = 0;
  for (; row + kRows <= p.rows; row += kRows) multiply_columns<kRows>(p, row);
  multiply_rest<kRows - 1>(p, row);
}

// Scores of rotated keys [head_dim][32] of one block.
//   queries [rows][head_dim], scores [rows][kSpanSlots] from the block's first slot on
HWY_INLINE void score_floats(const float* queries, const float* keys, size_t rows, size_t head_dim, float* scores) {
  multiply_rows<float>(
      {queries, head_dim, keys, kBlockSlots, rows, head_dim, kBlockSlots, nullptr, scores, kSpanSlots});
}

// Blocks of halves.
class HalfBlocks {
 public:
  // Blocks between two steps of the online softmax: keys and values of one are read in the order of their bytes.
  static constexpr size_t kSpanBlocks = 1;
  static constexpr bool kFetchAhead = false;

  HalfBlocks(const KvLayout& layout, size_t rows, float* /*scratch*/) : layout_(layout), rows_(rows) {}

  // The queries that score() is to use: [rows][head_dim].
  void set_queries(const float* queries) { queries_ = queries; }

  // scores [rows][kSpanSlots], from the block's first slot on
  void score(const uint8_t* block, float* scores) const {
    const auto* keys = reinterpret_cast<const Half*>(block + layout_.keys_offset);
    const size_t n = layout_.head_dim;
    multiply_rows<Half>({queries_, n, keys, kBlockSlots, rows_, n, kBlockSlots, nullptr, scores, kSpanSlots});
  }

  // acc = factor * acc + weights values, over the first `slots` slots of a block.
  //   weights [rows][kSpanSlots], factors [rows], acc [rows][head_dim]
  void add_values(std::span<const uint8_t* const> block, size_t slots, const float* weights, const float* factors,
                  float* acc) const {
    const auto* values = reinterpret_cast<const Half*>(block[0] + layout_.values_offset);
    const size_t n = layout_.head_dim;
    multiply_rows<Half>({weights, kSpanSlots, values, n, rows_, slots, n, factors, acc, n});
  }

 private:
  const KvLayout& layout_;
  const size_t rows_;
  const float* queries_ = nullptr;
};

}  // namespace lethe::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
