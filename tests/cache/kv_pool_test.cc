#include "runtime/cache/kv_pool.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "tests/cache/pool_model.h"

using namespace lethe;
using namespace lethe::test;

namespace {

using Lists = std::vector<std::vector<Token>>;  // [layers * kv_heads]

uint32_t blocks_of(const Lists& lists, uint32_t more = 0) {
  uint32_t blocks = 0;
  for (const auto& list : lists) blocks += static_cast<uint32_t>((list.size() + more + 31) / 32);
  return blocks;
}

void require_equal(OwnedPool& owned, const Lists& model) {
  owned.require_sound();
  REQUIRE(owned.pool.free_blocks() == owned.pool.block_count() - blocks_of(model));
  for (uint32_t i = 0; i < model.size(); ++i) {
    const uint32_t layer = i / owned.pool.kv_heads();
    const uint32_t kv_head = i % owned.pool.kv_heads();
    REQUIRE(owned.list_equals(layer, kv_head, static_cast<uint32_t>(model[i].size()),
                              [&](uint32_t rank) -> const Token& { return model[i][rank]; }));
  }
}

// A mask for `length` tokens: thin, thick, of long runs, all or nothing; bits behind the end are noise.
std::vector<uint64_t> random_mask(Random& rng, size_t length) {
  std::vector<uint64_t> mask((length + 63) / 64);
  const uint32_t kind = rng() % 6;
  bool keep = rng() % 2 == 0;
  for (size_t rank = 0; rank < mask.size() * 64; ++rank) {
    if (kind == 0) keep = rng() % 10 == 0;
    if (kind == 1) keep = rng() % 10 != 0;
    if (kind == 2 && rng() % 40 == 0) keep = !keep;
    if (kind == 3 && rank % 32 == 0) keep = rng() % 2 == 0;
    if (kind == 4) keep = rank < 4 || rank >= 36;
    mask[rank / 64] |= uint64_t{keep} << rank % 64;
  }
  return mask;
}

}  // namespace

TEST_CASE("pool: random appends, rollbacks, compactions and truncations equal a naive model, byte for byte") {
  Random rng(3);
  const KvPoolOptions shapes[] = {
      {2, 3, 5, KvType::kF16, 60, 0},
      {2, 3, 5, KvType::kInt8, 60, 0},
      {1, 1, 64, KvType::kInt8, 20, 3},
      {3, 2, 33, KvType::kInt8, 70, 8},
      {1, 4, 1, KvType::kF16, 41, 1},
      {1, 2, 128, KvType::kF16, 11, 0},
      {2, 2, 8, KvType::kF16, 60, 98, 0, false, 49},
      {1, 3, 6, KvType::kInt8, 50, 12, 0, false, 3},
      {2, 3, 5, KvType::kInt4, 60, 0},
      {1, 2, 33, KvType::kInt8k4v, 40, 3},
      {1, 1, 80, KvType::kInt4, 14, 8},
  };
  for (const KvPoolOptions& shape : shapes) {
    OwnedPool owned(shape);
    KvPool& pool = owned.pool;
    Lists model(shape.layers * shape.kv_heads);
    uint32_t position = 0;
    int refused = 0;
    int rolled_back = 0;
    CAPTURE(shape.head_dim);
    for (int round = 0; round < 400; ++round) {
      CAPTURE(round);
      const uint32_t layer = rng() % shape.layers;
      const uint32_t kv_head = rng() % shape.kv_heads;
      std::vector<Token>& one = model[layer * shape.kv_heads + kv_head];
      const uint32_t action = rng() % 100;
      if (action < 60) {
        const uint32_t n = 1 + (rng() % 3 == 0 ? rng() % 250 : rng() % 8);
        const uint32_t needed = blocks_of(model, n) - blocks_of(model);
        REQUIRE(pool.blocks_needed(n) == needed);
        const Status begun = pool.begin_append(n);
        if (needed > shape.block_count - blocks_of(model)) {
          REQUIRE(begun.code() == ErrorCode::kKvFull);
          ++refused;
        } else {
          REQUIRE(begun.ok());
          Lists added(model.size());
          for (uint32_t i = 0; i < model.size(); ++i) {
            for (uint32_t t = 0; t < n; ++t) {
              added[i].push_back(random_token(rng, position + t, owned.access.rest_bytes()));
            }
            owned.store(i / shape.kv_heads, i % shape.kv_heads, added[i]);
          }
          owned.require_sound();
          const KvList before = pool.list(layer, kv_head);
          const KvList during = pool.appended_list(layer, kv_head);
          REQUIRE(before.length == one.size());
          REQUIRE(during.length == one.size() + n);
          REQUIRE(pool.query_delta(layer, kv_head, position) == position - one.size());
          REQUIRE(pool.begin_append(1).code() == ErrorCode::kInternal);
          REQUIRE(pool.truncate(layer, kv_head, 0).code() == ErrorCode::kInternal);
          position += n;
          if (rng() % 4 == 0) {
            pool.rollback_append();
            ++rolled_back;
          } else {
            pool.commit_append();
            for (uint32_t i = 0; i < model.size(); ++i)
              model[i].insert(model[i].end(), added[i].begin(), added[i].end());
            const KvList after = pool.list(layer, kv_head);
            REQUIRE(after.first_block == during.first_block);
            REQUIRE(after.last_block == during.last_block);
            REQUIRE(after.length == during.length);
          }
        }
      } else if (action < 92) {
        const std::vector<uint64_t> mask = random_mask(rng, one.size());
        REQUIRE(pool.compact(layer, kv_head, mask).ok());
        std::vector<Token> kept;
        for (size_t rank = 0; rank < one.size(); ++rank) {
          if ((mask[rank / 64] >> rank % 64 & 1) != 0) kept.push_back(one[rank]);
        }
        one = kept;
      } else if (action < 99) {
        const auto length = static_cast<uint32_t>(rng() % (one.size() + 1));
        REQUIRE(pool.truncate(layer, kv_head, length).ok());
        one.resize(length);
        REQUIRE(pool.truncate(layer, kv_head, length + 1).code() == ErrorCode::kInternal);
      } else {
        pool.clear();
        for (auto& list : model) list.clear();
      }
      require_equal(owned, model);
    }
    CHECK(refused > 0);
    CHECK(rolled_back > 3);
  }
}

