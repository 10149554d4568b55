// One decoder layer as a list of steps: the definition that every backend executes. The engine builds it from the
// model (engine/decoder.h), the planner reads buffer lifetimes from it, the CPU runs it, a GPU backend records it.
#pragma once

#include <array>
#include <cstdint>

#include "runtime/model/model.h"

namespace lethe {

// Activations of one step of M tokens, f32 [M][width].
enum class BufferId : uint8_t {
  kHidden = 0,  // residual stream; lives through all layers
  kNormed,
  kQuery,    // [heads * head_dim]
  kKey,      // [kv_heads * head_dim]
  kValue,    // [kv_heads * head_dim]
  kContext,  // attention's output [heads * head_dim]
  kGate,
  kUp,
  kProjected,  // what is added to the residual stream
  kQuantised,  // int8 groups of the last quantised buffer (backend's own layout)
  kNone,
};
inline constexpr uint32_t kBufferCount = 10;

enum class Op : uint8_t {
  kNorm,  // out = norm(in) * weight + bias, over stretches as long as the weight (a row, or every head); in place too
  kQuantise,  // kQuantised = int8 groups of in, for the linear steps that follow
  kLinear,    // out of each map = in * weight^T + bias (from kQuantised when the weight is quantised)
  kRope,      // in place on `in`
  kStoreKv,   // in = keys, in2 = values
  kAttend,    // in = queries
  kActivate,  // out = activation(in) * in2, without in2 when that is kNone
  kAdd,       // out += in
};

inline constexpr Role kNoBias = Role::kTokenEmbedding;

// One of up to three linear maps of the same input: done together, so that threads meet once and not three times.
struct LinearMap {
  Role weight;
  Role bias = kNoBias;
  BufferId out = BufferId::kNone;
};

struct Step {
  Op op;
  BufferId in = BufferId::kNone;
  BufferId in2 = BufferId::kNone;
  BufferId out = BufferId::kNone;
  Role weight = Role::kTokenEmbedding;  // only for kNorm
  Role bias = kNoBias;                  // likewise
  std::array<LinearMap, 3> maps{};      // only for kLinear
  uint32_t map_count = 0;
};

struct Program {
  std::array<Step, 32> steps;  // of every layer
  uint32_t step_count = 0;
  std::array<uint32_t, kBufferCount> widths{};  // per token: floats; kQuantised: inputs of its widest user
};

}  // namespace lethe
