// Private memory from the operating system, by whole pages. The only place where the library obtains memory.
#pragma once

#include <cstdint>

#include "runtime/base/status.h"

namespace lethe::os {

// Bytes of a page (4 KiB or 16 KiB). Thread-safe.
uint64_t page_size();

// Maps `bytes` (> 0, rounded up to pages by the caller) of zeroed private memory. kOutOfMemory when refused.
Result<uint8_t*> map_pages(uint64_t bytes);

// Returns what map_pages gave.
void unmap_pages(uint8_t* pages, uint64_t bytes);

// Gives the whole pages inside [begin, begin + bytes) back to the system; they read as zero afterwards.
void discard_pages(uint8_t* begin, uint64_t bytes);

}  // namespace lethe::os
