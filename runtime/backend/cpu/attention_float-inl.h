// Attention's two products in floats: for pools of halves, and for keys that had to be rotated.
//
// Both are multiply_rows: lanes run over the 32 slots of a block for the scores (keys are stored transposed) and over
// head_dim for the weighted values; a tile of (query, head) rows shares every load of a key or a value.
#if defined(LETHE_BACKEND_CPU_ATTENTION_FLOAT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LETHE_BACKEND_CPU_ATTENTION_FLOAT_INL_H_
#undef LETHE_BACKEND_CPU_ATTENTION_FLOAT_INL_H_
#else
#define LETHE_BACKEND_CPU_ATTENTION_FLOAT_INL_H_
#endif

#include <algorithm>
#include <span>

#include "runtime/backend/cpu/kernels.h"
#include "runtime/backend/cpu/multiply-inl.h"
#include "runtime/base/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lethe::cpu::HWY_NAMESPACE {

// Scores of rotated keys [head_dim][32] of one block.
//   queries [rows][head_dim], scores [rows][kSpanSlots] from the block's first slot on
HWY_INLINE void score_floats(const float* queries, const float* keys, size_t rows, size_t head_dim, float* scores) {
  multiply_rows<float>({.a = queries,
                        .a_stride = head_dim,
                        .b = keys,
                        .b_stride = kBlockSlots,
                        .rows = rows,
                        .n = head_dim,
                        .cols = kBlockSlots,
                        .out = scores,
                        .out_stride = kSpanSlots});
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
    multiply_rows<Half>({.a = queries_,
                         .a_stride = n,
                         .b = keys,
                         .b_stride = kBlockSlots,
                         .rows = rows_,
                         .n = n,
                         .cols = kBlockSlots,
                         .out = scores,
                         .out_stride = kSpanSlots});
  }

  // acc = factor * acc + weights values, over the first `slots` slots of a block.
  //   weights [rows][kSpanSlots], factors [rows], acc [rows][head_dim]
  void add_values(std::span<const uint8_t* const> block, size_t slots, const float* weights, const float* factors,
                  float* acc) const {
    const auto* values = reinterpret_cast<const Half*>(block[0] + layout_.values_offset);
    const size_t n = layout_.head_dim;
    multiply_rows<Half>({.a = weights,
                         .a_stride = kSpanSlots,
                         .b = values,
                         .b_stride = n,
                         .rows = rows_,
                         .n = slots,
                         .cols = n,
                         .factors = factors,
                         .out = acc,
                         .out_stride = n});
  }
  void finish(float* /*acc*/) const {}

 private:
  const KvLayout& layout_;
  const size_t rows_;
  const float* queries_ = nullptr;
};

}  // namespace lethe::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