TEST_CASE("pool: dropping whole blocks behind the sinks moves only what shares a block with them") {
  OwnedPool owned({1, 1, 8, KvType::kF16, 40, 0});
  Random rng(4);
  REQUIRE(owned.pool.begin_append(1000).ok());
  std::vector<Token> tokens;
  for (uint32_t t = 0; t < 1000; ++t) tokens.push_back(random_token(rng, t, owned.access.rest_bytes()));
  owned.store(0, 0, tokens);
  owned.pool.commit_append();
  // Blocks 6, 7, ... of the chain keep their place in memory when ranks 4 to 163 (5 blocks) go.
  std::vector<uint32_t> chain;
  for (uint32_t at = owned.pool.list(0, 0).first_block; at != kNoBlock; at = owned.pool.view().next[at]) {
    chain.push_back(at);
  }
  std::vector<uint64_t> mask(16, UINT64_MAX);
  for (uint32_t rank = 4; rank < 164; ++rank) mask[rank / 64] &= ~(uint64_t{1} << rank % 64);
  REQUIRE(owned.pool.compact(0, 0, mask).ok());
  tokens.erase(tokens.begin() + 4, tokens.begin() + 164);
  require_equal(owned, {tokens});
  std::vector<uint32_t> after;
  for (uint32_t at = owned.pool.list(0, 0).first_block; at != kNoBlock; at = owned.pool.view().next[at]) {
    after.push_back(at);
  }
  std::vector<uint32_t> expected = {chain[0]};
  expected.insert(expected.end(), chain.begin() + 6, chain.end());
  CHECK(after == expected);
}

