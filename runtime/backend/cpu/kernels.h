// The CPU kernels: pure functions over raw buffers. No threads, no allocation, no state; callers split the work.
// `reference_kernels()` is the plain C++ definition of each; `simd_kernels()` is Highway's for the best target of this
// machine (chosen once, when a backend is created). Parity tests run every target against the reference.
//
// Within one target a row of a result has the same bits however many rows are computed with it (same order of float
// operations), so a model's output depends neither on the chunking of the prompt nor on the number of threads. (Of
// recurrent heads it does depend on the chunking, in its last bits: recurrent_kernels.h.)
// NaN and infinity pass through or give NaN; they never lead out of a buffer.
//
// Shapes stand at the end of the line as [rows][columns]; M = tokens in the step, K = inputs, N = outputs.
// No output may alias an input unless a comment says so. All buffers are 64-byte aligned unless a comment says not.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/backend/cpu/recurrent_kernels.h"
#include "runtime/cache/kv_layout.h"
#include "runtime/model/activation.h"
#include "runtime/model/quant_format.h"

namespace lethe::cpu {

// A weight matrix in the mapped file (model/quant_format.h). Does not own.
struct MatrixView {
  const uint8_t* data;
  WeightFormat format;
  uint32_t rows;  // N
  uint32_t cols;  // K
};

// Activations quantised to int8 per group of 32 inputs: x ~ scale * quant, quant = round(x / scale) in -127..127,
// scale = max|x| / 127 (0 for an all-zero group). `sum` = scale * sum of the group's quants: what a stored minimum, or
// the offset of unsigned weights, multiplies; `half_sum` is that of the group's first 16, for weights whose scale
// covers half a group.
struct QuantisedRows {
  int8_t* quants;    // [M][K]
  float* scales;     // [M][K/32]
  float* sums;       // [M][K/32]
  float* half_sums;  // [M][K/32]
};

// What several tokens share of two panels of quantised weights: the quants as bytes, scales and minimums as floats.
// An upper bound for every format.
constexpr size_t linear_scratch_bytes(size_t cols) { return 2 * kPanelRows * (cols + cols / 16 * 2 * sizeof(float)); }

// y = x W^T for panels [panel_begin, panel_end) of W. Float formats read `x`, quantised formats read `xq`.
struct LinearArgs {
  MatrixView weight;
  const float* x;     // [M][K]
  QuantisedRows xq;   // [M][K]
  uint32_t tokens;    // M
  float* y;           // [M][y_stride]; only columns < weight.rows are written
  uint32_t y_stride;  // floats
  uint8_t* scratch;   // linear_scratch_bytes(K); of this call alone
};

// Rotary embedding of one step, shared by all layers: row t belongs to the t-th token of the step.
// Pairing is "neox": dimension i is rotated with i + rotary_dim/2.
struct RopeTable {
  const float* cos;       // [M][rotary_dim/2]
  const float* sin;       // [M][rotary_dim/2]
  const float* inv_freq;  // [rotary_dim/2], for shifts (AttendArgs)
  uint32_t rotary_dim;    // even, <= head_dim
};

struct StoreKvArgs {
  KvPoolView pool;
  const uint32_t* block_of_token;  // [M] block of every token of the step, for this (layer, KV head)
  uint32_t first_slot;             // slot of token 0; token t is at (first_slot + t) % 32
  uint32_t first_position;         // absolute position of token 0; token t has first_position + t
  const float* k;                  // [M][k_stride], already rotated, already offset to this KV head
  const float* v;                  // [M][v_stride]
  uint32_t k_stride, v_stride;     // floats
  uint32_t tokens;                 // M
  float* scratch;                  // store_scratch_floats(head_dim)
};
// A row that is to be stored in 4 bits, transformed, and its codes.
constexpr size_t store_scratch_floats(size_t head_dim) {
  return head_dim + (head_dim + 2 * kQuad - 1) / (2 * kQuad) * 2;
}

// Attention of a tile of queries over a span of one KV list, with an online softmax (Milakov & Gimelshein 2018).
// Covers the `group` query heads that share the KV head. Query t of the step sees ranks <= first_rank_of_step + t; with
// a window only the first `sinks` ranks and those at a distance below the window, counted as `mode` counts distances.
//
// Positions: queries and keys are rotated at their absolute positions. With PositionMode::kRolling a key's distance
// is counted in ranks: a run of slots with constant (position - rank) = d needs the query rotated by the extra angle
// (d - query_delta) * inv_freq, and nothing stored is rotated again. With kAbsolute no run is shifted. With kClamped
// the keys with d < clamp stand at their rank: they need the query rotated by (d - clamp) * inv_freq, the others
// nothing.
struct AttendArgs {
  KvPoolView pool;
  KvList list;  // with the step's own tokens already stored and counted
  PositionMode mode;
  uint32_t query_delta;         // (position - rank) of the step's tokens
  uint32_t clamp;               // kClamped: where the conversation is taken to begin; at most query_delta
  uint32_t first_rank_of_step;  // rank of the step's token 0
  const float* q;               // [M][q_stride], rotated, offset to the group's first query head; heads adjacent
  uint32_t q_stride;            // floats
  uint32_t group;               // query heads per KV head (GQA)
  float scale;                  // usually 1 / sqrt(head_dim)
  float softcap;                // scores become softcap * tanh(score / softcap); 0: they stay (Gemma 2, section 2)
  Sight sight;
  RopeTable rope;
  uint32_t query_begin, query_end;  // tile of tokens of the step, at most kQueryTile
  uint32_t start_block;             // block where the span begins (walked through pool.next)
  uint32_t rank_begin, rank_end;    // span of ranks: rank_begin is a multiple of 32 and lies in start_block
  // Partial results, to be merged by `merge`: for every query of the tile and head of the group
  float* max;      // [tile][group]             running maximum of the scaled scores, -inf if nothing was seen
  float* sum;      // [tile][group]             sum of exp(score - max)
  float* acc;      // [tile][group][head_dim]   sum of exp(score - max) * value, not normalised
  float* scratch;  // attend_scratch_floats(group, head_dim)
  // What the policy is to see, or null: the scaled scores of the span's ranks, -inf where a query does not see.
  float* scores;           // [tile][group][scores_stride], rank r at r - rank_begin
  uint32_t scores_stride;  // floats
};
inline constexpr uint32_t kQueryTile = 8;
// Ranks between two steps of the online softmax; whole blocks, and a whole number of spans in a part.
inline constexpr uint32_t kSpanSlots = 128;
// Of pools of integers: four numbers for every row, its query and its weights in two bytes each; a transformed query.
constexpr size_t integer_scratch_floats(size_t rows, size_t head_dim) {
  return rows * (4 + 4 * ((head_dim + 2 * kQuad - 1) / (2 * kQuad)) + 2 * kSpanSlots / kQuad) + head_dim;
}
// One block of rotated keys and the frequencies; scores, a query, a factor and a vector of sums for every row of the
// tile.
constexpr size_t attend_scratch_floats(size_t group, size_t head_dim) {
  const size_t rows = kQueryTile * group;
  return head_dim * (kBlockSlots + 1) + rows * (kSpanSlots + head_dim + 1 + kPanelRows) +
         integer_scratch_floats(rows, head_dim);
}

// Merges `parts` partial results of one tile (in order, so the result does not depend on who computed them) and
// writes the normalised output.
struct MergeArgs {
  uint32_t parts;
  const float* max;  // [parts][tile][group]
  const float* sum;  // [parts][tile][group]
  const float* acc;  // [parts][tile][group][head_dim]
  uint32_t tile, group, head_dim;
  float* out;           // [tile][out_stride], offset to the group's first query head; heads adjacent
  uint32_t out_stride;  // floats
};

// The weights of a softmax that was taken in parts: out = mean over the group's heads of exp(score - log of the sum
// over all parts of exp(score)), 0 where the score is -inf.
struct WeighArgs {
  uint32_t parts;
  const float* max;     // [parts][tile][group], of all parts
  const float* sum;     // [parts][tile][group]
  const float* scores;  // [tile][group][scores_stride], of one part
  uint32_t scores_stride;
  uint32_t tile, group;
  uint32_t count;  // ranks
  float* out;      // [tile][out_stride]
  uint32_t out_stride;
};

struct TopLogit {
  float value;
  uint32_t id;
};

struct Kernels {
  const char* name;  // "reference" or target_name()

