// What the tests know about the pool, written from the text of runtime/cache/kv_layout.h and not from its code: where
// each byte of a slot stands, and a naive model of the lists.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "runtime/cache/kv_pool.h"
#include "runtime/memory/arena.h"

namespace lethe::test {

// Seeded 32-bit numbers that are cheap to seed (one generator per token): splitmix64.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint32_t operator()() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return static_cast<uint32_t>(z >> 32);
  }

 private:
  uint64_t state_;
};

using Bytes = std::vector<uint8_t>;

// All bytes of one token of one list: key, value, scales, position, state.
struct Token {
  uint32_t position;
  Bytes rest;
};

// Reads and writes single slots of a block.
class SlotAccess {
 public:
  SlotAccess(KvType type, uint32_t head_dim, uint32_t state_bytes, uint32_t state_rows)
      : type_(type), head_dim_(head_dim), state_rows_(state_rows), state_element_(state_bytes / state_rows) {
    const auto next_section = [](uint32_t end) { return end % 64 == 0 ? end : end + 64 - end % 64; };
    const uint32_t quad_rows = type == KvType::kInt4 ? (head_dim + 7) / 8 : (head_dim + 3) / 4;
    values_ = next_section(type == KvType::kF16 ? 32 * head_dim * 2 : 32 * quad_rows * 4);
    uint32_t at = next_section(values_ + (type == KvType::kF16 ? 32 * head_dim * 2 : 32 * value_bytes()));
    if (type != KvType::kF16) {
      scales_ = at;
      at += 2 * 128;
    }
    positions_ = at;
    state_ = at + 128;
    block_bytes_ = next_section(state_ + 32 * state_bytes);
  }

  uint32_t block_bytes() const { return block_bytes_; }

  bool equals(const uint8_t* block, uint32_t slot, const Token& token) const {
    bool equal = memcmp(&token.position, block + positions_ + 4 * slot, 4) == 0;
    size_t i = 0;
    for_each_byte(slot, [&](uint32_t at) { equal = equal && token.rest[i] == block[at], ++i; });
    return equal;
  }

  void write(uint8_t* block, uint32_t slot, const Token& token) const {
    memcpy(block + positions_ + 4 * slot, &token.position, 4);
    size_t i = 0;
    for_each_byte(slot, [&](uint32_t at) { block[at] = token.rest[i++]; });
  }

  uint32_t rest_bytes() const {
    uint32_t count = 0;
    for_each_byte(0, [&](uint32_t) { ++count; });
    return count;
  }

  bool state_is_zero(const uint8_t* block, uint32_t slot) const {
    bool zero = true;
    for_each_state_byte(slot, [&](uint32_t at) { zero = zero && block[at] == 0; });
    return zero;
  }

 private:
  template <typename Visit>
  void for_each_state_byte(uint32_t slot, Visit visit) const {
    for (uint32_t row = 0; row < state_rows_; ++row) {  // state [rows][32][element]
      for (uint32_t b = 0; b < state_element_; ++b) visit(state_ + (row * 32 + slot) * state_element_ + b);
    }
  }

  template <typename Visit>
  void for_each_byte(uint32_t slot, Visit visit) const {
    if (type_ == KvType::kF16) {
      for (uint32_t d = 0; d < head_dim_; ++d) {
        for (uint32_t b = 0; b < 2; ++b) visit((d * 32 + slot) * 2 + b);                   // keys [head_dim][32]
        for (uint32_t b = 0; b < 2; ++b) visit(values_ + (slot * head_dim_ + d) * 2 + b);  // values [32][head_dim]
      }
    } else {
      // Keys [head_dim / 4][32][4], or two dimensions to a byte: whole rows of 4. Values [8][head_dim][4], likewise.
      const uint32_t key_bytes = type_ == KvType::kInt4 ? (head_dim_ + 7) / 8 * 4 : head_dim_;
      for (uint32_t i = 0; i < key_bytes; ++i) visit((i / 4 * 32 + slot) * 4 + i % 4);
      for (uint32_t i = 0; i < value_bytes(); ++i) visit(values_ + (slot / 4 * value_bytes() + i) * 4 + slot % 4);
    }
    if (scales_ != 0) {
      for (uint32_t i = 0; i < 4; ++i) visit(scales_ + slot * 4 + i);
      for (uint32_t i = 0; i < 4; ++i) visit(scales_ + 128 + slot * 4 + i);
    }
    for_each_state_byte(slot, visit);
  }

