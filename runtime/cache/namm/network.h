// The networks, over the inputs of one list: one score per token. Vector code, chosen for this CPU.
//
// Inputs stand as features [blocks of 32 tokens][width][32], the oldest token first; those behind the last token are
// zero. Pure functions: they read the arguments and write the scores.
#pragma once

#include <cstdint>
#include <span>

#include "runtime/cache/namm/parameters.h"
#include "runtime/memory/arena.h"

namespace lethe::namm {

constexpr size_t feature_floats(size_t tokens, size_t width) { return (tokens + 31) / 32 * 32 * width; }

// The backward attention memory network (arXiv 2410.13166, section 3.2, and the authors' code): a token attends to
// itself and to newer ones, a gated residual, a linear read-out.
//
//   [q k v] = x W_qkv + b_qkv;   c_i = sum over j >= i of softmax_j(q_i . k_j / sqrt(H)) v_j
//   [add gate] = c W_out + b_out;   score = (x (1 + gate) + add) . w + b
//
// Only scalars leave the network, so all of it folds into two affine maps of the inputs, of their own width D instead
// of H: a query  u = x Q + q0  (what depends on the key's bias is the same for all keys) and a read-out  s = x S + s0:
//
//   score_i = x_i . l + l0 + sum over j >= i of softmax_j(u_i . x_j) (s_i . x_j)
//
// In exact arithmetic that is the same number. `u` is in units of log2, for a softmax to the base of 2.
struct FoldedBam {
  uint32_t width = 0;
  std::span<float> query;     // [width + 1][padded(width)], the last row is the bias
  std::span<float> read_out;  // [width + 1][padded(width)] likewise
  std::span<float> linear;    // [width + 1], the last is the constant

  // Takes the arrays from `arena`, or measures them.
  void carve(Arena& arena, const Shape& shape);
  void fold(const BamWeights& weights);
};

// score = relu(x W + b) . w + c: the ablation that sees every token by itself.
struct PaddedMlp {
  uint32_t width = 0;
  std::span<float> hidden;  // [width + 1][padded(units)], the last row is the bias
  std::span<float> score;   // [padded(units) + 1], the last is the constant

  void carve(Arena& arena, const Shape& shape);
  void fill(const MlpWeights& weights);
};

// score = x . w + b: every token by itself, and no more than a weighted sum. The published scores that go by one number
// of a token (KeyDiff, L2, a window, cumulative attention) are corners of it.
struct Linear {
  std::span<float> score;  // [width + 1], the last is the constant

  void carve(Arena& arena, const Shape& shape);
  void fill(const LinearWeights& weights);
};

constexpr size_t padded(size_t outputs) { return (outputs + 3) / 4 * 4; }

// For every pair of tokens 2 width products and one exponential; no buffer grows with the list.
//   features as above, scores [scores.size()]
void bam_scores(const FoldedBam& bam, const float* features, std::span<float> scores);
void mlp_scores(const PaddedMlp& mlp, const float* features, std::span<float> scores);
void linear_scores(const Linear& linear, const float* features, std::span<float> scores);

}  // namespace lethe::namm
