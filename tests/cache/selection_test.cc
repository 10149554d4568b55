// Which tokens stay, against a plain model of the rules that policy.h and manager.h state: sorts instead of the
// manager's radix selection, over random options, scores with ties and scores that are not numbers.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "runtime/base/half.h"
#include "runtime/cache/list_reader.h"
#include "runtime/cache/select.h"
#include "tests/cache/owned_manager.h"

using namespace lethe;
using namespace lethe::test;

namespace {

// Few different values, so that many are equal.
float score_of(uint32_t layer, uint32_t kv_head, uint32_t position) {
  Random random(uint64_t{layer} << 48 | uint64_t{kv_head} << 40 | position);
  const uint32_t draw = random() % 120;
  return draw == 0 ? NAN : static_cast<float>(draw % 60) + (layer == 1 ? 7.0f : 0.0f);
}

void score(const ScoreArgs& args, std::span<float> scores) {
  for_each_block(args.pool, args.list, [&](const uint8_t* block, uint32_t rank, uint32_t count) {
    for (uint32_t slot = 0; slot < count; ++slot) {
      scores[rank + slot] = score_of(args.layer, args.kv_head, block_positions(args.pool.layout, block)[slot]);
    }
  });
}

constexpr Policy kNumbers{.name = "numbers", .is_share = true, .score = score};

struct Candidate {
  double worth;  // infinity: stays, -infinity: goes; NaN sorts as -1
  uint32_t list, rank, newer;
};

bool better(const Candidate& a, const Candidate& b) {
  if (a.worth != b.worth) return a.worth > b.worth;
  if (a.newer != b.newer) return a.newer < b.newer;
  return a.list < b.list;
}

struct Model {
  static constexpr uint32_t kSinks = 3, kEnd = 1500;  // the conversation ends a step behind kEnd
  uint32_t layers, kv_heads, share;                   // tokens of an even share
  Policy policy;
  CacheOptions options;
  std::vector<std::vector<uint32_t>> lists;  // positions
  std::vector<TokenRange> pins;
  uint32_t intervals = 0;  // after which evictions have been
  const OwnedManager* bytes = nullptr;

  uint32_t list_count() const { return layers * kv_heads; }
  Budget budget() const { return options.retention.budget; }
  bool compete() const { return budget() == Budget::kLayer || budget() == Budget::kGlobal; }
  uint32_t most() const { return budget() == Budget::kList ? share : 2 * share; }
  uint32_t blocks() const {
    uint32_t sum = 0;
    for (const auto& list : lists) sum += (static_cast<uint32_t>(list.size()) + 31) / 32;
    return sum;
  }
  bool pinned(uint32_t position) const {
    return std::any_of(pins.begin(), pins.end(),
                       [&](TokenRange range) { return position >= range.begin && position < range.end; });
  }
  uint32_t reserved() const {
    uint32_t count = kSinks;
    for (uint32_t at = kSinks; at < kEnd + 50; ++at) count += pinned(at) ? 1 : 0;
    return count;
  }

  float value_norm(uint32_t list, uint32_t position) const {
    const Token token = bytes->token_of(list, position);
    float sum = 0;
    for (uint32_t d = 0; d < bytes->owned.pool.layout().head_dim; ++d) {
      sum += std::abs(half_to_float(static_cast<uint16_t>(token.rest[4 * d + 2] | token.rest[4 * d + 3] << 8)));
    }
    return sum;
  }

  double worth(uint32_t list, const std::vector<float>& scores, uint32_t rank, uint32_t position) const {
    const Pooling pooling = options.retention.pooling;
    const int reach = static_cast<int>(pooling.width) / 2, size = static_cast<int>(scores.size());
    float sum = 0, largest = -INFINITY;
    for (int i = std::max(0, static_cast<int>(rank) - reach); i <= std::min(size - 1, static_cast<int>(rank) + reach);
         ++i) {
      sum += scores[static_cast<size_t>(i)];
      largest = std::max(largest, scores[static_cast<size_t>(i)]);
    }
    float result = scores[rank];
    if (pooling.kind == PoolKind::kMean) result = sum / static_cast<float>(pooling.width);
    if (pooling.kind == PoolKind::kMax) result = largest;
    if (options.retention.value_norm) result *= value_norm(list, position);
    if (std::isnan(result)) return -1;
    return result < policy.drop_below && !options.retention.rectangular ? -INFINITY : static_cast<double>(result);
  }

