// Counts calls of malloc (and so of operator new) while the cache works.
#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>

#include "runtime/cache/manager.h"
#include "tests/cache/pool_model.h"

namespace {

std::atomic<uint64_t> allocations{0};

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

namespace {

[[maybe_unused]] const int installed = __sanitizer_install_malloc_and_free_hooks(
    [](const volatile void*, size_t) { ++allocations; }, [](const volatile void*) {});

}  // namespace
#else
extern "C" void* __libc_malloc(size_t bytes);
extern "C" void* malloc(size_t bytes) {
  ++allocations;
  return __libc_malloc(bytes);
}
#endif

using namespace lethe;
using namespace lethe::test;

TEST_CASE("cache: steps, evictions and rollbacks allocate nothing") {
  OwnedPool owned({2, 2, 8, KvType::kInt8, 4 * 6, 2});
  alignas(64) static uint8_t scratch[4096];
  Arena arena(scratch, sizeof scratch);
  CacheManager manager;
  REQUIRE(manager.carve(arena, owned.pool, kWindowPolicy, {}).ok());

  const uint64_t before_control = allocations;
  void* volatile control = malloc(1);
  free(control);
  const uint64_t before = allocations;
  bool fine = true;
  uint32_t position = 0;
  for (uint32_t step = 0; step < 2000; ++step) {
    const uint32_t n = 1 + step % 40;
    fine = fine && manager.make_room(n).ok() && owned.pool.begin_append(n).ok();
    for (uint32_t list = 0; list < 4; ++list) {
      uint32_t blocks[40];
      owned.pool.append_blocks(list / 2, list % 2, std::span(blocks, n));
      for (uint32_t t = 0; t < n; ++t) {
        const uint32_t slot = (owned.pool.list(list / 2, list % 2).length + t) % 32;
        const uint32_t at = position + t;
        memcpy(owned.pool.block(blocks[t]) + owned.pool.layout().positions_offset + slot * 4, &at, 4);
      }
    }
    if (step % 7 == 0) {
      owned.pool.rollback_append();
    } else {
      owned.pool.commit_append();
      position += n;
    }
    fine = fine && owned.pool.check().ok();
  }
  const uint64_t after = allocations;
  CHECK(fine);
  CHECK(before == before_control + 1);  // the counter counts
  CHECK(after == before);
  CHECK(manager.stats().evictions > 100);
}
