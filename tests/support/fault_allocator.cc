#include "tests/support/fault_allocator.h"

#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <new>

namespace {

// Constant-initialised: malloc is called before any constructor runs.
constinit std::atomic<uint64_t> requests{0};
constinit std::atomic<int64_t> heap_bytes{0};
constinit std::atomic<int64_t> heap_peak{0};

constinit std::atomic<bool> armed{false};
constinit std::atomic<uint64_t> armed_requests{0};
constinit std::atomic<uint64_t> fail_first{0};
constinit std::atomic<bool> fail_on{false};

bool must_fail() {
  if (!armed.load()) return false;
  const uint64_t number = armed_requests.fetch_add(1) + 1;
  return number == fail_first.load() || (fail_on.load() && number > fail_first.load());
}

void obtained(int64_t bytes) {
  const int64_t now = heap_bytes.fetch_add(bytes) + bytes;
  int64_t highest = heap_peak.load();
  while (highest < now && !heap_peak.compare_exchange_weak(highest, now)) {
  }
}

}  // namespace

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define LETHE_TEST_SANITIZER_HEAP 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LETHE_TEST_SANITIZER_HEAP 1
#endif

#if defined(LETHE_TEST_SANITIZER_HEAP)

// Of sanitizer/allocator_interface.h, which not every compiler installs.
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void*, size_t),
                                                         void (*on_free)(const volatile void*));
extern "C" size_t __sanitizer_get_allocated_size(const volatile void* p);

namespace {

[[maybe_unused]] const int installed = __sanitizer_install_malloc_and_free_hooks(
    [](const volatile void*, size_t bytes) {
      ++requests;
      obtained(static_cast<int64_t>(bytes));
    },
    [](const volatile void* p) {
      if (p != nullptr) heap_bytes -= static_cast<int64_t>(__sanitizer_get_allocated_size(p));
    });

void* obtain(size_t bytes, size_t alignment) noexcept {
  if (must_fail()) return nullptr;
  return alignment == 0 ? malloc(bytes) : aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}
void* obtain_or_throw(size_t bytes, size_t alignment) {
  void* p = obtain(bytes, alignment);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}

}  // namespace