  // Of the lists of a layer, each sorted: as many stay as pass in the one where most do.
  void make_rectangular(std::vector<std::vector<Candidate>>& layer) const {
    size_t most_passing = 0;
    for (const auto& of_list : layer) {
      size_t passing = 0;
      for (const Candidate& candidate : of_list) passing += candidate.worth >= policy.drop_below ? 1 : 0;
      most_passing = std::max(most_passing, passing);
    }
    for (auto& of_list : layer) {
      for (size_t place = most_passing; place < of_list.size(); ++place) of_list[place].worth = -INFINITY;
    }
  }

  uint32_t layer_target(uint32_t layer, uint32_t target, uint32_t recent) const {
    if (budget() != Budget::kPyramid || layers == 1) return target;
    const uint32_t stays = std::min(target, reserved() + recent), chosen = target - stays;
    const uint32_t least = chosen / 20, largest = 2 * chosen - least;
    return stays +
           static_cast<uint32_t>(std::floor(largest - static_cast<double>(layer) * (largest - least) / (layers - 1)));
  }

  void evict(uint32_t n, bool only_wishes) {
    const uint32_t room = n + (budget() == Budget::kList ? 0 : 31);
    const uint32_t target = std::max(reserved(), std::min(share * 7 / 8, share - room));
    const uint32_t longest = std::max(reserved(), std::min(most() * 7 / 8, most() - n));
    const uint32_t recent = (target - reserved()) * options.retention.recent_percent / 100;
    const bool rectangular = options.retention.rectangular;
    const uint32_t together = budget() == Budget::kGlobal                 ? list_count()
                              : budget() == Budget::kLayer || rectangular ? kv_heads
                                                                          : 1;
    for (uint32_t first = 0; first < list_count(); first += together) {
      uint32_t allowed = 0, tokens = 0;
      bool too_long = only_wishes;
      for (uint32_t i = first; i < first + together; ++i) {
        tokens += static_cast<uint32_t>(lists[i].size());
        too_long = too_long || lists[i].size() > (rectangular ? target : longest);
        allowed += layer_target(i / kv_heads, target, recent);
      }
      if (tokens <= allowed && !too_long) continue;
      std::vector<std::vector<Candidate>> rated;
      for (uint32_t i = first; i < first + together; ++i) {
        const auto size = static_cast<uint32_t>(lists[i].size()), end = size - std::min(size, recent);
        std::vector<float> scores;
        for (uint32_t rank = 0; rank < end; ++rank)
          scores.push_back(score_of(i / kv_heads, i % kv_heads, lists[i][rank]));
        std::vector<Candidate> of_list;
        for (uint32_t rank = 0; rank < size; ++rank) {
          const bool stays = rank < kSinks || rank >= end || pinned(lists[i][rank]);
          of_list.push_back({stays ? INFINITY : worth(i, scores, rank, lists[i][rank]), i, rank, size - 1 - rank});
        }
        if (compete()) {
          std::sort(of_list.begin(), of_list.end(), better);
          for (uint32_t place = 0; place < size; ++place) {
            if (place >= longest) of_list[place].worth = -INFINITY;
            if (place < target * options.guaranteed_percent / 100 && of_list[place].worth != -INFINITY) {
              of_list[place].worth = INFINITY;
            }
          }
        }
        if (rectangular) std::sort(of_list.begin(), of_list.end(), better);
        rated.push_back(of_list);
      }
      std::vector<Candidate> all;
      if (rectangular) make_rectangular(rated);
      for (auto& of_list : rated) {
        if (rectangular && !only_wishes) of_list.resize(std::min<size_t>(of_list.size(), target));
        all.insert(all.end(), of_list.begin(), of_list.end());
      }
      std::sort(all.begin(), all.end(), better);
      if (!only_wishes) all.resize(std::min<size_t>(all.size(), allowed));
      for (uint32_t i = first; i < first + together; ++i) {
        std::vector<uint32_t> ranks, kept;
        for (const Candidate& candidate : all) {
          if (candidate.list == i && candidate.worth != -INFINITY) ranks.push_back(candidate.rank);
        }
        std::sort(ranks.begin(), ranks.end());
        for (const uint32_t rank : ranks) kept.push_back(lists[i][rank]);
        lists[i] = kept;
      }
    }
  }

  // What make_room does, by its text: nothing while all fits, except when a multiple of the interval has been passed.
  void make_room(uint32_t n, uint32_t position, uint32_t pool_blocks) {
    uint32_t needed = 0;
    bool fits = true;
    for (const auto& list : lists) {
      needed += (static_cast<uint32_t>(list.size()) + n + 31) / 32;
      fits = fits && list.size() + n <= most();
    }
    fits = fits && needed <= pool_blocks;
    const uint32_t passed = policy.interval == 0 ? 0 : position / policy.interval;
    if (fits && passed == intervals) return;
    intervals = passed;
    evict(n, fits);
  }
};

}  // namespace

