// Shared by the tests of the NAMM scorer: random parameters and attention, a scorer and lists that own their memory,
// the way a backend shows attention, and the authors' numbers (tools/reference/namm_fixtures.py).
#pragma once

#include <doctest/doctest.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "runtime/cache/kv_pool.h"
#include "runtime/cache/namm/scorer.h"
#include "runtime/cache/namm/state.h"
#include "tests/cache/namm_reference.h"

namespace lethe::namm {

struct alignas(64) Line {
  uint8_t bytes[64];
};

inline Shape shape_of(std::vector<Input> inputs, Network network = Network::kBam, uint32_t hidden = 32) {
  Shape shape{network, hidden, {}, static_cast<uint32_t>(inputs.size())};
  std::copy(inputs.begin(), inputs.end(), shape.inputs.begin());
  return shape;
}

// Weights of `deviation`; moments of about the size of averaged attention.
inline std::vector<float> random_parameters(const Shape& shape, std::mt19937& random, float deviation) {
  std::normal_distribution<float> normal(0, deviation);
  std::uniform_real_distribution<float> uniform(0.1f, 1);
  std::vector<float> flat(shape.parameter_count());
  for (float& x : flat) x = normal(random);
  for (size_t i = shape.weight_count(); i < flat.size(); ++i) flat[i] = uniform(random) * 0.01f;
  for (size_t i = flat.size() - shape.moments(); i < flat.size(); ++i) flat[i] *= flat[i];
  return flat;
}

// Something that takes its arrays from an arena (Scorer, FoldedBam, PaddedMlp), with memory of its own.
template <typename T>
struct Carved {
  explicit Carved(const Shape& shape) {
    Arena measured = Arena::measuring();
    T{}.carve(measured, shape);
    memory.resize(measured.used() / 64);
    Arena arena(memory[0].bytes, measured.used());
    it.carve(arena, shape);
    REQUIRE(arena.ok());
    REQUIRE(arena.used() == measured.used());
  }
  std::vector<Line> memory;
  T it;
};

struct OwnedScorer : Carved<Scorer> {
  explicit OwnedScorer(const Parameters& parameters) : Carved(parameters.shape) { it.fill(parameters); }

  std::vector<double> score(const KvPoolView& pool, const KvList& list) const {
    // NaN: what is read without having been written would show. One float more: so would what is written behind.
    std::vector<float> work(Scorer::work_floats(it.shape(), list.length, pool.layout.head_dim), NAN);
    std::vector<float> scores(list.length + 1, -77.0f);
    it.score(pool, list, work, std::span(scores).first(list.length));
    CHECK(scores.back() == -77.0f);
    return {scores.begin(), scores.end() - 1};
  }
};

// [tokens][width] as the networks read it; what lies behind the last token is zero.
template <typename Number>
std::vector<float> in_blocks(const std::vector<std::vector<Number>>& rows) {
  const size_t width = rows[0].size();
  std::vector<float> out(feature_floats(rows.size(), width));
  for (size_t i = 0; i < rows.size(); ++i) {
    for (size_t k = 0; k < width; ++k) out[(i / 32 * width + k) * 32 + i % 32] = static_cast<float>(rows[i][k]);
  }
  return out;
}

// A pool of lists that grow together, and are shown attention as a backend does.
struct ObservedPool {
  ObservedPool(uint32_t parts, uint32_t heads, uint32_t most_tokens, KvType type = KvType::kF16, uint32_t head_dim = 4)
      : observer(observer_of(parts)) {
    const StateRows rows(parts);
    const KvPoolOptions options{.layers = 1,
                                .kv_heads = heads,
                                .head_dim = head_dim,
                                .type = type,
                                .block_count = (most_tokens + 31) / 32 * heads,
                                .state_bytes_per_slot = rows.bytes_per_slot(),
                                .state_rows = std::max(1u, rows.count)};
    Arena measured = Arena::measuring();
    REQUIRE(pool.carve(measured, options).ok());
    tables.resize(measured.used() / 64);
    Arena arena(tables[0].bytes, measured.used());
    REQUIRE(pool.carve(arena, options).ok());
    blocks.assign(pool.blocks_bytes() / 64, {});
    for (Line& line : blocks) std::fill_n(line.bytes, 64, uint8_t{0xff});  // stale slots hold NaN
    pool.set_blocks(blocks[0].bytes);
  }

