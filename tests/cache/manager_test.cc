#include "runtime/cache/manager.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "tests/cache/owned_manager.h"

using namespace lethe;
using namespace lethe::test;

TEST_CASE("manager: a window holds exactly the sinks and the newest tokens over 100,000 tokens") {
  Random rng(6);
  OwnedManager m({2, 2, 3, KvType::kInt8, 4 * 8 + 3, 0}, kWindowPolicy);
  const uint32_t capacity = 8 * 32;
  REQUIRE(m.owned.pool.token_capacity() == capacity);
  uint32_t steps = 0;
  while (m.position < 100'000) {
    const uint32_t n = 1 + rng() % (rng() % 5 == 0 ? 100u : 6u);
    const uint32_t before = m.owned.pool.longest();
    const uint64_t evictions = m.manager.stats().evictions;
    const Status status = m.step(n);
    REQUIRE_MESSAGE(status.ok(), status.message());
    REQUIRE(m.owned.pool.longest() <= capacity);
    if (before + n <= capacity) {
      REQUIRE(m.manager.stats().evictions == evictions);  // never earlier than needed
      REQUIRE(m.owned.pool.longest() == before + n);
    } else {
      REQUIRE(m.manager.stats().evictions == evictions + 1);
      // At most 7/8 stay, no more than fits, less than a block below that.
      const uint32_t allowed = std::min(capacity * 7 / 8, capacity - n);
      REQUIRE(m.manager.stats().last_length <= allowed);
      REQUIRE(m.manager.stats().last_length + 32 > allowed);
    }
    if (++steps % 50 == 0) m.require_window(4);
    REQUIRE(m.owned.pool.check().ok());
    REQUIRE(m.manager.stats().evicted_tokens == m.position - m.owned.pool.longest());
  }
  m.require_window(4);
  CHECK(m.manager.stats().evictions > 1000);
  CHECK(m.manager.stats().eviction_ns > 0);
  m.manager.clear();
  CHECK(m.manager.stats().evictions == 0);
  CHECK(m.manager.stats().evicted_tokens == 0);
}

// Layer 0 sees all, layer 1 a window of 40, layer 2 one that the pool cannot hold.
TEST_CASE("manager: a layer with a window keeps what its queries see, and no more") {
  Random rng(8);
  const Sight sights[] = {{}, {.window = 40}, {.window = 5000}};
  const uint32_t step = 20, capacity = 320;
  const uint32_t local_blocks = kv_window_blocks({.window = 40}, step);
  REQUIRE(local_blocks == 3);  // 39 before the step, up to 31 on their way out, 20 new
  OwnedManager m({3, 1, 2, KvType::kF16, 2 * capacity / 32 + local_blocks, 0, capacity}, kWindowPolicy,
                 {.sinks = 4, .sights = sights, .longest_step = step});
  CHECK(m.manager.endless());
  const KvPool& pool = m.owned.pool;
  bool evicted = false;
  while (m.position < 10'000) {
    const uint32_t n = 1 + rng() % step;
    const uint64_t evictions = m.manager.stats().evictions;
    REQUIRE(m.step(n).ok());
    REQUIRE(pool.check().ok());
    const uint32_t local = pool.list(1, 0).length, global = pool.list(0, 0).length;
    REQUIRE(pool.list(2, 0).length == global);
    REQUIRE(local <= 39 + 31 + n);
    REQUIRE(local >= std::min(m.position, 39 + n));  // all that the step's first query may see
    REQUIRE(m.owned.list_equals(1, 0, local, [&](uint32_t rank) { return m.token_of(1, m.position - local + rank); }));
    evicted = evicted || m.manager.stats().evictions > evictions;
    if (!evicted) REQUIRE(global == m.position);
    REQUIRE(m.owned.list_equals(
        0, 0, global, [&](uint32_t rank) { return m.token_of(0, rank < 4 ? rank : m.position - global + rank); }));
  }
  CHECK(evicted);
}

