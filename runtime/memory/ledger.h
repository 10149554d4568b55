// The ledger: every private byte of the library is reserved here, under a tag, before it is obtained.
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/base/status.h"

namespace lethe {

enum class MemoryTag : uint8_t {
  kHost = 0,     // what the caller asked to be counted inside the cap (its own buffers, the process's start-up)
  kModel,        // tables of the loaded model (weights are mapped, not private)
  kSession,      // the session's own tables and buffers of tokens and text
  kTokenizer,    // work space of the tokenizer and the chat template
  kActivations,  // buffers of the decoder, planned with overlapping lifetimes
  kLogits,
  kKvPool,   // blocks of keys and values
  kKvIndex,  // chains, lists and policy state
  kSampler,
  kThreads,  // stacks and control blocks of the thread pool
  kTrace,    // buffers of the memory trace
};
inline constexpr int kMemoryTagCount = 11;
const char* memory_tag_name(MemoryTag tag);  // "host", "model", ...; used in tables and JSON

// Counts bytes per tag under one cap. Thread-safe; obtains nothing itself.
class Ledger {
 public:
  explicit Ledger(uint64_t cap_bytes) : cap_(cap_bytes) {}
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  // kRamTooSmall, with requested, used and cap, when the sum would exceed the cap; then nothing is counted.
  Status reserve(MemoryTag tag, uint64_t bytes);
  void release(MemoryTag tag, uint64_t bytes);

  uint64_t used(MemoryTag tag) const;
  uint64_t total() const;
  uint64_t peak() const;  // highest total ever
  uint64_t cap() const;
  // Lowering below total() is refused with kRamTooSmall.
  Status set_cap(uint64_t cap_bytes);

 private:
  std::atomic<uint64_t> used_[kMemoryTagCount] = {};
  std::atomic<uint64_t> total_{0};
  std::atomic<uint64_t> peak_{0};
  std::atomic<uint64_t> cap_;
};

}  // namespace lethe
