// Mamba-2 (SSD) and gated delta net, kRecurBlock tokens at a time: the state is only touched by small matrix products
// (Mamba-2: 2405.21060, section 6; gated delta net: 2406.06484, section 3, and 2412.06464, section 3.3). With
// D_ij = decay_{j+1} ... decay_i and E_i = decay_0 ... decay_i:
//
//   Mamba-2      U = x'
//   gated delta  (I + M) U = beta (V - E (K S)),  M = the part of beta (K K^T D) below the diagonal: from the top down
//   both         O = E (Q S) + (Q K^T D) U,       S = E_last S + K^T (D_last U)
//
// D is made of products, never of differences between sums of logarithms: nothing overflows, and nothing is lost where
// decays are strong.
#if defined(LETHE_BACKEND_CPU_RECUR_BLOCK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LETHE_BACKEND_CPU_RECUR_BLOCK_INL_H_
#undef LETHE_BACKEND_CPU_RECUR_BLOCK_INL_H_
#else
#define LETHE_BACKEND_CPU_RECUR_BLOCK_INL_H_
#endif

#include <algorithm>

#include "runtime/backend/cpu/multiply-inl.h"
#include "runtime/backend/cpu/recurrent-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lethe::cpu::HWY_NAMESPACE {

constexpr size_t kBlock = kRecurBlock;
constexpr size_t kStretch = kRecurStretch;
static_assert(kStretch % kBlock == 0 && kBlock % kLanes == 0);

// to = factor x, times the inverse length of a gated delta net's; zeros behind it up to `padded`.
HWY_INLINE void copy_row(const float* x, size_t n, size_t padded, bool normalise, float factor, float* to) {
  if (normalise) factor *= inverse_length(x, n);
  for_lanes(n, [&](size_t i, size_t count)
                   HWY_ATTR { store_lanes(hn::Mul(load_lanes(x + i, count), hn::Set(df, factor)), to + i, count); });
  std::fill(to + n, to + padded, 0.0f);
}

// to [cols][kBlock] = from [kBlock][cols] transposed; cols is a multiple of kLanes. A square of vectors is transposed
// by as many perfect shuffles as the number of lanes has bits.
void transpose(const float* from, size_t cols, float* to) {
  for (size_t row = 0; row < kBlock; row += kLanes) {
    for (size_t col = 0; col < cols; col += kLanes) {
      VF v[kLanes], w[kLanes];
      HWY_UNROLL(kLanes)
      for (size_t i = 0; i < kLanes; ++i) v[i] = hn::LoadU(df, from + (row + i) * cols + col);
      HWY_UNROLL(4)
      for (size_t bits = kLanes; bits > 1; bits /= 2) {
        HWY_UNROLL(kLanes)
        for (size_t i = 0; i < kLanes / 2; ++i) {
          w[2 * i] = hn::InterleaveWholeLower(df, v[i], v[i + kLanes / 2]);
          w[2 * i + 1] = hn::InterleaveWholeUpper(df, v[i], v[i + kLanes / 2]);
        }
        HWY_UNROLL(kLanes)
        for (size_t i = 0; i < kLanes; ++i) v[i] = w[i];
      }
      HWY_UNROLL(kLanes)
      for (size_t i = 0; i < kLanes; ++i) hn::StoreU(v[i], df, to + (col + i) * kBlock + row);
    }
  }
}

// The heads of one call, without kRead those of absorb.
template <bool kDelta, bool kRead>
class RecurBlocks {
 public:
  // scratch: recur_scratch_floats without the copy of a state
  RecurBlocks(const RecurArgs& args, float* scratch)
      : args_(args),
        key_dim_(args.view.heads.key_dim),
        value_dim_(args.view.heads.value_dim),
        padded_keys_(pad_lanes(key_dim_)),
        padded_values_(pad_lanes(value_dim_)) {
    const auto take = [&](size_t floats) {
      float* const from = scratch;
      scratch += floats;
      return from;
    };
    u_ = take(kBlock * padded_values_);
    transposed_ = take(padded_keys_ * kBlock);
    keys_ = take(kStretch * padded_keys_);
    key_products_ = take(kStretch * kBlock);
    queries_ = take(args.reads * kStretch * padded_keys_);
    query_products_ = take(args.reads * kStretch * kBlock);
  }

  // Tokens [token, + count) of all heads until the next call; at most kStretch.
  void set_stretch(size_t token, size_t count) {
    token_ = token;
    count_ = count;
    keys_of_ = nullptr;
  }

  // state [key_dim][stride]
  void run(size_t head, float* state, size_t stride) {
    prepare(head);
    for (size_t block = 0; block < count_; block += kBlock) {
      advance(head, block, std::min(kBlock, count_ - block), state, stride);
    }
  }