void* operator new(size_t bytes) { return obtain_or_throw(bytes, 0); }
void* operator new[](size_t bytes) { return obtain_or_throw(bytes, 0); }
void* operator new(size_t bytes, std::align_val_t a) { return obtain_or_throw(bytes, static_cast<size_t>(a)); }
void* operator new[](size_t bytes, std::align_val_t a) { return obtain_or_throw(bytes, static_cast<size_t>(a)); }
void* operator new(size_t bytes, const std::nothrow_t&) noexcept { return obtain(bytes, 0); }
void* operator new[](size_t bytes, const std::nothrow_t&) noexcept { return obtain(bytes, 0); }
void operator delete(void* p) noexcept { free(p); }
void operator delete[](void* p) noexcept { free(p); }
void operator delete(void* p, size_t) noexcept { free(p); }
void operator delete[](void* p, size_t) noexcept { free(p); }
void operator delete(void* p, std::align_val_t) noexcept { free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { free(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { free(p); }
void operator delete[](void* p, size_t, std::align_val_t) noexcept { free(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { free(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { free(p); }

#else

extern "C" {

void* __libc_malloc(size_t bytes);
void* __libc_calloc(size_t count, size_t bytes);
void* __libc_realloc(void* p, size_t bytes);
void* __libc_memalign(size_t alignment, size_t bytes);
void __libc_free(void* p);

static void* counted(void* p) {
  if (p != nullptr) obtained(static_cast<int64_t>(malloc_usable_size(p)));
  return p;
}
static bool refused() {
  ++requests;
  if (!must_fail()) return false;
  errno = ENOMEM;
  return true;
}

void* malloc(size_t bytes) { return refused() ? nullptr : counted(__libc_malloc(bytes)); }
void* calloc(size_t count, size_t bytes) { return refused() ? nullptr : counted(__libc_calloc(count, bytes)); }
void* realloc(void* p, size_t bytes) {
  if (refused()) return nullptr;
  const auto before = static_cast<int64_t>(malloc_usable_size(p));
  void* moved = __libc_realloc(p, bytes);
  if (moved != nullptr || bytes == 0) heap_bytes -= before;
  return counted(moved);
}
void* memalign(size_t alignment, size_t bytes) {
  return refused() ? nullptr : counted(__libc_memalign(alignment, bytes));
}
void* aligned_alloc(size_t alignment, size_t bytes) { return memalign(alignment, bytes); }
int posix_memalign(void** out, size_t alignment, size_t bytes) {
  void* p = memalign(alignment, bytes);
  if (p == nullptr) return ENOMEM;
  *out = p;
  return 0;
}
void free(void* p) {
  if (p != nullptr) heap_bytes -= static_cast<int64_t>(malloc_usable_size(p));
  __libc_free(p);
}

}  // extern "C"

#endif

namespace {

// The maps that are alive. A test that unmaps what is no map, or another size than was mapped, ends here.
class Maps {
 public:
  struct Map {
    void* address;
    size_t bytes;
    bool anonymous;
  };
  void add(const Map& map) {
    const std::lock_guard lock(mutex_);
    slot(nullptr) = map;
  }
  void remove(void* address, size_t bytes) {
    const std::lock_guard lock(mutex_);
    Map& map = slot(address);
    if (map.bytes != bytes) fail("munmap of another size than was mapped");
    map = {};
  }
  void count(lethe::test::MemoryCounts* counts) {
    const std::lock_guard lock(mutex_);
    for (const Map& map : maps_) {
      if (map.address == nullptr) continue;
      ++counts->maps;
      (map.anonymous ? counts->private_bytes : counts->file_bytes) += static_cast<int64_t>(map.bytes);
    }
  }

 private:
  [[noreturn]] static void fail(const char* what) {
    fprintf(stderr, "fault_allocator: %s\n", what);
    abort();
  }
  Map& slot(const void* address) {
    for (Map& map : maps_) {
      if (map.address == address) return map;
    }
    fail(address == nullptr ? "too many maps" : "munmap of what is no map");
  }
  std::mutex mutex_;
  Map maps_[256] = {};
};
constinit Maps maps;

}  // namespace

// The linker sends calls of mmap, munmap and pthread_create here (--wrap).
extern "C" {

void* __real_mmap(void* address, size_t bytes, int protection, int flags, int fd, off_t offset);
int __real_munmap(void* address, size_t bytes);
int __real_pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*main)(void*), void* argument);

void* __wrap_mmap(void* address, size_t bytes, int protection, int flags, int fd, off_t offset) {
  ++requests;
  if (must_fail()) {
    errno = ENOMEM;
    return MAP_FAILED;
  }
  void* p = __real_mmap(address, bytes, protection, flags, fd, offset);
  if (p != MAP_FAILED) maps.add({p, bytes, (flags & MAP_ANONYMOUS) != 0});
  return p;
}

int __wrap_munmap(void* address, size_t bytes) {
  maps.remove(address, bytes);
  return __real_munmap(address, bytes);
}

int __wrap_pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*main)(void*), void* argument) {
  ++requests;
  if (must_fail()) return EAGAIN;
#if defined(LETHE_TEST_SANITIZER_HEAP)
  // A sanitizer takes memory in the new thread before its main function: wait for that, or it could be counted as what
  // the library does afterwards.
  struct Start {
    void* (*main)(void*);
    void* argument;
    std::atomic<bool> begun;
  } start{main, argument, false};
  const auto begin = [](void* raw) {
    auto* s = static_cast<Start*>(raw);
    const Start copy{s->main, s->argument, true};
    s->begun = true;
    return copy.main(copy.argument);
  };
  const int error = __real_pthread_create(thread, attributes, begin, &start);
  while (error == 0 && !start.begun) sched_yield();
  return error;
#else
  return __real_pthread_create(thread, attributes, main, argument);
#endif
}

}  // extern "C"

namespace lethe::test {

MemoryCounts memory_counts() {
  MemoryCounts counts{requests, heap_bytes, heap_peak, 0, 0, 0};
  maps.count(&counts);
  return counts;
}

void start_heap_peak() { heap_peak = heap_bytes.load(); }

FaultScope::FaultScope(uint64_t first, bool persistent) {
  armed_requests = 0;
  fail_first = first;
  fail_on = persistent;
  armed = true;
}

FaultScope::~FaultScope() { armed = false; }

bool FaultScope::struck() const { return armed_requests >= fail_first; }

}  // namespace lethe::test
