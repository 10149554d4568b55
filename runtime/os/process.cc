#include "runtime/os/process.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#if defined(__linux__)
#include <sched.h>
#elif defined(__APPLE__)
#include <mach/mach.h>
#include <sys/sysctl.h>
#endif

namespace lethe::os {
namespace {

uint32_t online_core_count() { return static_cast<uint32_t>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN))); }

#if defined(__linux__)

// Reads a small file whole into a NUL-terminated buffer (files of /proc and /sys; no stdio, which allocates).
template <size_t kSize>
bool read_text(const char* path, char (&text)[kSize]) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  size_t length = 0;
  ssize_t got = 0;
  while (length < kSize - 1 && (got = read(fd, text + length, kSize - 1 - length)) > 0) {
    length += static_cast<size_t>(got);
  }
  close(fd);
  text[length] = '\0';
  return length != 0;
}

// The bytes in the line "<key>:   <n> kB", 0 when there is none.
uint64_t status_bytes(const char* text, const char* key) {
  const char* at = strstr(text, key);
  return at == nullptr ? 0 : strtoull(at + strlen(key), nullptr, 10) * 1024;
}

// How many cores of `set` reach 80 % of the best of them by a number in /sys; 0 when one of them has no such number.
uint32_t count_fast_cores(const cpu_set_t& set, const char* file) {
  uint64_t best = 0;
  uint32_t fast = 0;
  for (const bool counting : {false, true}) {
    for (int core = 0; core < CPU_SETSIZE; ++core) {
      if (!CPU_ISSET(core, &set)) continue;
      char path[96];
      char text[32];
      snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/%s", core, file);
      if (!read_text(path, text)) return 0;
      const uint64_t speed = strtoull(text, nullptr, 10);
      if (counting) {
        fast += speed * 5 >= best * 4 ? 1 : 0;
      } else {
        best = std::max(best, speed);
      }
    }
  }
  return best == 0 ? 0 : fast;
}

#endif

}  // namespace

ProcessMemory process_memory() {
  ProcessMemory memory{};
#if defined(__linux__)
  char text[4096];
  if (read_text("/proc/self/status", text)) {
    memory.swapped_bytes = status_bytes(text, "\nVmSwap:");
    memory.private_bytes = status_bytes(text, "\nRssAnon:") + memory.swapped_bytes;
    memory.file_bytes = status_bytes(text, "\nRssFile:");
  }
#elif defined(__APPLE__)
  task_vm_info_data_t info;
  mach_msg_type_number_t count = TASK_VM_INFO_COUNT;
  if (task_info(mach_task_self(), TASK_VM_INFO, reinterpret_cast<task_info_t>(&info), &count) == KERN_SUCCESS) {
    memory.private_bytes = info.internal + info.compressed;
    memory.swapped_bytes = info.compressed;
    memory.file_bytes = info.external;
  }
#endif
  return memory;
}

uint64_t process_pss_bytes() {
#if defined(__linux__)
  char text[2048];
  if (read_text("/proc/self/smaps_rollup", text)) return status_bytes(text, "\nPss:");
#endif
  return 0;
}

PageFaults process_page_faults() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return {static_cast<uint64_t>(usage.ru_minflt), static_cast<uint64_t>(usage.ru_majflt)};
}

uint64_t unix_ms() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000 + static_cast<uint64_t>(now.tv_nsec) / 1'000'000;
}

uint64_t monotonic_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

uint32_t fast_core_count() {
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return online_core_count();
  // The highest clock first: it tells prime and middle cores (both worth a thread) from little ones better than the
  // capacity, which sets the middle cores of recent phones below 80 % of the single prime core.
  if (const uint32_t fast = count_fast_cores(set, "cpufreq/cpuinfo_max_freq"); fast != 0) return fast;
  if (const uint32_t fast = count_fast_cores(set, "cpu_capacity"); fast != 0) return fast;
  return static_cast<uint32_t>(std::max(1, CPU_COUNT(&set)));
#elif defined(__APPLE__)
  int32_t fast = 0;
  size_t bytes = sizeof fast;
  if (sysctlbyname("hw.perflevel0.logicalcpu", &fast, &bytes, nullptr, 0) == 0 && fast > 0) {
    return static_cast<uint32_t>(fast);
  }
  return online_core_count();
#else
  return online_core_count();
#endif
}

}  // namespace lethe::os