TEST_CASE("pool: a refused append leaves everything as it was and says the numbers") {
  OwnedPool owned({2, 2, 4, KvType::kInt8, 10, 0});
  REQUIRE(owned.pool.begin_append(40).ok());
  for (uint32_t i = 0; i < 4; ++i) {
    std::vector<Token> tokens;
    for (uint32_t t = 0; t < 40; ++t) tokens.push_back({t, Bytes(owned.access.rest_bytes(), static_cast<uint8_t>(i))});
    owned.store(i / 2, i % 2, tokens);
  }
  owned.pool.commit_append();
  const auto index_bytes = [&] {
    const auto* bytes = reinterpret_cast<const uint8_t*>(owned.index.data());
    return std::vector<uint8_t>(bytes, bytes + owned.index.size() * 64);
  };
  const std::vector<uint8_t> before = index_bytes();
  const Status status = owned.pool.begin_append(30);
  CHECK(status.code() == ErrorCode::kKvFull);
  CHECK(std::string(status.message()) ==
        "the cache is full: it holds 40 of 64 tokens; 30 more need 4 blocks, 2 of 10 are free");
  CHECK(before == index_bytes());
  CHECK(owned.pool.free_blocks() == 2);
  REQUIRE(owned.pool.begin_append(24).ok());  // the last slots of the blocks there are
  owned.pool.rollback_append();
  owned.require_sound();
}

TEST_CASE("pool: lists written block by block into a file come back in a fresh pool, without dropped tokens' bytes") {
  Random rng(5);
  const KvPoolOptions shape{2, 2, 6, KvType::kInt8, 30, 4, 0, false, 2};
  OwnedPool from(shape);
  REQUIRE(from.pool.begin_append(100).ok());
  Lists model(4);
  for (uint32_t i = 0; i < 4; ++i) {
    for (uint32_t t = 0; t < 100; ++t) model[i].push_back(random_token(rng, t, from.access.rest_bytes()));
    from.store(i / 2, i % 2, model[i]);
  }
  from.pool.commit_append();
  const std::vector<uint64_t> odd(2, 0xaaaaaaaaaaaaaaaau);
  REQUIRE(from.pool.compact(0, 1, odd).ok());
  REQUIRE(from.pool.truncate(1, 0, 33).ok());
  REQUIRE(from.pool.truncate(1, 1, 0).ok());
  for (uint32_t rank = 0; rank < 50; ++rank) model[1][rank] = model[1][2 * rank + 1];
  model[1].resize(50);
  model[2].resize(33);
  model[3].clear();

  from.pool.wipe_stale_slots();
  std::vector<uint8_t> file;
  for (uint32_t i = 0; i < 4; ++i) {
    const KvList& list = from.pool.list(i / 2, i % 2);
    for (uint32_t at = list.first_block; at != kNoBlock; at = from.pool.view().next[at]) {
      file.insert(file.end(), from.pool.block(at), from.pool.block(at) + from.pool.layout().block_bytes);
      if (at != list.last_block) continue;
      for (uint32_t slot = list.length % 32; slot != 0 && slot < 32; ++slot) {
        CHECK(from.access.equals(from.pool.block(at), slot, {0, Bytes(from.access.rest_bytes())}));
      }
    }
  }

  OwnedPool to(shape);
  size_t at_byte = 0;
  for (uint32_t i = 0; i < 4; ++i) {
    REQUIRE(to.pool.restore(i / 2, i % 2, static_cast<uint32_t>(model[i].size())).ok());
    for (uint32_t at = to.pool.list(i / 2, i % 2).first_block; at != kNoBlock; at = to.pool.view().next[at]) {
      memcpy(to.pool.block(at), file.data() + at_byte, to.pool.layout().block_bytes);
      at_byte += to.pool.layout().block_bytes;
    }
  }
  CHECK(at_byte == file.size());
  require_equal(to, model);
  CHECK(to.pool.restore(0, 0, 1).code() == ErrorCode::kInternal);
  CHECK(to.pool.restore(1, 1, 32 * 30).code() == ErrorCode::kKvFull);
  CHECK(to.pool.restore(1, 1, UINT32_MAX).code() == ErrorCode::kKvFull);
  require_equal(to, model);
}

