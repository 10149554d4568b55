// Counts what a test program obtains from the system, and makes chosen requests fail. Linked only into test programs
// that want it (tests/CMakeLists.txt): it takes the place of malloc for the whole process.
//
// Seen: malloc and its relatives, so operator new as well, wherever they are called, the C library included; and mmap,
// munmap and pthread_create where the library or the test calls them. With a sanitizer, whose malloc cannot be
// replaced, all heap memory is still counted, but only operator new can fail: what the library takes from the heap.
#pragma once

#include <cstdint>

namespace lethe::test {

struct MemoryCounts {
  uint64_t requests;      // of all kinds so far, each once
  int64_t heap_bytes;     // held now, as the allocator rounds them up
  int64_t heap_peak;      // highest since start_heap_peak()
  int64_t private_bytes;  // mapped now, anonymous
  int64_t file_bytes;     // mapped now, of files
  int64_t maps;           // how many those are

  bool holds_as_much_as(const MemoryCounts& other) const {
    return heap_bytes == other.heap_bytes && private_bytes == other.private_bytes && file_bytes == other.file_bytes &&
           maps == other.maps;
  }
};
MemoryCounts memory_counts();
void start_heap_peak();

// While it lives, request number `first` (from 1) of any thread fails; with `persistent` all that follow as well.
class FaultScope {
 public:
  FaultScope(uint64_t first, bool persistent);
  ~FaultScope();
  FaultScope(const FaultScope&) = delete;
  FaultScope& operator=(const FaultScope&) = delete;
  // Whether the request came.
  bool struck() const;
};

}  // namespace lethe::test
