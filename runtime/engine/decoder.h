// Builds the decoder's program from what a model has.
#pragma once

#include <array>

#include "runtime/backend/program.h"
#include "runtime/model/model.h"

namespace lethe {

// The steps of one layer and the widths of its buffers. Llama type: pre-norm attention with RoPE and GQA, then a gated
// feed-forward network (Touvron et al. 2023, 2.2).
Program build_program(const Model& model);

// First and last step (inclusive) in which a buffer holds something that is read later. The head (output norm and
// logits) counts as one more step at the end; it reads kHidden and uses kNormed and kQuantised.
struct Lifetime {
  uint32_t first, last;
  bool used;
};
std::array<Lifetime, kBufferCount> buffer_lifetimes(const Program& program);

}  // namespace lethe
