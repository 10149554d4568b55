// The memory of a session: what its options ask for, what the cap leaves, and how it is cut.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "runtime/backend/cpu/cpu_backend.h"
#include "runtime/base/status.h"
#include "runtime/cache/hand_over.h"
#include "runtime/cache/kv_layout.h"
#include "runtime/cache/namm/parameters.h"
#include "runtime/cache/policy.h"
#include "runtime/memory/ledger.h"
#include "runtime/model/model.h"

namespace lethe {

inline constexpr uint32_t kMaxChunk = 2048;
inline constexpr uint32_t kMaxLogitRows = 64;
inline constexpr uint32_t kMaxTurnBytes = 64u << 20;
inline constexpr uint64_t kMaxPosition = uint64_t{1} << 31;  // positions are 32 bits in the cache
inline constexpr uint32_t kMaxPieceBytes = 4096;  // longest stretch of text that the split patterns leave whole

struct SessionOptions {
  uint64_t ram_bytes = 0;
  uint64_t host_bytes = 0;
  const Policy* policy = &kWindowPolicy;
  uint32_t sinks = 4;
  uint64_t policy_seed = 0;            // for policies that draw
  std::span<const uint8_t> namm = {};  // of a learned policy: a NAMM file that outlives the session; empty: the model's
  // What stays in an eviction (policy.h); empty: as the policy has it.
  std::optional<uint32_t> recent_percent = {};
  std::optional<Budget> budget = {};
  std::optional<Pooling> pooling = {};
  std::optional<bool> value_norm = {};
  HandOver hand_over = HandOver::kNone;
  bool head_plan = true;  // KV heads see what the model's head plan says; false: what their layers do
  KvType kv_type = KvType::kF16;
  PositionMode positions = PositionMode::kRolling;
  uint32_t max_tokens = 0;     // 0: all that the cap allows, at most the trained length
  uint32_t prefill_chunk = 0;  // 0: what suits the cap
  uint32_t threads = 1;
  uint32_t logit_rows = 1;
  uint32_t turn_bytes = 16 << 10;
};

// The policy's retention with what the options say instead. Without scores lists have nothing to compete with.
Retention retention_of(const SessionOptions& options);

// What the queries of a KV head see.
Sight sight_of(const Model& model, const SessionOptions& options, uint32_t layer, uint32_t kv_head);
// Whether there is anything that not all queries see.
bool has_windows(const Model& model, const SessionOptions& options);

// What the cap is cut into. Everything else follows from the model and the options.
struct SessionShape {
  uint32_t chunk = 0;            // most tokens of a step
  uint32_t blocks_per_list = 0;  // KV blocks per (layer, KV head); fewer where a window is shorter
  uint32_t cache_tokens() const { return blocks_per_list * kBlockSlots; }
};
// Fewest blocks per list that a chunk can work with, besides `reserved` tokens that always stay.
uint32_t fewest_blocks(uint32_t chunk, uint64_t reserved, Budget budget);
// KV blocks of all lists together.
uint64_t pool_blocks(const Model& model, const SessionOptions& options, const SessionShape& shape);

struct SessionPlan {
  SessionShape shape;
  uint64_t tag_bytes[kMemoryTagCount];
  uint64_t total;         // sum of tag_bytes
  uint64_t minimum_ram;   // the smallest cap that works with these options
  uint64_t block_bytes;   // the session's own block of memory: all tags but host, model and part of the tokenizer
  uint64_t pool_offset;   // of the KV pool in that block, page-aligned
  namm::Parameters namm;  // of a learned policy: views into the file that it was given
};

// Places the activations of steps of `chunk` tokens and has the independent verifier check the result.
Result<cpu::BufferPlan> plan_activations(const Program& program, uint32_t chunk);

// Chooses the shape: the largest prefill chunk that takes no more than a quarter of what the cache could have, then as
// many blocks as fit, at most `max_tokens` or the trained length. kInvalidArgument for impossible options, or for a
// learned policy without parameters; kNotAModel and kCorruptModel for parameters that are no good;
// kRamTooSmall when the cap cannot hold the smallest shape (`minimum_ram` is then set all the same).
Status plan_session(const Model& model, const SessionOptions& options, SessionPlan* plan);

}  // namespace lethe