// Two layers of two KV heads: one head of each sees its first and its last tokens, the others everything.
TEST_CASE("manager: KV heads with a window keep their first and last tokens, and do not compete") {
  const Sight sights[] = {{}, {.sinks = 5, .window = 40}, {.sinks = 0, .window = 70}, {}};
  const uint32_t step = 20, capacity = 320;
  for (const Budget budget : {Budget::kList, Budget::kPyramid, Budget::kLayer, Budget::kGlobal}) {
    CAPTURE(static_cast<int>(budget));
    Random rng(11);
    const uint32_t windows = kv_window_blocks(sights[1], step) + kv_window_blocks(sights[2], step);
    // Newer tokens are worth less, those of KV head 0 least of all.
    const Policy policy{.name = "old", .score = [](const ScoreArgs& args, std::span<float> scores) {
                          for (size_t i = 0; i < scores.size(); ++i) {
                            scores[i] = -static_cast<float>(i) - (args.kv_head == 0 ? 1000.0f : 0.0f);
                          }
                        }};
    OwnedManager m(
        {2, 2, 2, KvType::kF16, 2 * capacity / 32 + windows, 0, longest_list(budget, capacity)}, policy,
        {.sinks = 4, .retention = {.recent_percent = 30, .budget = budget}, .sights = sights, .longest_step = step});
    const KvPool& pool = m.owned.pool;
    uint32_t longest = 0;
    while (m.position < 5'000) {
      const uint32_t n = 1 + rng() % step;
      REQUIRE(m.step(n).ok());
      REQUIRE(pool.check().ok());
      for (const uint32_t index : {1u, 2u}) {
        const auto [sinks, window] = sights[index];
        const uint32_t length = pool.list(index / 2, index % 2).length;
        REQUIRE(length <= sinks + window - 1 + 31 + n);
        REQUIRE(length >= std::min(m.position, sinks + window - 1 + n));
        REQUIRE(m.owned.list_equals(index / 2, index % 2, length, [&](uint32_t rank) {
          return m.token_of(index, rank < sinks ? rank : m.position - length + rank);
        }));
      }
      longest = std::max(longest, pool.longest());
    }
    CHECK(m.manager.stats().evictions > 50);
    CHECK(longest > capacity * 7 / 8);  // the others have the rest of the pool for themselves
    const uint32_t first = pool.list(0, 0).length, second = pool.list(1, 1).length;
    CHECK((budget == Budget::kGlobal || budget == Budget::kPyramid) == (first != second));
  }
}

// A policy whose scores the test knows: the last digits of the position, so that old tokens can be worth most.
TEST_CASE("manager: sinks, the newest, and of the others the highest scores stay, the newer of equals") {
  static constexpr auto score_of = [](uint32_t position) { return static_cast<float>(position * 37 % 50); };
  const Policy policy{.name = "digits", .score = [](const ScoreArgs& args, std::span<float> scores) {
                        uint32_t block = args.list.first_block;
                        for (uint32_t rank = 0; rank < args.list.length; ++rank) {
                          if (rank != 0 && rank % 32 == 0) block = args.pool.next[block];
                          uint32_t position;
                          memcpy(&position,
                                 args.pool.blocks + uint64_t{block} * args.pool.layout.block_bytes +
                                     args.pool.layout.positions_offset + rank % 32 * 4,
                                 4);
                          scores[rank] = position % 11 == 0 ? NAN : score_of(position);
                        }
                      }};
  for (const uint32_t recent : {0u, 25u, 50u, 99u}) {
    CAPTURE(recent);
    OwnedManager m({2, 1, 3, KvType::kF16, 2 * 8, 0}, policy, {.sinks = 4, .retention = {.recent_percent = recent}});
    std::vector<uint32_t> kept;  // the same in both lists
    while (m.position < 3000) {
      const uint32_t n = 1 + m.position % 40;
      if (kept.size() + n > 256) {
        const uint32_t target = std::min(256u * 7 / 8, 256 - n), newest = (target - 4) * recent / 100;
        std::vector<uint32_t> others(kept.begin() + 4, kept.end() - newest);
        std::sort(others.begin(), others.end(), [](uint32_t a, uint32_t b) {
          const float x = a % 11 == 0 ? -1 : score_of(a), y = b % 11 == 0 ? -1 : score_of(b);
          return x != y ? x > y : a > b;
        });
        others.resize(target - 4 - newest);
        std::sort(others.begin(), others.end());
        others.insert(others.begin(), kept.begin(), kept.begin() + 4);
        others.insert(others.end(), kept.end() - newest, kept.end());
        kept = others;
      }
      for (uint32_t t = 0; t < n; ++t) kept.push_back(m.position + t);
      REQUIRE(m.step(n).ok());
      REQUIRE(m.owned.pool.check().ok());
      for (const uint32_t layer : {0u, 1u}) {
        REQUIRE(m.owned.list_equals(layer, 0, static_cast<uint32_t>(kept.size()),
                                    [&](uint32_t rank) { return m.token_of(layer, kept[rank]); }));
      }
    }
    CHECK(m.manager.stats().evictions > 50);
  }
}

