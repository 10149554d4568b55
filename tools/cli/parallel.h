// Independent pieces of work in a few threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace lethe::cli {

// How many threads: `asked`, or one for each core where that is 0.
uint32_t job_count(uint32_t asked);

// Calls work(0) ... work(count - 1) in `jobs` threads. The first exception ends the work and comes out of this call.
void run_parallel(uint32_t jobs, size_t count, const std::function<void(size_t)>& work);

}  // namespace lethe::cli
