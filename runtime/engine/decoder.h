// Builds the decoder's program from what a model has.
#pragma once

#include <array>

#include "runtime/backend/program.h"
#include "runtime/model/model.h"

namespace lethe {

// The steps of one layer and the widths of its buffers: attention with RoPE and GQA, then a feed-forward network, each
// with norms before or after it (Touvron et al. 2023, 2.2; Gemma Team 2024, 2). What a model has no tensors for
// (biases, norms of the heads, a gate, ...) is left out; layers differ in their tensors and in what the configuration
// says of local layers, not in their steps.
Program build_program(const Model& model);

// First and last step (inclusive) in which a buffer holds something that is read later. The head (output norm and
// logits) counts as one more step at the end; it reads kHidden and uses kNormed and kQuantised.
struct Lifetime {
  uint32_t first, last;
  bool used;
};
std::array<Lifetime, kBufferCount> buffer_lifetimes(const Program& program);

}  // namespace lethe
