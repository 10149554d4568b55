#include "runtime/backend/cpu/thread_pool.h"

#include <csignal>

namespace lethe::cpu {
namespace {

// Deep enough for the kernels and for the C library's thread-local data; sanitizers need more.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint64_t kStackBytes = 1 << 20;
#else
constexpr uint64_t kStackBytes = 128 << 10;
#endif
constexpr uint64_t kStackAlignment = 16 << 10;

// Long enough to bridge the gap between two steps of a token, short enough not to heat an idle phone.
constexpr int kSpins = 4000;

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// The state word: a generation (upper 16 bits) that changes with every job, whether the job still takes workers, and
// how many are inside. One word, so that a worker enters only a job that is open, and the caller closes it atomically.
constexpr uint32_t kOpen = 1u << 15;
constexpr uint32_t kInsideMask = kOpen - 1;
constexpr uint32_t kGenerationStep = 1u << 16;
constexpr uint32_t generation_of(uint32_t state) { return state >> 16; }

}  // namespace

struct ThreadPool::Shared {
  alignas(64) std::atomic<uint32_t> state;
  alignas(64) std::atomic<uint32_t> next_task;
  alignas(64) Task task;
  void* context;
  uint32_t tasks;
  std::atomic<bool> stopping;

  void work(uint32_t thread) {
    for (uint32_t i = next_task.fetch_add(1, std::memory_order_relaxed); i < tasks;
         i = next_task.fetch_add(1, std::memory_order_relaxed)) {
      task(context, i, thread);
    }
  }
};

struct ThreadPool::Worker {
  pthread_t handle;
  Shared* shared;
  uint32_t thread;
};

void ThreadPool::lay_out(Arena& arena, uint32_t threads) {
  threads_ = threads;
  started_ = 0;
  const auto shared = arena.take<Shared>(1);
  workers_ = arena.take<Worker>(threads - 1);
  stacks_ = arena.take<uint8_t>(threads > 1 ? (threads - 1) * kStackBytes + kStackAlignment : 0);
  shared_ = shared.empty() ? nullptr : new (shared.data()) Shared{};
}

void* ThreadPool::worker_main(void* argument) {
  const Worker& worker = *static_cast<Worker*>(argument);
  Shared& shared = *worker.shared;
  uint32_t seen = 0;  // generation of the last job looked at
  while (true) {
    uint32_t state = shared.state.load(std::memory_order_acquire);
    for (int spin = 0; generation_of(state) == seen; ++spin) {
      if (shared.stopping.load(std::memory_order_acquire)) return nullptr;
      if (spin < kSpins) {
        pause();
      } else {
        shared.state.wait(state, std::memory_order_acquire);
      }
      state = shared.state.load(std::memory_order_acquire);
    }
    if (shared.stopping.load(std::memory_order_acquire)) return nullptr;
    seen = generation_of(state);
    bool entered = false;
    while (!entered && (state & kOpen) != 0 && generation_of(state) == seen) {
      entered = shared.state.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel);
    }
    if (!entered) continue;
    shared.work(worker.thread);
    const uint32_t before = shared.state.fetch_sub(1, std::memory_order_acq_rel);
    if ((before & (kInsideMask | kOpen)) == 1) shared.state.notify_all();
  }
}

Status ThreadPool::start() {
  pthread_attr_t attributes;
  if (threads_ == 1) return {};
  if (pthread_attr_init(&attributes) != 0) return Status::error(ErrorCode::kThread, "cannot prepare threads");
  const auto begin = (reinterpret_cast<uintptr_t>(stacks_.data()) + kStackAlignment - 1) & ~(kStackAlignment - 1);
  // The host's signal handlers are not made for these small stacks.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int error = 0;
  for (uint32_t i = 0; i + 1 < threads_ && error == 0; ++i) {
    workers_[i] = {.handle = {}, .shared = shared_, .thread = i + 1};
    error = pthread_attr_setstack(&attributes, reinterpret_cast<void*>(begin + i * kStackBytes), kStackBytes);
    if (error == 0) error = pthread_create(&workers_[i].handle, &attributes, worker_main, &workers_[i]);
    if (error == 0) ++started_;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
  if (error == 0) return {};
  const uint32_t started = started_;
  stop();
  return Status::error(ErrorCode::kThread, "cannot create thread %u of %u (error %d)", started + 2, threads_, error);
}

void ThreadPool::stop() {
  if (started_ == 0) return;
  shared_->stopping.store(true, std::memory_order_release);
  shared_->state.fetch_add(kGenerationStep, std::memory_order_acq_rel);
  shared_->state.notify_all();
  for (uint32_t i = 0; i < started_; ++i) pthread_join(workers_[i].handle, nullptr);
  started_ = 0;
}

void ThreadPool::run(uint32_t tasks, Task task, void* context) {
  if (started_ == 0 || tasks <= 1) {
    for (uint32_t i = 0; i < tasks; ++i) task(context, i, 0);
    return;
  }
  Shared& shared = *shared_;
  shared.task = task;
  shared.context = context;
  shared.tasks = tasks;
  shared.next_task.store(0, std::memory_order_relaxed);
  const uint32_t opened = ((generation_of(shared.state.load(std::memory_order_relaxed)) + 1) << 16) | kOpen;
  shared.state.store(opened, std::memory_order_release);
  shared.state.notify_all();
  shared.work(0);
  uint32_t state = shared.state.fetch_and(~kOpen, std::memory_order_acq_rel) & ~kOpen;
  for (int spin = 0; (state & kInsideMask) != 0; ++spin) {
    if (spin < kSpins) {
      pause();
    } else {
      shared.state.wait(state, std::memory_order_acquire);
    }
    state = shared.state.load(std::memory_order_acquire);
  }
}

}  // namespace lethe::cpu
