#include "runtime/os/pages.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

namespace lethe::os {

uint64_t page_size() {
  static const uint64_t size = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  return size;
}

Result<uint8_t*> map_pages(uint64_t bytes) {
  void* pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) {
    return Status::error(ErrorCode::kOutOfMemory, "the system refused %llu bytes of memory (errno %d)",
                         static_cast<unsigned long long>(bytes), errno);
  }
#if defined(__linux__)
  madvise(pages, bytes, MADV_HUGEPAGE);
#endif
  return static_cast<uint8_t*>(pages);
}

void unmap_pages(uint8_t* pages, uint64_t bytes) {
  if (pages != nullptr && bytes != 0) munmap(pages, bytes);
}

void discard_pages(uint8_t* begin, uint64_t bytes) {
  const uint64_t page = page_size();
  const auto address = reinterpret_cast<uintptr_t>(begin);
  const uintptr_t first = (address + page - 1) / page * page;
  const uintptr_t end = (address + bytes) / page * page;
  if (first >= end) return;
  auto* pages = begin + (first - address);
#if defined(__linux__)
  madvise(pages, end - first, MADV_DONTNEED);
#else
  // Elsewhere MADV_DONTNEED is only a hint and keeps the contents; a fresh map over the old one is exact.
  mmap(pages, end - first, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
#endif
}

}  // namespace lethe::os