  // A step of n tokens from `position` on. attention(head, query of the step, rank) is asked for what a query sees.
  template <typename Attention>
  void step(uint32_t position, uint32_t n, Attention attention) {
    REQUIRE(pool.begin_append(n).ok());
    for (uint32_t head = 0; head < pool.kv_heads(); ++head) {
      std::vector<uint32_t> block_of_token(n);
      pool.append_blocks(0, head, block_of_token);
      for (uint32_t t = 0; t < n; ++t) {
        uint8_t* block = pool.block(block_of_token[t]);
        const uint32_t slot = (pool.list(0, head).length + t) % 32, at = position + t;
        memcpy(block + pool.layout().positions_offset + 4 * slot, &at, 4);
      }
      show(position, n, head, attention);
    }
    pool.commit_append();
  }

  // Tiles of up to 8 queries, in ranges of 64 ranks.
  template <typename Attention>
  void show(uint32_t position, uint32_t n, uint32_t head, Attention attention) {
    const KvList list = pool.appended_list(0, head);
    const uint32_t before = list.length - n;
    for (uint32_t first = 0; first < n && observer.queries != 0; first += 8) {
      const uint32_t queries = std::min(8u, n - first), seen = before + first + queries;
      uint32_t block = list.first_block;
      for (uint32_t begin = 0; begin < seen; begin += 64) {
        const uint32_t end = std::min(seen, begin + 64);
        std::vector<float> weights(queries * 100, NAN);
        for (uint32_t q = 0; q < queries; ++q) {
          for (uint32_t rank = begin; rank < end; ++rank) {
            weights[q * 100 + rank - begin] =
                rank <= before + first + q ? static_cast<float>(attention(head, first + q, rank)) : 0.0f;
          }
        }
        observer.see({.pool = pool.view(),
                      .list = list,
                      .layer = 0,
                      .kv_head = head,
                      .first_query_rank = before + first,
                      .first_query_position = position + first,
                      .queries = queries,
                      .rank_begin = begin,
                      .rank_end = end,
                      .start_block = block,
                      .attention = weights.data(),
                      .stride = 100,
                      .last = first + queries == n});
        for (uint32_t i = 0; i < 2 && block != kNoBlock; ++i) block = pool.view().next[block];
      }
    }
  }

  void keep(uint32_t head, const std::vector<uint32_t>& ranks) {
    std::vector<uint64_t> bits((pool.list(0, head).length + 63) / 64);
    for (const uint32_t rank : ranks) bits[rank / 64] |= uint64_t{1} << rank % 64;
    REQUIRE(pool.compact(0, head, bits).ok());
  }

  std::vector<uint32_t> positions(uint32_t head) const {
    std::vector<uint32_t> out;
    const KvList list = pool.list(0, head);
    uint32_t block = list.first_block;
    for (uint32_t rank = 0; rank < list.length; ++rank) {
      if (rank != 0 && rank % 32 == 0) block = pool.view().next[block];
      out.push_back(0);
      memcpy(&out.back(), pool.block(block) + pool.layout().positions_offset + 4 * (rank % 32), 4);
    }
    return out;
  }

  Observer observer;
  KvPool pool;
  std::vector<Line> tables, blocks;
};

// Attention as softmax gives it: few large weights, many small ones, sinks.  [rank <= query]
inline std::vector<float> random_attention(std::mt19937& random, uint32_t seen) {
  std::exponential_distribution<float> draw;
  std::vector<float> out(seen);
  float sum = 0;
  for (float& x : out) sum += x = std::pow(draw(random), 3.0f);
  out[0] += sum;
  for (float& x : out) x /= 2 * sum;
  return out;
}

// Reads a file of tools/reference/namm_fixtures.py piece by piece.
class Fixture {
 public:
  explicit Fixture(const std::string& name) {
    std::ifstream file(std::string(LETHE_TEST_DATA) + "/namm/" + name, std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
    REQUIRE_FALSE(bytes_.empty());
  }
  template <typename T>
  std::vector<T> take(size_t count) {
    std::vector<T> out(count);
    REQUIRE(at_ + count * sizeof(T) <= bytes_.size());
    memcpy(out.data(), bytes_.data() + at_, count * sizeof(T));
    at_ += count * sizeof(T);
    return out;
  }
  uint32_t number() { return take<uint32_t>(1)[0]; }
  bool at_end() const { return at_ == bytes_.size(); }

 private:
  std::vector<char> bytes_;
  size_t at_ = 0;
};

}  // namespace lethe::namm
