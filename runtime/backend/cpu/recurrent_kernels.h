// What the kernels of recurrent heads work on. recurrent/recurrent_head.h says what such heads are, docs/recurrent.md
// how the kernels go about it. Each takes a range of heads or channels, so that threads share a layer, and M tokens:
// one in decoding, many of a prompt. The inputs are what the model's linear maps and the convolution give: kernels
// apply the bias and the softplus of time steps, the sigmoid of beta and the norm of keys and queries themselves.
//
// scan and convolve give the same bits however the tokens are cut into calls. recur and absorb do not, unlike all other
// kernels: several tokens take another way than one. They agree within 1e-5 of the root mean square.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/recurrent/recurrent_head.h"

namespace lethe::cpu {

// An input of all heads: `count` rows lie next to each other for every token. With n users, row i belongs to the users
// from i * n / count on.
struct HeadRows {
  const float* data;  // [M][stride]: [count][dim] of every token
  uint32_t stride;    // floats
  uint32_t count;     // a divisor of n
};

// Heads of kind kMamba2 and kGatedDelta. A token does to the state S [key_dim][value_dim] of every head h:
//
//   dt' = softplus(dt[h] + dt_bias[h]);  S = exp(rate[h] dt') S
//   S = S + k u^T,  where u = dt' v (Mamba-2)  or  sigmoid(beta[h]) (v - S^T k) (gated delta)
//   o = scale S^T q + skip[h] v          for each of its `reads` readers
//
// k and q of a gated delta net are first divided by their length, sqrt(sum of squares + 1e-6).
struct RecurArgs {
  RecurrentView view;
  uint32_t tokens;       // M
  HeadRows keys;         // k, Mamba-2's B; users are the heads
  HeadRows values;       // v, Mamba-2's x; users are the heads
  HeadRows queries;      // q, Mamba-2's C; users are the readers, `reads` for every head
  uint32_t reads;        // more than 1 where the query heads of a KV group share a state; 0 in absorb
  float scale;           // gated delta: usually 1 / sqrt(key_dim); Mamba-2: 1
  const float* dt;       // [M][gate_stride]: [heads] of every token; gated delta's a
  const float* beta;     // [M][gate_stride], likewise; null for Mamba-2
  uint32_t gate_stride;  // floats
  const float* dt_bias;  // [heads]
  const float* rate;     // [heads], below 0: -exp(A_log)
  const float* skip;     // [heads], Mamba-2's D, or null
  float* out;            // [M][out_stride]: [heads * reads][value_dim] of every token
  uint32_t out_stride;   // floats
  float* scratch;        // recur_scratch_floats, of this call alone
};

// Tokens that the block form of `recur` takes together.
inline constexpr uint32_t kRecurBlock = 16;
// Tokens whose keys and queries are prepared at once, for all heads that share them.
inline constexpr uint32_t kRecurStretch = 64;
// Vectors are at most this long, and rows of scratch are padded to it.
inline constexpr size_t kMaxLanes = 16;

constexpr size_t pad_lanes(size_t n) { return (n + kMaxLanes - 1) / kMaxLanes * kMaxLanes; }

// An f32 copy of a bf16 state, U of a block, and for a stretch keys, queries and their products.
constexpr size_t recur_scratch_floats(const RecurrentHeads& heads, size_t reads) {
  const size_t keys = pad_lanes(heads.key_dim), values = pad_lanes(heads.value_dim);
  return (heads.key_dim + kRecurBlock) * values + kRecurBlock * keys +
         (1 + reads) * kRecurStretch * (keys + kRecurBlock);
}

// Heads of kind kMamba1. A token does to the state S [key_dim] of every channel c:
//
//   dt' = softplus(dt[c] + dt_bias[c])
//   S[n] = exp(rate[n][c] dt') S[n] + dt' b[n] x[c]
//   o = sum over n of c[n] S[n], + skip[c] x[c]
struct ScanArgs {
  RecurrentView view;
  uint32_t tokens;                          // M
  const float* x;                           // [M][x_stride]: [heads][value_dim] of every token
  const float* dt;                          // [M][dt_stride], likewise
  const float* b;                           // [M][bc_stride]: [key_dim] of every token, for all channels
  const float* c;                           // [M][bc_stride], likewise
  uint32_t x_stride, dt_stride, bc_stride;  // floats
  const float* dt_bias;                     // [heads * value_dim]
  const float* rate;                        // [heads][key_dim][value_dim], below 0: -exp(A_log)
  const float* skip;                        // [heads * value_dim]
  float* out;                               // [M][out_stride]; may be x
  uint32_t out_stride;                      // floats
  float* scratch;                           // scan_scratch_floats, of this call alone
};

// The state of a vector of channels.
constexpr size_t scan_scratch_floats(const RecurrentHeads& heads) { return heads.key_dim * kMaxLanes; }

// The short causal convolution in front of recurrent heads, then SiLU:
//
//   out[t][c] = silu(bias[c] + sum over j of weight[j][c] * x[t - (taps - 1) + j][c])
//
// x before the call's first token is what `state` remembers of earlier calls.
struct ConvArgs {
  float* state;                   // RecurrentView::conv()
  uint32_t taps;                  // 2..kMaxConvTaps
  uint32_t channels;              // of the whole layer
  uint32_t tokens;                // M
  const float* x;                 // [M][x_stride]
  const float* weight;            // [taps][channels]: the last row is the current token's
  const float* bias;              // [channels], or null
  float* out;                     // [M][out_stride]; may be x
  uint32_t x_stride, out_stride;  // floats
};

}  // namespace lethe::cpu
