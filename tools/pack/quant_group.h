// Groups of 32 quantised weights on their way from a source to a file: read from ggml's blocks, or made by the search.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/model/quant_format.h"
#include "tools/pack/source.h"

namespace lethe {

// 32 weights of one row: w = d[i / 16] * (q - offset) + m, with the offset, and without m, as the format says
// (quant_format.h). Where a format has one scale a group, d[0] == d[1].
struct QuantGroup {
  float d[2] = {};
  float m = 0;
  uint8_t q[kGroup];
};

// The format whose quants are those of a quantised ggml type. Its scales hold the source's exactly, except that Q4_K,
// Q5_K and Q6_K have products of a half and 6 or 8 bits, which a file rounds to halves.
WeightFormat format_of_blocks(GgmlType type);

// Group `index` of a row of blocks, as ggml's reference dequantises it (ggml-quants.c, dequantize_row_*).
QuantGroup read_group(GgmlType type, const uint8_t* row, size_t index);

// The weights that a group stands for. [32]
void dequantise_group(WeightFormat format, const QuantGroup& group, float* out);

// Rounds scales and minimum to the halves that a file stores. False when one is not finite afterwards.
bool round_params(QuantGroup* group);

// Quantises 32 finite weights to kQ8 (d = max|w| / 127) or kQ4M (scale and minimum searched for the least sum of
// importance[i] * error^2; importance [32] > 0), with rounded parameters. False when they do not fit halves.
bool quantise_group(WeightFormat format, const float* weights, const float* importance, QuantGroup* out);

}  // namespace lethe
