#include "tools/cli/speed.h"

#include <algorithm>
#include <thread>

#include "runtime/os/pages.h"
#include "runtime/os/process.h"
#include "tools/cli/failure.h"

namespace lethe::cli {
namespace {

constexpr uint64_t kStreamBytes = 256 << 20;  // far beyond any cache
constexpr int kSamples = 20;                  // of which the best counts

}  // namespace

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

double seconds_of(uint32_t threads, const std::function<void(uint32_t thread)>& work) {
  const uint64_t begin_ns = os::monotonic_ns();
  std::vector<std::thread> others;
  for (uint32_t thread = 1; thread < threads; ++thread) others.emplace_back(work, thread);
  work(0);
  for (std::thread& other : others) other.join();
  return static_cast<double>(os::monotonic_ns() - begin_ns) * 1e-9;
}

double seconds_per_call(double seconds, const std::function<double(uint64_t calls)>& time) {
  const double sample = seconds / kSamples;
  uint64_t calls = 1;
  time(calls);  // misses and page faults of the first one count for nothing
  double took = time(calls);
  for (; took < sample / 4; took = time(calls)) calls *= 2;
  calls = std::max<uint64_t>(1, static_cast<uint64_t>(static_cast<double>(calls) * sample / took));
  double best = time(calls);
  for (int i = 1; i < kSamples; ++i) best = std::min(best, time(calls));
  return best / static_cast<double>(calls);
}

double stream_bandwidth(uint32_t threads) {
  const auto mapped = os::map_pages(kStreamBytes);
  check(mapped.status());
  uint8_t* const buffer = mapped.value();
  std::fill_n(buffer, kStreamBytes, uint8_t{1});
  double best = 0;
  std::vector<uint64_t> sums(threads);
  const auto read = [&](uint32_t thread) {
    const auto* words = reinterpret_cast<const uint64_t*>(buffer);
    const uint64_t count = kStreamBytes / sizeof(uint64_t);
    uint64_t sum[8] = {};  // eight chains, which compilers turn into vectors
    for (uint64_t i = count * thread / threads / 8 * 8; i + 8 <= count * (thread + 1) / threads; i += 8) {
      for (uint64_t lane = 0; lane < 8; ++lane) sum[lane] += words[i + lane];
    }
    for (const uint64_t lane : sum) sums[thread] += lane;
  };
  for (int run = 0; run < kSamples; ++run) {
    best = std::max(best, static_cast<double>(kStreamBytes) / seconds_of(threads, read));
  }
  uint64_t total = 0;
  for (const uint64_t sum : sums) total += sum;
  os::unmap_pages(buffer, kStreamBytes);
  return total != 0 ? best : 0;  // so that the reads cannot be left out
}

}  // namespace lethe::cli
