// What the process uses and how long things take.
#pragma once

#include <cstdint>

namespace lethe::os {

struct ProcessMemory {
  uint64_t private_bytes;  // anonymous resident + swapped: RssAnon + VmSwap of /proc/self/status
  uint64_t swapped_bytes;  // of private_bytes, those that are not resident
  uint64_t file_bytes;     // resident file pages (mapped weights, code): clean, the system may drop them
};
// Allocates nothing (reads /proc with a stack buffer). Zeroes where the system does not tell.
ProcessMemory process_memory();
// Every resident page by the share of this process, files included. Walks all pages: milliseconds for mapped weights.
// 0 where the system does not tell.
uint64_t process_pss_bytes();

struct PageFaults {
  uint64_t minor, major;  // major: waited for a disk
};
PageFaults process_page_faults();  // since the process began

uint64_t monotonic_ns();
uint64_t unix_ms();  // wall clock

// Cores that are worth a thread: performance cores on big.LITTLE, else the cores this process may run on. At least 1.
uint32_t fast_core_count();

}  // namespace lethe::os
