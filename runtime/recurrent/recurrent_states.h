// RecurrentStates: the states of all recurrent layers of one session, and copies of them to go back to.
//
// A state, unlike a cache, cannot be cut back to an earlier token. So whoever may want to withdraw tokens (a turn, a
// draft) keeps a checkpoint before them. A checkpoint is a plain copy of all states: with n of them the memory is
// n + 1 times bytes(), decided when the session is planned. They are a ring: a new one takes the place of the oldest.
//
// Owns nothing: tables and states are carved from an arena. No function here allocates. One thread at a time; kernels
// may work through view() while nothing here runs. What went on since the last call of a function here (a step that was
// cancelled half-way) is undone by rewind() as well.
#pragma once

#include <cstdint>
#include <span>

#include "runtime/base/status.h"
#include "runtime/memory/arena.h"
#include "runtime/recurrent/recurrent_head.h"

namespace lethe {

class RecurrentStates {
 public:
  RecurrentStates() = default;
  RecurrentStates(const RecurrentStates&) = delete;
  RecurrentStates& operator=(const RecurrentStates&) = delete;

  // Takes tables and states from `arena` and resets. `layers` (copied) are the recurrent layers in order. Over a
  // measuring arena all is only counted, and nothing but bytes() may be asked afterwards. kInvalidArgument for heads
  // that cannot be, kInternal when the arena is too small.
  Status carve(Arena& arena, std::span<const RecurrentHeads> layers, uint32_t checkpoints);

  uint64_t bytes() const { return bytes_; }  // of one copy of all states
  uint32_t layers() const { return static_cast<uint32_t>(layers_.size()); }
  // `layer` counts the recurrent layers.
  RecurrentView view(uint32_t layer) const;

  // The state before the first token; forgets all checkpoints.
  void reset();

  // Copies the states, which are those after `tokens` tokens of the conversation. A checkpoint at or behind `tokens`
  // is forgotten: the conversation went on differently since. Does nothing when there is no room for checkpoints.
  void keep(uint64_t tokens);
  // Goes back to the latest checkpoint of at most `tokens` tokens and gives its number of tokens; those behind it are
  // to be fed again. Without such a checkpoint that is the beginning: reset() and 0.
  uint64_t rewind(uint64_t tokens);

  // A fork: states and checkpoints of `other`. kInternal when that has other layers or another number of checkpoints.
  Status copy_from(const RecurrentStates& other);

  // A saved session has the states as they are (host byte order), without checkpoints, and signature() to know that
  // they mean the same where they are loaded.
  std::span<const uint8_t> save() const { return live_; }
  uint64_t signature() const;  // hash of the layers' shapes
  // Forgets all checkpoints. kCorruptSnapshot, and nothing changes, when `saved` has another length.
  Status load(std::span<const uint8_t> saved);

 private:
  std::span<uint8_t> checkpoint(uint32_t index) const { return kept_.subspan(index * bytes_, bytes_); }
  uint32_t slot(uint32_t age) const;

  std::span<RecurrentHeads> layers_;
  std::span<uint64_t> offsets_;      // [layers] of a layer's state, bytes
  std::span<uint64_t> kept_tokens_;  // [checkpoints]
  std::span<uint8_t> live_;          // [bytes]
  std::span<uint8_t> kept_;          // [checkpoints][bytes]
  uint64_t bytes_ = 0;
  uint32_t next_ = 0;   // slot of the next checkpoint
  uint32_t count_ = 0;  // checkpoints in use: the ones before next_, around the ring
};

}  // namespace lethe
