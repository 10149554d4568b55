// A manager and its pool over memory of their own, whose tokens' bytes follow from list and position.
#pragma once

#include <doctest/doctest.h>

#include <vector>

#include "runtime/cache/manager.h"
#include "tests/cache/pool_model.h"

namespace lethe::test {

struct OwnedManager {
  OwnedManager(const KvPoolOptions& shape, const Policy& policy, const CacheOptions& options = {}) : owned(shape) {
    Arena measured = Arena::measuring();
    REQUIRE(manager.carve(measured, owned.pool, policy, options).ok());
    scratch.resize(measured.used() / 64);
    Arena carved(reinterpret_cast<uint8_t*>(scratch.data()), measured.used());
    REQUIRE(manager.carve(carved, owned.pool, policy, options).ok());
  }

  // One step; the token's bytes follow from its list and position.
  Status step(uint32_t n) {
    LETHE_RETURN_IF_ERROR(manager.make_room(n, position));
    LETHE_RETURN_IF_ERROR(owned.pool.begin_append(n));
    for (uint32_t i = 0; i < owned.pool.list_count(); ++i) {
      std::vector<Token> tokens;
      for (uint32_t t = 0; t < n; ++t) tokens.push_back(token_of(i, position + t));
      owned.store(i / owned.pool.kv_heads(), i % owned.pool.kv_heads(), tokens);
    }
    owned.pool.commit_append();
    position += n;
    return {};
  }

  // Of f16 caches every element is a finite number: its upper byte (keys and values alternate) has no full exponent.
  Token token_of(uint32_t list, uint32_t at) const {
    Random rng(uint64_t{list} << 32 | at);
    Token token = random_token(rng, at, owned.access.rest_bytes());
    if (owned.pool.layout().type == KvType::kF16) {
      for (size_t i = 1; i < 4 * owned.pool.layout().head_dim; i += 2) token.rest[i] &= 0xbf;
    }
    return token;
  }

  // Every list holds the first `sinks` tokens and the newest others.
  void require_window(uint32_t sinks) {
    owned.require_sound();
    for (uint32_t i = 0; i < owned.pool.list_count(); ++i) {
      const uint32_t length = owned.pool.longest();
      REQUIRE(owned.list_equals(i / owned.pool.kv_heads(), i % owned.pool.kv_heads(), length, [&](uint32_t rank) {
        return token_of(i, rank < sinks ? rank : position - length + rank);
      }));
    }
  }

  OwnedPool owned;
  CacheManager manager;
  std::vector<OwnedPool::Line> scratch;
  uint32_t position = 0;
};

}  // namespace lethe::test