  // Of one slot, where values are integers.
  uint32_t value_bytes() const { return type_ == KvType::kInt8 ? head_dim_ : (head_dim_ + 1) / 2; }

  KvType type_;
  uint32_t head_dim_, state_rows_, state_element_;
  uint32_t values_ = 0, scales_ = 0, positions_ = 0, state_ = 0, block_bytes_ = 0;
};

// A pool over memory of its own.
struct OwnedPool {
  explicit OwnedPool(const KvPoolOptions& options)
      : access(options.type, options.head_dim, options.state_bytes_per_slot, options.state_rows) {
    Arena measured = Arena::measuring();
    REQUIRE(pool.carve(measured, options).ok());
    index.resize(measured.used() / 64);
    Arena carved(reinterpret_cast<uint8_t*>(index.data()), measured.used());
    REQUIRE(pool.carve(carved, options).ok());
    REQUIRE(carved.used() == measured.used());
    blocks.resize(pool.blocks_bytes() / 64);
    pool.set_blocks(reinterpret_cast<uint8_t*>(blocks.data()));
    REQUIRE(pool.blocks_bytes() == uint64_t{options.block_count} * access.block_bytes());
  }

  uint8_t* block(uint32_t index_of_block) {
    return reinterpret_cast<uint8_t*>(blocks.data()) + uint64_t{index_of_block} * access.block_bytes();
  }

  // Whether walking the list's chain finds token_at(0), token_at(1), ... and nothing else than `length` of them.
  template <typename TokenAt>
  bool list_equals(uint32_t layer, uint32_t kv_head, uint32_t length, TokenAt token_at) {
    const KvList list = pool.list(layer, kv_head);
    uint32_t at = list.first_block;
    for (uint32_t rank = 0; rank < length; ++rank) {
      if (rank != 0 && rank % 32 == 0) at = pool.view().next[at];
      if (at >= pool.block_count() || !access.equals(block(at), rank % 32, token_at(rank))) return false;
    }
    return list.length == length;
  }

  // Writes the step's tokens of one list, between begin_append and commit_append.
  void store(uint32_t layer, uint32_t kv_head, const std::vector<Token>& tokens) {
    std::vector<uint32_t> block_of_token(tokens.size());
    pool.append_blocks(layer, kv_head, block_of_token);
    bool fresh = true;
    for (size_t t = 0; t < tokens.size(); ++t) {
      if (block_of_token[t] >= pool.block_count()) FAIL("token " << t << " has no block");
      const auto slot = static_cast<uint32_t>((pool.list(layer, kv_head).length + t) % 32);
      fresh = fresh && access.state_is_zero(block(block_of_token[t]), slot);
      access.write(block(block_of_token[t]), slot, tokens[t]);
    }
    REQUIRE(fresh);
  }

  void require_sound() {
    const Status status = pool.check();
    REQUIRE_MESSAGE(status.ok(), status.message());
  }

  struct alignas(64) Line {
    uint8_t bytes[64];
  };
  SlotAccess access;
  KvPool pool;
  std::vector<Line> index, blocks;
};

inline Token random_token(Random& rng, uint32_t position, uint32_t rest_bytes) {
  Token token{position, Bytes(rest_bytes)};
  for (uint8_t& byte : token.rest) byte = static_cast<uint8_t>(rng());
  return token;
}

}  // namespace lethe::test