TEST_CASE("pool: check finds shared, lost and looping blocks and positions out of order") {
  const auto broken = [](void (*damage)(OwnedPool&, uint32_t* next)) {
    OwnedPool owned({1, 2, 4, KvType::kF16, 10, 0});
    REQUIRE(owned.pool.begin_append(70).ok());
    for (uint32_t head = 0; head < 2; ++head) {
      std::vector<Token> tokens;
      for (uint32_t t = 0; t < 70; ++t) tokens.push_back({t, Bytes(owned.access.rest_bytes())});
      owned.store(0, head, tokens);
    }
    owned.pool.commit_append();
    owned.require_sound();
    damage(owned, const_cast<uint32_t*>(owned.pool.view().next));
    const Status status = owned.pool.check();
    CHECK((status.ok() || status.code() == ErrorCode::kInternal));
    return !status.ok();
  };
  CHECK_FALSE(broken([](OwnedPool&, uint32_t*) {}));
  // The second list's first block leads into the first list's second block.
  CHECK(broken([](OwnedPool& o, uint32_t* next) {
    next[o.pool.list(0, 1).first_block] = next[o.pool.list(0, 0).first_block];
    const_cast<KvList&>(o.pool.list(0, 1)).last_block = o.pool.list(0, 0).last_block;
  }));
  CHECK(
      broken([](OwnedPool& o, uint32_t* next) { next[o.pool.list(0, 0).last_block] = o.pool.list(0, 0).first_block; }));
  CHECK(broken([](OwnedPool& o, uint32_t* next) { next[o.pool.list(0, 0).first_block] = kNoBlock; }));
  CHECK(broken([](OwnedPool& o, uint32_t* next) { next[o.pool.list(0, 0).first_block] = 10; }));
  CHECK(broken([](OwnedPool& o, uint32_t*) { const_cast<KvList&>(o.pool.list(0, 0)).length = 64; }));
  CHECK(broken([](OwnedPool&, uint32_t* next) { next[9] = 8; }));         // the free chain loops
  CHECK(broken([](OwnedPool&, uint32_t* next) { next[8] = kNoBlock; }));  // a free block is lost
  CHECK(broken([](OwnedPool& o, uint32_t* next) { next[8] = o.pool.list(0, 1).last_block; }));
  CHECK(broken([](OwnedPool& o, uint32_t*) {
    o.access.write(o.block(o.pool.list(0, 1).last_block), 0, {63, Bytes(o.access.rest_bytes())});
  }));
}

TEST_CASE("pool: capacity arithmetic and impossible sizes") {
  CHECK(kv_blocks_for(0, 6) == 0);
  CHECK(kv_blocks_for(1, 6) == 6);
  CHECK(kv_blocks_for(32, 6) == 6);
  CHECK(kv_blocks_for(33, 6) == 12);
  CHECK(kv_token_capacity(11, 6) == 32);
  CHECK(kv_token_capacity(12, 6) == 64);
  CHECK(kv_token_capacity(5, 6) == 0);

  const auto code = [](const KvPoolOptions& options) {
    KvPool pool;
    Arena arena = Arena::measuring();
    return pool.carve(arena, options).code();
  };
  CHECK(code({1, 1, 1, KvType::kF16, 0}) == ErrorCode::kOk);
  CHECK(code({kMaxBlocks, 1, kMaxKvHeadDim, KvType::kF16, kMaxBlocks, kMaxStateBytes}) == ErrorCode::kOk);
  CHECK(code({0, 1, 1, KvType::kF16, 1}) == ErrorCode::kInvalidArgument);
  CHECK(code({1, 0, 1, KvType::kF16, 1}) == ErrorCode::kInvalidArgument);
  CHECK(code({1, 1, 0, KvType::kF16, 1}) == ErrorCode::kInvalidArgument);
  CHECK(code({1, 1, kMaxKvHeadDim + 1, KvType::kF16, 1}) == ErrorCode::kInvalidArgument);
  CHECK(code({1, 1, 1, KvType::kF16, kMaxBlocks + 1}) == ErrorCode::kInvalidArgument);
  CHECK(code({1u << 16, 1u << 16, 1, KvType::kF16, 1}) == ErrorCode::kInvalidArgument);
  CHECK(code({1, 1, 1, KvType::kF16, 1, kMaxStateBytes + 1}) == ErrorCode::kInvalidArgument);
  CHECK(code({1, 1, 1, KvType::kF16, 1, 98, 0, false, 4}) == ErrorCode::kInvalidArgument);
  CHECK(code({1, 1, 1, KvType::kF16, 1, 98, 0, false, 0}) == ErrorCode::kInvalidArgument);
  alignas(64) uint8_t small[64];
  Arena arena(small, sizeof small);
  KvPool pool;
  CHECK(pool.carve(arena, {1, 1, 1, KvType::kF16, 32}).code() == ErrorCode::kInternal);
}
