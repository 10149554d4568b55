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

constexpr uint32_t kHeadDim = 4, kTile = 8, kPart = 64, kSinks = 3;

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
    policy.score({view(), list, 0, 0, length, kSinks, 0, work}, out);
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

TEST_CASE("pyramidinfer: a fading average over a fifth of what a query sees") {
  for_lists(kPyramidInferPolicy, [](const ObservedList& list, const std::vector<float>& scores) {
    std::vector<double> average(list.length);
    for (uint32_t q = 0; q < list.queries; ++q) {
      const double rate = 2 / (std::max(1.0, 0.2 * (list.length - list.queries + q + 1)) + 1);
      for (uint32_t rank = 0; rank < list.length; ++rank) {
        average[rank] = average[rank] * (1 - rate) + list.weight(q, rank) * rate;
      }
    }
    for (uint32_t rank = 0; rank < list.length; ++rank) {
      REQUIRE(scores[rank] == doctest::Approx(average[rank]).epsilon(1e-5));
    }
  });
}

TEST_CASE("scissorhands: minus the fading share of queries that paid less than the mean") {
  for_lists(kScissorhandsPolicy, [](const ObservedList& list, const std::vector<float>& scores) {
    std::vector<double> low(list.length);
    for (uint32_t q = 0; q < list.queries; ++q) {
      const uint32_t seen = list.length - list.queries + q + 1;
      for (uint32_t rank = 0; rank < seen; ++rank) {
        low[rank] = low[rank] * (1 - 2.0 / 401) + (list.weight(q, rank) * seen < 1 ? 2.0 / 401 : 0);
      }
    }
    for (uint32_t rank = 0; rank < list.length; ++rank) {
      REQUIRE(scores[rank] == doctest::Approx(-low[rank]).epsilon(1e-4));
    }
  });
}

// Attention of four kinds: to the first tokens, to a few others, to the newest, and to all.
TEST_CASE("fastgen: the cheapest class of tokens that recovers the attention") {
  int chosen[4] = {};
  for (const uint32_t length : {40u, 200u, 257u}) {
    for (int kind = 0; kind < 4; ++kind) {
      ObservedList list(kFastGenPolicy, length, length);
      std::mt19937 random(length);
      for (uint32_t q = 0; q < length; ++q) {
        float* const row = &list.attention[size_t{q} * length];
        float sum = 0;
        for (uint32_t rank = 0; rank <= q; ++rank) {
          const bool is_frequent = rank % 5 == 0, is_near = q - rank < 4;
          const bool favoured = rank < kSinks || (kind == 1 && is_frequent) || (kind == 2 && is_near) || kind == 3;
          sum += row[rank] = (favoured ? 1.0f : 0.001f) * (0.5f + static_cast<float>(random() % 1000) * 1e-3f);
        }
        for (uint32_t rank = 0; rank <= q; ++rank) row[rank] /= sum;
      }
      const std::vector<float> scores = list.scores();

      std::vector<double> all(length), near(length);
      for (uint32_t q = 0; q < length; ++q) {
        const auto newest = static_cast<uint32_t>(0.3f * static_cast<float>(q + 1));
        for (uint32_t rank = 0; rank <= q; ++rank) {
          all[rank] += list.weight(q, rank);
          if (q - rank < newest) near[rank] += list.weight(q, rank);
        }
      }
      const auto share = static_cast<uint32_t>(0.3f * static_cast<float>(length));
      // Marks the best `share` of the ranks [kSinks, end).
      const auto frequent = [&](uint32_t end) {
        std::vector<uint32_t> ranks;
        for (uint32_t rank = kSinks; rank < end; ++rank) ranks.push_back(rank);
        std::sort(ranks.begin(), ranks.end(), [&](uint32_t a, uint32_t b) { return all[a] > all[b]; });
        std::vector<bool> marks(length);
        for (size_t i = 0; i < std::min<size_t>(share, ranks.size()); ++i) marks[ranks[i]] = true;
        return marks;
      };
      const std::vector<bool> any = frequent(length), older = frequent(length - share);
      double total = 0, recovered[3] = {};
      for (uint32_t rank = 0; rank < length; ++rank) {
        const bool special = rank < kSinks;
        total += all[rank];
        recovered[0] += special ? all[rank] : 0;
        recovered[1] += special || any[rank] ? all[rank] : 0;
        recovered[2] += special || older[rank] ? all[rank] : near[rank];
      }
      int choice = 0;
      while (choice < 3 && recovered[choice] < 0.95 * total) ++choice;
      ++chosen[choice];
      CAPTURE(length);
      CAPTURE(kind);
      CAPTURE(choice);
      for (uint32_t rank = kSinks; rank < length; ++rank) {
        if (choice >= 2 && rank >= length - share) {
          REQUIRE(scores[rank] == INFINITY);
        } else if (choice == 3 || (choice == 2 && older[rank]) || (choice == 1 && any[rank])) {
          REQUIRE(scores[rank] == doctest::Approx(all[rank]).epsilon(1e-5));
        } else {
          REQUIRE(scores[rank] < kFastGenPolicy.drop_below);
        }
      }
    }
  }
  for (const int count : chosen) CHECK(count == 3);
}

}  // namespace lethe
