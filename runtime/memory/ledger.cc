#include "runtime/memory/ledger.h"

namespace lethe {
namespace {

unsigned long long number(uint64_t value) { return value; }

}  // namespace

const char* memory_tag_name(MemoryTag tag) {
  static constexpr const char* kNames[kMemoryTagCount] = {"host",        "model",   "session", "tokenizer",
                                                          "activations", "logits",  "kv_pool", "kv_index",
                                                          "sampler",     "threads", "trace"};
  return kNames[static_cast<int>(tag)];
}

Status Ledger::reserve(MemoryTag tag, uint64_t bytes) {
  const uint64_t cap_bytes = cap();
  uint64_t before = total_.load();
  do {
    if (before > cap_bytes || bytes > cap_bytes - before) {
      return Status::error(ErrorCode::kRamTooSmall, "%llu bytes for %s: %llu of the cap of %llu bytes are in use",
                           number(bytes), memory_tag_name(tag), number(before), number(cap_bytes));
    }
  } while (!total_.compare_exchange_weak(before, before + bytes));
  used_[static_cast<int>(tag)].fetch_add(bytes);
  uint64_t highest = peak_.load();
  while (highest < before + bytes && !peak_.compare_exchange_weak(highest, before + bytes)) {
  }
  return {};
}

void Ledger::release(MemoryTag tag, uint64_t bytes) {
  used_[static_cast<int>(tag)].fetch_sub(bytes);
  total_.fetch_sub(bytes);
}

uint64_t Ledger::used(MemoryTag tag) const { return used_[static_cast<int>(tag)].load(); }
uint64_t Ledger::total() const { return total_.load(); }
uint64_t Ledger::peak() const { return peak_.load(); }
uint64_t Ledger::cap() const { return cap_.load(); }

Status Ledger::set_cap(uint64_t cap_bytes) {
  const uint64_t in_use = total();
  if (cap_bytes < in_use) {
    return Status::error(ErrorCode::kRamTooSmall, "a cap of %llu bytes: %llu bytes are in use", number(cap_bytes),
                         number(in_use));
  }
  cap_.store(cap_bytes);
  return {};
}

}  // namespace lethe
