// A pool of threads for one session: splits a step into tasks.
//
// Our own rather than pthreadpool for two reasons: the threads' stacks lie in the session's block, so the ledger counts
// them to the byte; and a thread that cannot be created is an error instead of a hang. What made the newer pthreadpool
// fast on busy machines is kept: nobody waits for a worker that has not begun; the caller works on the tasks itself
// and then waits only for the workers that entered.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <span>

#include "runtime/base/status.h"
#include "runtime/memory/arena.h"

namespace lethe::cpu {

// `thread` is in 0..threads-1 and unique among tasks that run at the same time.
using Task = void (*)(void* context, uint32_t task, uint32_t thread);

class ThreadPool {
 public:
  static constexpr uint32_t kMaxThreads = 64;

  // Carves control block and stacks for `threads` (1..kMaxThreads, the caller's thread included).
  void lay_out(Arena& arena, uint32_t threads);
  // Creates the threads. On kThread none is left running.
  Status start();
  // Joins the threads; nothing may be running. Needed after start(), whatever it returned; may be called twice.
  void stop();

  // Runs task(context, 0..tasks-1, thread) once each and returns when all are done. One caller at a time.
  void run(uint32_t tasks, Task task, void* context);

  uint32_t threads() const { return threads_; }

 private:
  struct Shared;  // what the workers see
  struct Worker;
  static void* worker_main(void* worker);

  Shared* shared_ = nullptr;
  std::span<Worker> workers_;
  std::span<uint8_t> stacks_;
  uint32_t threads_ = 1;
  uint32_t started_ = 0;
};

}  // namespace lethe::cpu
