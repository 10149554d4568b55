#include "runtime/memory/ledger.h"

#include <doctest/doctest.h>

#include <atomic>
#include <cstring>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "runtime/memory/arena.h"

using namespace lethe;

TEST_CASE("ledger: counts per tag, keeps the peak, refuses what the cap cannot hold and then counts nothing") {
  Ledger ledger(1000);
  REQUIRE(ledger.reserve(MemoryTag::kKvPool, 600).ok());
  REQUIRE(ledger.reserve(MemoryTag::kLogits, 400).ok());
  CHECK(ledger.total() == 1000);

  const Status refused = ledger.reserve(MemoryTag::kSampler, 1);
  CHECK(refused.code() == ErrorCode::kRamTooSmall);
  CHECK(std::string(refused.message()) == "1 bytes for sampler: 1000 of the cap of 1000 bytes are in use");
  CHECK(ledger.reserve(MemoryTag::kSampler, UINT64_MAX).code() == ErrorCode::kRamTooSmall);
  CHECK(ledger.used(MemoryTag::kSampler) == 0);
  CHECK(ledger.total() == 1000);

  ledger.release(MemoryTag::kKvPool, 500);
  CHECK(ledger.used(MemoryTag::kKvPool) == 100);
  CHECK(ledger.total() == 500);
  CHECK(ledger.peak() == 1000);

  CHECK(ledger.set_cap(499).code() == ErrorCode::kRamTooSmall);
  CHECK(ledger.cap() == 1000);
  REQUIRE(ledger.set_cap(500).ok());
  CHECK(ledger.reserve(MemoryTag::kModel, 1).code() == ErrorCode::kRamTooSmall);
  REQUIRE(ledger.set_cap(501).ok());
  CHECK(ledger.reserve(MemoryTag::kModel, 1).ok());
}

TEST_CASE("ledger: threads that race for the last bytes never pass the cap and lose none") {
  Ledger ledger(1000);
  std::atomic<int> granted{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 1000; ++i) {
        if (ledger.reserve(static_cast<MemoryTag>(t), 7).ok()) ++granted;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(granted == 1000 / 7);
  CHECK(ledger.total() == 1000 / 7 * 7);
  CHECK(ledger.peak() == ledger.total());
  uint64_t sum = 0;
  for (int tag = 0; tag < kMemoryTagCount; ++tag) sum += ledger.used(static_cast<MemoryTag>(tag));
  CHECK(sum == ledger.total());
}

TEST_CASE("ledger: every tag has a name of its own") {
  std::set<std::string> names;
  for (int tag = 0; tag < kMemoryTagCount; ++tag) names.insert(memory_tag_name(static_cast<MemoryTag>(tag)));
  CHECK(names.size() == kMemoryTagCount);
  CHECK(names.count("host") == 1);
  CHECK(names.count("threads") == 1);
}

TEST_CASE("arena: a measured layout takes exactly as much when carved, and the byte before that is too little") {
  struct Wide {
    double values[5];
  };
  const auto lay_out = [](Arena& arena) {
    const auto a = arena.take<uint8_t>(3);
    const auto b = arena.take<Wide>(7);
    const auto c = arena.take<uint32_t>(0);
    const auto d = arena.take<uint32_t>(16);
    return a.size() == 3 && b.size() == 7 && c.empty() && d.size() == 16;
  };
  Arena measured = Arena::measuring();
  lay_out(measured);
  CHECK(measured.used() == 64 + 320 + 0 + 64);  // 3, 7 * 40 and 64 bytes, each rounded up to 64

  alignas(64) static uint8_t block[448];
  Arena carved(block, sizeof block);
  CHECK(lay_out(carved));
  CHECK(carved.ok());
  CHECK(carved.used() == measured.used());

  Arena small(block, sizeof block - 1);
  CHECK_FALSE(lay_out(small));
  CHECK_FALSE(small.ok());
  Arena overflow = Arena::measuring();
  overflow.take<uint64_t>(UINT64_MAX / 4);
  CHECK_FALSE(overflow.ok());
}
