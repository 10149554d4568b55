#include "tools/cli/process_share.h"

#include <sys/resource.h>

#include <algorithm>
#include <cstdio>

#include "runtime/os/process.h"
#include "tools/cli/terminal.h"
#include "tools/cli/units.h"

namespace lethe::cli {
namespace {

constexpr uint64_t kMiB = 1 << 20;
// The heap grows by small things (error texts, stream buffers, the template's first use of a page of data), and the
// kernel's own count lags by up to 64 pages a thread.
constexpr uint64_t kSlack = 3 * kMiB / 4;

}  // namespace

uint64_t host_bytes(uint64_t buffers) {
  const uint64_t now = kOwnsPrivateMemory ? os::process_memory().private_bytes + kSlack : kMiB;
  return (now + std::min(buffers, UINT64_MAX / 2) + kMiB - 1) / kMiB * kMiB;
}

void PrivatePeak::sample() { bytes_ = std::max(bytes_, os::process_memory().private_bytes); }

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

void write_memory(JsonWriter& json, const lethe_memory& memory) {
  json.member("cap_bytes", memory.cap_bytes)
      .member("total_bytes", memory.total_bytes)
      .member("peak_bytes", memory.peak_bytes)
      .member("minimum_ram_bytes", memory.minimum_ram_bytes)
      .member("weights_mapped_bytes", memory.weights_mapped_bytes)
      .member("cache_tokens", memory.cache_tokens)
      .member("prefill_chunk", memory.prefill_chunk)
      .member("threads", memory.threads)
      .member("policy", memory.policy);
  json.key("ledger").begin_object();
  for (int32_t tag = 0; tag < LETHE_MEMORY_TAGS; ++tag) json.member(lethe_memory_tag_name(tag), memory.tag_bytes[tag]);
  json.end_object();
}

void print_memory(const lethe_memory& memory) {
  const auto share = [&](uint64_t bytes) {
    char text[16];
    const double of = static_cast<double>(std::max<uint64_t>(memory.cap_bytes, 1));
    snprintf(text, sizeof text, "%.1f %%", 100 * static_cast<double>(bytes) / of);
    return std::string(text);
  };
  Table table({"memory", "bytes", "", "of the cap"});
  const auto row = [&](const char* name, uint64_t bytes) {
    table.row({name, with_separators(bytes), human_bytes(bytes), share(bytes)});
  };
  for (int32_t tag = 0; tag < LETHE_MEMORY_TAGS; ++tag) row(lethe_memory_tag_name(tag), memory.tag_bytes[tag]);
  row("total", memory.total_bytes);
  row("cap (--ram)", memory.cap_bytes);
  table.print();
  printf("\nweights     %s, mapped from the file beside the cap\n", human_bytes(memory.weights_mapped_bytes).c_str());
  printf("cache       %s tokens, policy %s\n", with_separators(memory.cache_tokens).c_str(), memory.policy);
  printf("prefill     %s tokens a step\n", with_separators(memory.prefill_chunk).c_str());
  printf("threads     %u\n", memory.threads);
  printf("smallest    --ram %llu (%s)\n", static_cast<unsigned long long>(memory.minimum_ram_bytes),
         human_bytes(memory.minimum_ram_bytes).c_str());
}

}  // namespace lethe::cli
