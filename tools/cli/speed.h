// What the benchmarks share: time of work on several threads, and what this machine's memory can stream.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace lethe::cli {

// Of an even count the mean of the middle two; 0 of none.
double median(std::vector<double> values);

// Runs work(0), ..., work(threads - 1) at the same time, the first on the caller's thread. Returns the seconds until
// the last one is done.
double seconds_of(uint32_t threads, const std::function<void(uint32_t thread)>& work);

// Seconds of one call, the best of many samples that take `seconds` together: other work on the machine disturbs some
// of them. time(calls) makes so many calls and returns the seconds that they took.
double seconds_per_call(double seconds, const std::function<double(uint64_t calls)>& time);

// Bytes per second that `threads` threads read from memory together, at best: what a decode step is held against.
double stream_bandwidth(uint32_t threads);

}  // namespace lethe::cli
