// The thread pool: every task exactly once, on a thread number of its own, and nothing left running.
#include "runtime/backend/cpu/thread_pool.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

namespace lethe::cpu {
namespace {

struct Pool {
  explicit Pool(uint32_t threads) {
    Arena measuring = Arena::measuring();
    pool.lay_out(measuring, threads);
    block.reset(static_cast<uint8_t*>(std::aligned_alloc(64, measuring.used())));
    std::fill_n(block.get(), measuring.used(), uint8_t{0});
    Arena arena(block.get(), measuring.used());
    pool.lay_out(arena, threads);
    REQUIRE(arena.ok());
    CHECK(arena.used() == measuring.used());
    const Status status = pool.start();
    REQUIRE_MESSAGE(status.ok(), status.message());
  }
  ~Pool() {
    pool.stop();
    pool.stop();
  }
  struct Free {
    void operator()(uint8_t* p) const { std::free(p); }
  };
  std::unique_ptr<uint8_t, Free> block;
  ThreadPool pool;
};

struct Job {
  // Plain numbers: the pool alone orders them, which the thread sanitizer checks.
  std::vector<uint32_t> runs;
  std::atomic<uint32_t> busy[ThreadPool::kMaxThreads] = {};
  std::atomic<uint32_t> clashes{0};
  uint32_t threads = 0;

  static void task(void* context, uint32_t index, uint32_t thread) {
    Job& job = *static_cast<Job*>(context);
    if (thread >= job.threads || job.busy[thread].exchange(1) != 0) ++job.clashes;
    ++job.runs[index];
    job.busy[thread].store(0);
  }
};

TEST_CASE("thread pool: every task runs once, over very many small jobs") {
  for (uint32_t threads = 1; threads <= 8; ++threads) {
    CAPTURE(threads);
    Pool pool(threads);
    CHECK(pool.pool.threads() == threads);
    Job job;
    job.threads = threads;
    job.runs.assign(40, 0);
    std::vector<uint32_t> expected(40, 0);
    std::mt19937 random(threads);
    // More than the generations that the state word tells apart.
    const int jobs = threads == 2 ? 70'000 : 5'000;
    for (int i = 0; i < jobs; ++i) {
      const auto tasks = static_cast<uint32_t>(random() % 41);
      pool.pool.run(tasks, &Job::task, &job);
      for (uint32_t t = 0; t < tasks; ++t) ++expected[t];
      if (job.runs != expected) break;  // also sees tasks that are late
    }
    CHECK(job.runs == expected);
    CHECK(job.clashes == 0);
  }
}

TEST_CASE("thread pool: what one job wrote, the next one and the caller see") {
  Pool pool(4);
  std::vector<uint64_t> values(64, 1);
  for (int round = 0; round < 500; ++round) {
    pool.pool.run(
        64, [](void* v, uint32_t i, uint32_t) { (*static_cast<std::vector<uint64_t>*>(v))[i] += i; }, &values);
    // The neighbour's value of the job before: a race if jobs overlapped.
    std::vector<uint64_t> shifted(64);
    struct Shift {
      const std::vector<uint64_t>& from;
      std::vector<uint64_t>& to;
      static void task(void* context, uint32_t i, uint32_t) {
        const Shift& shift = *static_cast<Shift*>(context);
        shift.to[i] = shift.from[(i + 1) % 64];
      }
    } job{values, shifted};
    pool.pool.run(64, &Shift::task, &job);
    for (uint32_t i = 0; i < 64; ++i) REQUIRE(shifted[i] == values[(i + 1) % 64]);
  }
  for (uint64_t i = 0; i < 64; ++i) CHECK(values[i] == 1 + 500 * i);
}

TEST_CASE("thread pool: can be stopped at once, after sleeping, and made again") {
  for (int round = 0; round < 200; ++round) {
    Pool pool(1 + static_cast<uint32_t>(round % 8));
    if (round % 3 == 0) continue;  // stopped while its threads are still starting
    Job job;
    job.threads = 8;
    job.runs.assign(16, 0);
    pool.pool.run(16, &Job::task, &job);
    CHECK(job.runs == std::vector<uint32_t>(16, 1));
  }
}

TEST_CASE("thread pool: as many threads as it may have") {
  Pool pool(ThreadPool::kMaxThreads);
  Job job;
  job.threads = ThreadPool::kMaxThreads;
  job.runs.assign(1000, 0);
  for (int i = 0; i < 20; ++i) pool.pool.run(1000, &Job::task, &job);
  CHECK(job.runs == std::vector<uint32_t>(1000, 20));
  CHECK(job.clashes == 0);
}

}  // namespace
}  // namespace lethe::cpu
