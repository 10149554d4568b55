// What the process uses, and the tool's own part of the cap. --ram bounds the whole process: what the library reserves,
// and what this tool and the C++ runtime hold beside it.
#pragma once

#include <cstdint>

#include "lethe/lethe.hpp"
#include "tools/cli/json_writer.h"

namespace lethe::cli {

// False where a sanitizer holds memory of its own in the process.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kOwnsPrivateMemory = false;
#else
inline constexpr bool kOwnsPrivateMemory = true;
#endif

// What to pass as host_bytes: the private memory that the process has now, `buffers` that it is about to fill, and room
// for the heap and the stack to move, in whole MiB (so that `plan` and `run` of the same options agree). To be called
// when the prompt is in memory and before the model is opened: the library counts the model's tables itself.
uint64_t host_bytes(uint64_t buffers);

// Highest private memory of the process that was seen.
class PrivatePeak {
 public:
  void sample();
  uint64_t bytes() const { return bytes_; }

 private:
  uint64_t bytes_ = 0;
};

// Processor time that all threads of the process have used so far.
double cpu_seconds();

// Members of an open object: cap_bytes, total_bytes, ..., "ledger": {tag: bytes}.
void write_memory(JsonWriter& json, const lethe_memory& memory);
// Tag, bytes and share; then the capacity.
void print_memory(const lethe_memory& memory);

}  // namespace lethe::cli