 private:
  // Keys and queries of a head, unless the head before it had the same.
  void prepare(size_t head) {
    const float* const key = key_row(args_, head);
    const bool new_keys = key != keys_of_;
    if (new_keys) copy_rows(args_.keys, key, 1.0f, keys_);
    keys_of_ = key;
    bool new_queries = false;
    if constexpr (kRead) {
      const float* const query = query_row(args_, head, 0);
      new_queries = new_keys || query != queries_of_ || args_.reads > 1;
      queries_of_ = query;
      for (size_t r = 0; r < args_.reads && new_queries; ++r) {
        copy_rows(args_.queries, query_row(args_, head, r), args_.scale, queries_ + r * kStretch * padded_keys_);
      }
    }
    if (!new_keys && !new_queries) return;
    for (size_t block = 0; block < count_; block += kBlock) {
      transpose(keys_ + block * padded_keys_, padded_keys_, transposed_);
      const size_t rows = std::min(kBlock, count_ - block);
      if (kDelta && new_keys) multiply_keys(keys_ + block * padded_keys_, rows, key_products_ + block * kBlock);
      for (size_t r = 0; r < args_.reads && new_queries; ++r) {
        const size_t at = r * kStretch + block;
        multiply_keys(queries_ + at * padded_keys_, rows, query_products_ + at * kBlock);
      }
    }
  }

  // out [rows][kBlock] = x K^T, x [rows][padded_keys], with the keys of one block.
  void multiply_keys(const float* x, size_t rows, float* out) const {
    multiply_rows<float>({.a = x,
                          .a_stride = padded_keys_,
                          .b = transposed_,
                          .b_stride = kBlock,
                          .rows = rows,
                          .n = key_dim_,
                          .cols = kBlock,
                          .out = out,
                          .out_stride = kBlock});
  }

  // Rows behind the last token are zeros, up to the end of its block.
  void copy_rows(const HeadRows& rows, const float* first, float factor, float* to) const {
    for (size_t t = 0; t < count_; ++t) {
      copy_row(first + (token_ + t) * rows.stride, key_dim_, padded_keys_, kDelta, factor, to + t * padded_keys_);
    }
    const size_t end = (count_ + kBlock - 1) / kBlock * kBlock;
    std::fill(to + count_ * padded_keys_, to + end * padded_keys_, 0.0f);
  }

  // Tokens [block, + count) of the stretch.
  void advance(size_t head, size_t block, size_t count, float* state, size_t stride) {
    Gates gates;
    make_gates(args_, head, token_ + block, count, kDelta, gates);
    // D [count][kBlock] and E [count].
    float decays[kBlock][kBlock] = {}, from_state[kBlock];
    for (size_t i = 0; i < count; ++i) {
      from_state[i] = (i == 0 ? 1.0f : from_state[i - 1]) * gates.decay[i];
      for (size_t j = 0; j < i; ++j) decays[i][j] = decays[i - 1][j] * gates.decay[i];
      decays[i][i] = 1.0f;
    }
    const float* const keys = keys_ + block * padded_keys_;
    if constexpr (kDelta) multiply_state(keys, count, state, stride, u_, padded_values_);
    for (size_t i = 0; i < count; ++i) {
      const float* const x = value_row(args_, head) + (token_ + block + i) * args_.values.stride;
      float* const u = u_ + i * padded_values_;
      const VF write = hn::Set(df, gates.write[i]), decay = hn::Set(df, from_state[i]);
      for_lanes(value_dim_, [&](size_t c, size_t lanes) HWY_ATTR {
        VF v = load_lanes(x + c, lanes);
        if constexpr (kDelta) v = hn::NegMulAdd(decay, load_lanes(u + c, lanes), v);
        store_lanes(hn::Mul(write, v), u + c, lanes);
      });
    }
    if constexpr (kDelta) solve(block, count, gates, decays);
    if constexpr (kRead) {
      for (size_t r = 0; r < args_.reads; ++r) {
        answer(head, r, block, count, decays, from_state, state, stride);
      }
    }
    for (size_t i = 0; i + 1 < count; ++i) {
      const VF decay = hn::Set(df, decays[count - 1][i]);
      float* const u = u_ + i * padded_values_;
      for_lanes(value_dim_, [&](size_t c, size_t lanes)
                                HWY_ATTR { store_lanes(hn::Mul(decay, load_lanes(u + c, lanes)), u + c, lanes); });
    }
    multiply_rows<float>({.a = keys,
                          .a_stride = 1,
                          .a_step = padded_keys_,
                          .b = u_,
                          .b_stride = padded_values_,
                          .rows = key_dim_,
                          .n = count,
                          .cols = value_dim_,
                          .factors = from_state + count - 1,
                          .factor_step = 0,
                          .out = state,
                          .out_stride = stride});
  }

