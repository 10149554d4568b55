// XXH64 (Yann Collet, xxHash specification 0.1.1), seed 0: the checksum of every Lethe file. Not cryptographic.
#pragma once

#include <cstddef>
#include <cstdint>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace lethe {

inline uint64_t hash64(const void* data, uint64_t bytes) { return XXH64(data, static_cast<size_t>(bytes), 0); }

// The same hash, fed piece by piece.
class Hash64 {
 public:
  Hash64() { XXH64_reset(&state_, 0); }
  // Not inlined: GCC 12 then warns of reads beyond short arrays, behind a branch that is not taken for them.
  [[gnu::noinline]] void update(const void* data, uint64_t bytes) {
    XXH64_update(&state_, data, static_cast<size_t>(bytes));
  }
  uint64_t digest() const { return XXH64_digest(&state_); }

 private:
  XXH64_state_t state_;
};

}  // namespace lethe