TEST_CASE("manager: with windows in all layers a conversation goes on for ever, without evictions") {
  const Sight sights[] = {{.window = 40}, {.sinks = 3, .window = 64}};
  OwnedManager m({2, 1, 2, KvType::kF16, kv_window_blocks(sights[0], 8) + kv_window_blocks(sights[1], 8), 0, 128},
                 kFullPolicy, {.sinks = 4, .sights = sights, .longest_step = 8});
  CHECK(m.manager.endless());
  while (m.position < 5'000) REQUIRE(m.step(8).ok());
  CHECK(m.manager.stats().evictions == 0);
  OwnedManager global({2, 1, 2, KvType::kF16, 8, 0}, kFullPolicy);
  CHECK_FALSE(global.manager.endless());
}

TEST_CASE("manager: a pool that shrinks and grows between steps loses only what the policy drops") {
  Random rng(9);
  const uint32_t created = 12;  // blocks per list
  OwnedManager m({2, 2, 3, KvType::kInt8, 4 * created, 0}, kWindowPolicy);
  KvPool& pool = m.owned.pool;
  uint32_t blocks = created, shrunk = 0;
  for (int i = 0; i < 1500; ++i) {
    REQUIRE(m.step(1 + rng() % 30).ok());
    if (rng() % 4 != 0) continue;
    const uint32_t wanted = 2 + rng() % (created - 1), before = pool.longest();
    shrunk += wanted < blocks ? 1 : 0;
    REQUIRE(m.manager.shrink(wanted * 32, m.position).ok());
    CHECK(pool.longest() == (before <= wanted * 32 ? before : pool.longest()));
    REQUIRE(pool.longest() <= wanted * 32);
    REQUIRE(pool.resize(4 * wanted, wanted * 32).ok());
    blocks = wanted;
    REQUIRE(pool.block_count() == 4 * wanted);
    REQUIRE(pool.token_capacity() == 32 * wanted);
    m.require_window(4);  // checks the pool, and every byte
  }
  CHECK(shrunk > 100);
  CHECK(pool.resize(4 * created + 1, 32 * created).code() == ErrorCode::kInternal);
  REQUIRE(pool.resize(4 * created, 32 * created).ok());
  REQUIRE(m.step(300).ok());
  CHECK(pool.resize(4 * 9, 288).code() == ErrorCode::kKvFull);        // too few blocks
  CHECK(pool.resize(4 * created, 288).code() == ErrorCode::kKvFull);  // too short
  m.require_window(4);

  OwnedManager full({1, 1, 2, KvType::kF16, 4, 0}, kFullPolicy);
  REQUIRE(full.step(70).ok());
  CHECK(full.manager.shrink(64, 70).code() == ErrorCode::kKvFull);
  CHECK(full.manager.shrink(96, 70).ok());
  full.require_window(70);
}

TEST_CASE("manager: window with other sinks and low-water marks, at the edges of a small pool") {
  Random rng(7);
  for (const uint32_t sinks : {0u, 1u, 4u, 31u, 32u, 40u, 63u}) {
    for (const uint32_t eighths : {1u, 4u, 8u}) {
      CAPTURE(sinks);
      CAPTURE(eighths);
      OwnedManager m({1, 2, 2, KvType::kF16, 4, 0}, kWindowPolicy, {sinks, eighths});
      CHECK(m.manager.longest_step() == 64 - sinks);
      CHECK(m.manager.make_room(64 - sinks + 1, m.position).code() == ErrorCode::kPromptTooLong);
      for (int i = 0; i < 100; ++i) {
        REQUIRE(m.step(1 + rng() % (64 - sinks)).ok());
        m.require_window(std::min(sinks, m.position));
      }
      CHECK(m.manager.stats().evictions > 0);
    }
  }
}

TEST_CASE("manager: full holds every token up to the last slot and fails exactly at the next, changing nothing") {
  for (const uint32_t n : {1u, 7u, 32u, 160u}) {
    CAPTURE(n);
    OwnedManager m({3, 2, 4, KvType::kF16, 6 * 5 + 3, 0}, kFullPolicy);  // 5 blocks per list: 160 tokens
    uint32_t taken = 0;
    Status status;
    while ((status = m.step(n)).ok()) taken += n;
    CHECK(taken == 160 / n * n);
    CHECK(status.code() == ErrorCode::kKvFull);
    const std::string sentence = status.message();
    CHECK(sentence.find(std::to_string(taken) + " tokens are cached") != std::string::npos);
    CHECK(sentence.find("160 tokens") != std::string::npos);
    CHECK(sentence.find(std::to_string(m.owned.pool.blocks_bytes()) + " bytes") != std::string::npos);
    m.require_window(taken);
    CHECK(m.manager.stats().evictions == 0);
    if (taken < 160) REQUIRE(m.step(160 - taken).ok());
    m.require_window(160);
    CHECK(m.manager.make_room(161, m.position).code() == ErrorCode::kPromptTooLong);
    CHECK(m.manager.make_room(0, m.position).ok());
  }
}

TEST_CASE("manager: a step that fails after room was made can be rolled back and repeated") {
  OwnedManager m({2, 1, 4, KvType::kInt8, 2 * 4, 0}, kWindowPolicy);
  REQUIRE(m.step(120).ok());
  REQUIRE(m.manager.make_room(20, m.position).ok());
  REQUIRE(m.owned.pool.begin_append(20).ok());
  m.owned.pool.rollback_append();
  m.require_window(4);
  REQUIRE(m.step(20).ok());
  m.require_window(4);
}

TEST_CASE("manager: impossible options") {
  OwnedManager m({1, 1, 4, KvType::kF16, 2, 0}, kFullPolicy);
  Arena arena = Arena::measuring();
  CHECK(m.manager.carve(arena, m.owned.pool, kFullPolicy, {4, 0}).code() == ErrorCode::kInvalidArgument);
  CHECK(m.manager.carve(arena, m.owned.pool, kFullPolicy, {4, 9}).code() == ErrorCode::kInvalidArgument);
  Arena none(nullptr, 0);
  CHECK(m.manager.carve(none, m.owned.pool, kFullPolicy, {}).code() == ErrorCode::kInternal);

  CHECK(m.manager.carve(arena, m.owned.pool, kFullPolicy, {.retention = {.recent_percent = 101}}).code() ==
        ErrorCode::kInvalidArgument);
}

TEST_CASE("policies: found by name, each with a name of its own") {
  CHECK(find_policy("full") == &kFullPolicy);
  CHECK(find_policy("window") == &kWindowPolicy);
  CHECK(find_policy("") == nullptr);
  CHECK(find_policy("windows") == nullptr);
  std::set<std::string> names;
  for (const Policy* policy : policies()) {
    names.insert(policy->name);
    CHECK(find_policy(policy->name) == policy);
  }
  CHECK(names.size() == policies().size());
  CHECK_FALSE(kFullPolicy.evicts);
  CHECK(kWindowPolicy.evicts);
}