  // out [rows][value_dim] = x S, x [rows][padded_keys_].
  void multiply_state(const float* x, size_t rows, const float* state, size_t stride, float* out,
                      size_t out_stride) const {
    multiply_rows<float>({.a = x,
                          .a_stride = padded_keys_,
                          .b = state,
                          .b_stride = stride,
                          .rows = rows,
                          .n = key_dim_,
                          .cols = value_dim_,
                          .out = out,
                          .out_stride = out_stride});
  }

  // (I + M) U = what u_ holds, in place.
  void solve(size_t block, size_t count, const Gates& gates, const float (&decays)[kBlock][kBlock]) {
    float m[kBlock][kBlock];
    for (size_t i = 0; i < count; ++i) {
      const float* const products = key_products_ + (block + i) * kBlock;
      for (size_t j = 0; j < i; ++j) m[i][j] = gates.write[i] * products[j] * decays[i][j];
    }
    size_t col = 0;
    for (; col + 4 * kLanes <= value_dim_; col += 4 * kLanes) solve_columns<4>(m, count, col, kLanes);
    for_lanes(value_dim_ - col, [&](size_t i, size_t lanes) HWY_ATTR { solve_columns<1>(m, count, col + i, lanes); });
  }

  template <size_t V>
  HWY_INLINE void solve_columns(const float (&m)[kBlock][kBlock], size_t count, size_t col, size_t lanes) {
    for (size_t i = 1; i < count; ++i) {
      float* const row = u_ + i * padded_values_ + col;
      VF u[V];
      for (size_t v = 0; v < V; ++v) u[v] = load_lanes(row + v * kLanes, lanes);
      for (size_t j = 0; j < i; ++j) {
        const VF factor = hn::Set(df, m[i][j]);
        HWY_UNROLL(4)
        for (size_t v = 0; v < V; ++v) {
          u[v] = hn::NegMulAdd(factor, load_lanes(u_ + j * padded_values_ + col + v * kLanes, lanes), u[v]);
        }
      }
      for (size_t v = 0; v < V; ++v) store_lanes(u[v], row + v * kLanes, lanes);
    }
  }

  // The answers of a block, before the state is updated.
  void answer(size_t head, size_t read, size_t block, size_t count, const float (&decays)[kBlock][kBlock],
              const float* from_state, const float* state, size_t stride) const {
    float* const out = answer_row(args_, head, read) + (token_ + block) * args_.out_stride;
    multiply_state(queries_ + (read * kStretch + block) * padded_keys_, count, state, stride, out, args_.out_stride);
    float weights[kBlock][kBlock];
    for (size_t i = 0; i < count; ++i) {
      const float* const products = query_products_ + (read * kStretch + block + i) * kBlock;
      for (size_t j = 0; j < count; ++j) weights[i][j] = products[j] * decays[i][j];
    }
    multiply_rows<float>({.a = weights[0],
                          .a_stride = kBlock,
                          .b = u_,
                          .b_stride = padded_values_,
                          .rows = count,
                          .n = count,
                          .cols = value_dim_,
                          .factors = from_state,
                          .out = out,
                          .out_stride = args_.out_stride});
    if (args_.skip == nullptr) return;
    const VF skip = hn::Set(df, args_.skip[head]);
    for (size_t i = 0; i < count; ++i) {
      const float* const x = value_row(args_, head) + (token_ + block + i) * args_.values.stride;
      float* const to = out + i * args_.out_stride;
      for_lanes(value_dim_, [&](size_t c, size_t lanes) HWY_ATTR {
        store_lanes(hn::MulAdd(skip, load_lanes(x + c, lanes), load_lanes(to + c, lanes)), to + c, lanes);
      });
    }
  }

  const RecurArgs& args_;
  const size_t key_dim_, value_dim_, padded_keys_, padded_values_;
  float* u_;               // [kBlock][padded_values]
  float* transposed_;      // [padded_keys][kBlock]
  float* keys_;            // [kStretch][padded_keys]
  float* key_products_;    // [kStretch][kBlock], K K^T of every block
  float* queries_;         // [reads][kStretch][padded_keys], times scale
  float* query_products_;  // [reads][kStretch][kBlock], Q K^T
  size_t token_ = 0, count_ = 0;
  const float *keys_of_ = nullptr, *queries_of_ = nullptr;  // whose are prepared
};

}  // namespace lethe::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
