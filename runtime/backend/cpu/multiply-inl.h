// A small matrix product in floats: of attention, and of recurrent heads. Lanes run over columns, so there are no
// horizontal sums; a tile of rows shares every load of b.
#if defined(LETHE_BACKEND_CPU_MULTIPLY_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LETHE_BACKEND_CPU_MULTIPLY_INL_H_
#undef LETHE_BACKEND_CPU_MULTIPLY_INL_H_
#else
#define LETHE_BACKEND_CPU_MULTIPLY_INL_H_
#endif

#include "runtime/base/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lethe::cpu::HWY_NAMESPACE {

// Operands of multiply_rows: out = (factor * out) + a b. Strides and steps in elements.
template <class B>
struct Product {
  const float* a;  // [rows][n]: element (row, i) at row * a_stride + i * a_step
  size_t a_stride;
  size_t a_step = 1;
  const B* b;  // [n][cols], float or Half
  size_t b_stride;
  size_t rows, n, cols;
  const float* factors = nullptr;  // of row r at r * factor_step; null to overwrite out
  size_t factor_step = 1;
  float* out;  // [rows][cols]
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
                      : hn::Mul(load_lanes(out + at, count),
                                hn::Set(df, p.factors[(row + static_cast<size_t>(r)) * p.factor_step]));
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
      const VF left = hn::Set(df, a[static_cast<size_t>(r) * p.a_stride + i * p.a_step]);
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

}  // namespace lethe::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