  // out = row `id` of the table as f32.                                                        out [K]
  void (*embed_row)(const MatrixView& table, uint32_t id, float* out);
  // y = x / sqrt(mean(x^2) + eps) * weight, row by row. y may be x.                            x, y [M][n]
  void (*rms_norm)(const float* x, const float* weight, float eps, size_t rows, size_t n, float* y);
  // y = (x - mean(x)) / sqrt(variance(x) + eps) * weight + bias, row by row; `bias` may be null. y may be x. [M][n]
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps, size_t rows, size_t n,
                     float* y);
  // Rows of x to int8 groups.                                                                  x [M][K]
  void (*quantise)(const float* x, size_t rows, size_t k, QuantisedRows out);
  void (*linear)(const LinearArgs& args, uint32_t panel_begin, uint32_t panel_end);
  // In place on `heads` adjacent heads of every token.                                         x [M][stride]
  void (*rope)(float* x, size_t tokens, size_t stride, size_t heads, size_t head_dim, const RopeTable& rope);
  void (*store_kv)(const StoreKvArgs& args);
  void (*attend)(const AttendArgs& args);
  void (*merge)(const MergeArgs& args);
  void (*weigh)(const WeighArgs& args);
  // Recurrent heads [head_begin, head_end) over the tokens of the step: the state goes on and answers.
  void (*recur)(const RecurArgs& args, uint32_t head_begin, uint32_t head_end);
  // The same without answers: hand-over of keys and values that leave a cache. No queries, no out.
  void (*absorb)(const RecurArgs& args, uint32_t head_begin, uint32_t head_end);
  // Only answers, all from the same state. Of the inputs only the queries.
  void (*read_state)(const RecurArgs& args, uint32_t head_begin, uint32_t head_end);
  void (*scan)(const ScanArgs& args, uint32_t head_begin, uint32_t head_end);
  void (*convolve)(const ConvArgs& args, uint32_t channel_begin, uint32_t channel_end);
  // out = activation(gate) * up; `up` may be null: no factor. out may be gate or up.           [n]
  void (*activate)(Activation activation, const float* gate, const float* up, size_t n, float* out);
  // x += y.                                                                                    [n]
  void (*add)(float* x, const float* y, size_t n);
  // x *= factor.                                                                               [n]
  void (*scale)(float* x, float factor, size_t n);
  // x = cap * tanh(x / cap).                                                                   [n]
  void (*softcap)(float* x, float cap, size_t n);
  // Index and value of the largest logit; the lowest index wins ties. NaN never wins; all NaN gives id n. [n]
  TopLogit (*argmax)(const float* logits, size_t n);
  // log(sum(exp(logits))) in a stable way.                                                     [n]
  float (*log_sum_exp)(const float* logits, size_t n);
};

const Kernels& reference_kernels();
// By value: the table of the best of supported_targets() (base/simd/target_choice.h). Cheap, but not free.
Kernels simd_kernels();

}  // namespace lethe::cpu
