// Recurrent heads: what carries a conversation in a state of fixed size instead of a cache. What they are, and where
// their state lies. Pure arithmetic: no storage, no kernels (backend/cpu/recurrent_kernels.h computes with them).
//
// All kinds share one form. A head has a state S [key_dim][value_dim]; every token first decays it, then adds the outer
// product of a key and what there is to write, and is answered by a query (docs/recurrent.md has the equations):
//
//   S = decay S + k u^T        o = S^T q
//
//   kMamba1      k = B, q = C, u = dt x; every element of S has a decay of its own    Mamba (2312.00752), section 3
//   kMamba2      k = B, q = C, u = dt x; one decay a head                             Mamba-2, SSD (2405.21060), sec. 6
//   kGatedDelta  u = beta (v - decay S^T k): what S already answers to k is replaced  Gated DeltaNet (2412.06464), eq.
//   10
//
// The heads of one layer lie one after the other, so that threads share the work by heads. The channels of a Mamba-1
// layer are independent: they are cut into heads of any number of channels (64 suits every vector width). In front of
// the heads of a layer there may be a short causal convolution over their inputs, whose state is its last inputs.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/base/status.h"

namespace lethe {

enum class RecurrentKind : uint32_t { kMamba1 = 0, kMamba2 = 1, kGatedDelta = 2 };

// How S is stored. Kernels compute in f32; bf16 rounds S (to nearest even) at the end of every call.
enum class StateType : uint32_t { kF32 = 0, kBf16 = 1 };

inline constexpr uint32_t kMaxRecurrentHeads = 1u << 16;
inline constexpr uint32_t kMaxRecurrentDim = 4096;  // of keys and of values
inline constexpr uint32_t kMaxConvChannels = 1u << 20;
inline constexpr uint32_t kMaxConvTaps = 4;

// The recurrent heads of one layer.
struct RecurrentHeads {
  RecurrentKind kind;
  StateType state_type;
  uint32_t count;
  uint32_t key_dim;        // d_state of Mamba
  uint32_t value_dim;      // headdim of Mamba-2, channels in a head of Mamba-1
  uint32_t conv_channels;  // 0: no convolution
  uint32_t conv_taps;      // 2..kMaxConvTaps, 0 without a convolution

  bool operator==(const RecurrentHeads&) const = default;
};

// kInvalidArgument, naming the field, when the library cannot have such heads.
Status check_recurrent_heads(const RecurrentHeads& heads);

// The state of a layer: every head's S on a 64-byte boundary, row by row, then the convolution's, f32 whatever the
// state's type:
//
//   S     [count][key_dim][value_dim]
//   conv  [conv_taps - 1][conv_channels]   the inputs of the last tokens, oldest first
//
// All zeros is the state before the first token.
struct RecurrentLayout {
  uint64_t head_bytes;   // from one head's S to the next
  uint64_t conv_offset;  // bytes from the layer's start
  uint64_t bytes;        // multiple of 64
};

constexpr RecurrentLayout recurrent_layout(const RecurrentHeads& heads) {
  const auto align = [](uint64_t n) { return (n + 63) / 64 * 64; };
  const uint64_t element = heads.state_type == StateType::kF32 ? 4 : 2;
  RecurrentLayout layout{};
  layout.head_bytes = align(uint64_t{heads.key_dim} * heads.value_dim * element);
  layout.conv_offset = heads.count * layout.head_bytes;
  layout.bytes = layout.conv_offset;
  if (heads.conv_channels != 0) layout.bytes += align(uint64_t{heads.conv_taps - 1} * heads.conv_channels * 4);
  return layout;
}

// The state of one layer. Does not own. Heads are independent: threads may work on different ones.
struct RecurrentView {
  RecurrentHeads heads;
  RecurrentLayout layout;
  uint8_t* state;  // [layout.bytes], 64-byte aligned

  uint8_t* head(size_t index) const { return state + index * layout.head_bytes; }
  float* conv() const { return reinterpret_cast<float*>(state + layout.conv_offset); }
  // Some neighbouring heads by themselves, without the convolution: those of one KV group.
  RecurrentView part(uint32_t first, uint32_t count) const {
    RecurrentView view = *this;
    view.heads.count = count;
    view.heads.conv_channels = view.heads.conv_taps = 0;
    view.state = head(first);
    return view;
  }
};

}  // namespace lethe