TEST_CASE("selection: what stays is what the rules say, whatever lists compete for and however scores are smoothed") {
  Random random(11);
  uint64_t evictions = 0, ragged = 0;
  for (int round = 0; round < 60; ++round) {
    Model model;
    model.layers = 1 + random() % 3, model.kv_heads = 1 + random() % 3, model.share = 32 * (4 + random() % 5);
    model.policy = kNumbers;
    if (random() % 3 == 0) model.policy.drop_below = 15;
    if (random() % 3 == 0) model.policy.interval = 64;
    Retention& retention = model.options.retention;
    retention.recent_percent = random() % 80;
    retention.budget = static_cast<Budget>(random() % 4);
    if (random() % 2 == 0) {
      retention.pooling = {random() % 2 == 0 ? PoolKind::kMean : PoolKind::kMax, 1 + 2 * (random() % 4)};
    }
    retention.value_norm = random() % 3 == 0;
    retention.rectangular = retention.budget == Budget::kList && random() % 2 == 0;
    model.options.sinks = Model::kSinks;
    model.options.longest_step = 24;
    model.lists.resize(model.list_count());
    const uint32_t blocks = model.list_count() * model.share / 32;
    OwnedManager m({model.layers, model.kv_heads, 3, KvType::kF16, blocks, 0, model.most()}, model.policy,
                   model.options);
    model.bytes = &m;
    CAPTURE(round);
    CAPTURE(static_cast<int>(retention.budget));
    CAPTURE(model.layers);
    CAPTURE(model.kv_heads);
    while (m.position < Model::kEnd) {
      if (model.policy.interval != 0) {
        const uint32_t left = model.policy.interval - m.position % model.policy.interval;
        REQUIRE(m.manager.longest_step(m.position) == std::min(left, m.manager.longest_step()));
      }
      if (random() % 60 == 0 && model.pins.size() < 3) {
        const uint32_t begin = m.position + random() % 8;
        REQUIRE(m.manager.pin({begin, begin + 4}).ok());
        model.pins.push_back({begin, begin + 4});
      }
      const uint32_t n = random() % 4 == 0 ? 1 + random() % 24 : 1;
      model.make_room(n, m.position, blocks);
      for (auto& list : model.lists) {
        for (uint32_t t = 0; t < n; ++t) list.push_back(m.position + t);
      }
      const Status status = m.step(n);
      REQUIRE_MESSAGE(status.ok(), status.message());
      REQUIRE(m.owned.pool.check().ok());
      for (uint32_t i = 0; i < model.list_count(); ++i) {
        const std::vector<uint32_t>& expected = model.lists[i];
        REQUIRE(m.owned.list_equals(i / model.kv_heads, i % model.kv_heads, static_cast<uint32_t>(expected.size()),
                                    [&](uint32_t rank) { return m.token_of(i, expected[rank]); }));
        ragged += expected.size() != model.lists[0].size() ? 1 : 0;
      }
    }
    evictions += m.manager.stats().evictions;
  }
  CHECK(evictions > 1500);
  CHECK(ragged > 1000);
}

TEST_CASE("selection: the cut keeps exactly as many as asked, the best ones, the first of equals") {
  Random random(12);
  for (int round = 0; round < 500; ++round) {
    std::vector<uint64_t> entries(1 + random() % 300);
    for (uint64_t& entry : entries) {
      entry = entry_of(worth_of(static_cast<float>(random() % 7) - 3.0f), random() % 5);
    }
    const uint64_t count = random() % (entries.size() + 1);
    std::vector<uint32_t> order(entries.size());
    std::iota(order.begin(), order.end(), 0u);
    std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return entries[a] > entries[b]; });
    std::vector<bool> expected(entries.size());
    for (uint64_t i = 0; i < count; ++i) expected[order[i]] = true;
    Cut cut = find_cut(count, [&](auto visit) {
      for (const uint64_t entry : entries) visit(entry);
    });
    for (size_t i = 0; i < entries.size(); ++i) REQUIRE(cut.keeps(entries[i]) == expected[i]);
  }
}

TEST_CASE("selection: worths order floats as numbers, with what is not a number below all") {
  const float in_order[] = {-INFINITY, -3e38f, -1.0f, -1e-40f, 0.0f, 1e-40f, 1.0f, 3e38f, INFINITY};
  for (size_t i = 1; i < std::size(in_order); ++i) CHECK(worth_of(in_order[i - 1]) < worth_of(in_order[i]));
  CHECK(worth_of(-0.0f) == worth_of(0.0f));
  CHECK(worth_of(NAN) < worth_of(-INFINITY));
  CHECK(worth_of(-NAN) == worth_of(NAN));
  CHECK(worth_of(NAN) > kGone);
  CHECK(worth_of(INFINITY) < kStays);
}
