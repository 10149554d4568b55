// Policies that are shown attention: their scores against the formulas, over a matrix of attention that is shown in
// tiles of queries and ranges of ranks as a backend would.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "runtime/cache/policy.h"

namespace lethe {
namespace {

constexpr uint32_t kHeadDim = 4, kTile = 8, kPart = 64;

// One list in scattered blocks, and the attention [queries][length] that its tokens get: query q sees the ranks up to
// (length - queries + q).
struct ObservedList {
  ObservedList(const Policy& shown, uint32_t tokens, uint32_t query_count)
      : policy(shown), length(tokens), queries(query_count), attention(size_t{queries} * length) {
    layout = make_kv_layout(KvType::kF16, kHeadDim, policy.state_bytes_per_slot);
    const uint32_t blocks = (length + 31) / 32;
    storage.resize(size_t{blocks} * layout.block_bytes / 64);
    for (uint32_t i = 0; i < blocks; ++i)
      next.push_back(i == 0 ? kNoBlock : i - 1);  // from the last block to the first
    list = {blocks - 1, 0, length};
    std::mt19937 random(length);
    std::exponential_distribution<float> draw;
    for (uint32_t q = 0; q < queries; ++q) {
      float* const row = &attention[size_t{q} * length];
      const uint32_t seen = length - queries + q + 1;
      std::generate_n(row, seen, [&] { return std::pow(draw(random), 3.0f); });
      float sum = 0;
      for (uint32_t i = 0; i < seen; ++i) sum += row[i];
      for (uint32_t i = 0; i < seen; ++i) row[i] /= sum;
    }
  }

  KvPoolView view() { return {layout, storage[0].bytes, next.data()}; }

  std::vector<float> scores() {
    for (uint32_t begin = 0; begin < queries; begin += kTile) {
      const uint32_t end = std::min(queries, begin + kTile);
      const uint32_t seen = length - queries + end;
      uint32_t block = list.first_block;
      for (uint32_t rank = 0; rank < seen; rank += kPart) {
        policy.observer.see({.pool = view(),
                             .list = list,
                             .layer = 0,
                             .kv_head = 0,
                             .first_query_rank = length - queries + begin,
                             .first_query_position = length - queries + begin,
                             .queries = end - begin,
                             .rank_begin = rank,
                             .rank_end = std::min(seen, rank + kPart),
                             .start_block = block,
                             .attention = &attention[size_t{begin} * length + rank],
                             .stride = length,
                             .last = end == queries});
        for (uint32_t i = 0; i < kPart / 32 && block != kNoBlock; ++i) block = next[block];
      }
    }
    std::vector<float> out(length, NAN), work(policy_work_floats(policy, length, kHeadDim));
    policy.score({view(), list, 0, 0, length, 0, work}, out);
    return out;
  }

  double weight(uint32_t query, uint32_t rank) const { return attention[size_t{query} * length + rank]; }

  struct alignas(64) Line {
    uint8_t bytes[64] = {};
  };
  const Policy& policy;
  uint32_t length, queries;
  std::vector<float> attention;
  KvLayout layout;
  std::vector<Line> storage;
  std::vector<uint32_t> next;
  KvList list;
};

template <typename Check>
void for_lists(const Policy& policy, Check check) {
  for (const uint32_t length : {1u, 31u, 33u, 200u, 257u}) {
    for (const uint32_t queries : {1u, 7u, 40u}) {
      if (queries > length) continue;
      ObservedList list(policy, length, queries);
      CAPTURE(length);
      CAPTURE(queries);
      check(list, list.scores());
    }
  }
}

}  // namespace

TEST_CASE("h2o: the sum of the attention of all queries") {
  for_lists(kH2oPolicy, [](const ObservedList& list, const std::vector<float>& scores) {
    for (uint32_t rank = 0; rank < list.length; ++rank) {
      double sum = 0;
      for (uint32_t q = 0; q < list.queries; ++q) sum += list.weight(q, rank);
      REQUIRE(scores[rank] == doctest::Approx(sum).epsilon(1e-5));
    }
  });
}

TEST_CASE("tova: the attention of the last query") {
  for_lists(kTovaPolicy, [](const ObservedList& list, const std::vector<float>& scores) {
    for (uint32_t rank = 0; rank < list.length; ++rank) {
      REQUIRE(static_cast<double>(scores[rank]) == list.weight(list.queries - 1, rank));
    }
  });
}

TEST_CASE("snapkv: a fading average of the attention") {
  for_lists(kSnapKvPolicy, [](const ObservedList& list, const std::vector<float>& scores) {
    std::vector<double> average(list.length);
    for (uint32_t rank = 0; rank < list.length; ++rank) {
      for (uint32_t q = 0; q < list.queries; ++q) {
        average[rank] += list.weight(q, rank) / 32 * std::pow(31.0 / 32, list.queries - 1 - q);
      }
    }
    for (uint32_t rank = 0; rank < list.length; ++rank) {
      REQUIRE(scores[rank] == doctest::Approx(average[rank]).epsilon(1e-5));
    }
  });
}

}  // namespace lethe
