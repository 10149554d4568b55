// Eviction policies: which tokens of a list stay when the cache needs room. One small file each in policies/; the table
// in policies.cc names them all.
//
// A policy is constant data and pure functions. What it must remember of a token lives in the token's slot (the state
// section of the block), moves with it when the list is compacted, starts as zero and is charged to the same cap as
// keys and values: policies are compared at equal total bytes.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "runtime/cache/kv_layout.h"

namespace lethe {

// One list that must shrink.
struct SelectArgs {
  KvPoolView pool;
  KvList list;  // length > target_length
  uint32_t layer;
  uint32_t kv_head;
  uint32_t target_length;  // tokens that may stay; >= sinks
  uint32_t sinks;          // the first tokens of the conversation, which no policy may drop (StreamingLLM, section 3.1)
};

struct Policy {
  const char* name;
  PositionMode default_positions;
  uint32_t state_bytes_per_slot;
  // Sets bit r % 64 of word r / 64 for every rank r that stays: at most target_length bits, the first `sinks` among
  // them. Null: the policy never evicts, and a full cache is an error.
  //   keep_bits [ceil(list.length / 64)]   zeroed
  void (*select)(const SelectArgs& args, std::span<uint64_t> keep_bits);

  bool evicts() const { return select != nullptr; }
};

extern const Policy kFullPolicy;
extern const Policy kWindowPolicy;

std::span<const Policy* const> policies();
// Null when there is none of this name.
const Policy* find_policy(std::string_view name);

// For select(): sets the bits [begin, end).
void keep_ranks(std::span<uint64_t> keep_bits, uint32_t begin, uint32_t end);

}  // namespace lethe
