// What policies keep of a small cache against what kvpress keeps, and against the papers' formulas where a policy
// differs from it on purpose: tests/data/policy_golden.json, from tools/reference/make_policy_golden.py, which says
// more.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "runtime/base/half.h"
#include "tests/cache/owned_manager.h"
#include "tests/support/base64.h"

namespace lethe {
namespace {

using Json = nlohmann::json;
using test::OwnedPool;
using test::Token;

template <typename T>
std::vector<T> decode(const Json& text) {
  const std::string bytes = test::from_base64(text.get<std::string>());
  std::vector<T> out(bytes.size() / sizeof(T));
  memcpy(out.data(), bytes.data(), out.size() * sizeof(T));
  return out;
}

// The cache of the fixture, and the attention that its tokens pay.
struct Golden {
  Golden() {
    std::ifstream file(LETHE_TEST_DATA "/policy_golden.json");
    REQUIRE(file.good());
    json = Json::parse(file);
    layers = json["layers"], heads = json["heads"], kv_heads = json["kv_heads"], dim = json["head_dim"];
    tokens = json["tokens"];
    queries = decode<uint16_t>(json["queries"]);
    keys = decode<uint16_t>(json["keys"]);
    values = decode<uint16_t>(json["values"]);
    REQUIRE(queries.size() == size_t{layers} * heads * tokens * dim);
    REQUIRE(keys.size() == size_t{layers} * kv_heads * tokens * dim);
    REQUIRE(values.size() == keys.size());
    for (uint32_t list = 0; list < lists(); ++list) attention.push_back(attention_of(list));
  }

  uint32_t lists() const { return layers * kv_heads; }
  size_t row_of(uint32_t list, uint32_t token) const { return (size_t{list} * tokens + token) * dim; }

  // A query's `dim` numbers, rotated at its position. Heads of all layers are counted through.
  std::vector<double> rotated_query(uint32_t head, uint32_t token) const {
    std::vector<double> q(dim), out(dim);
    for (uint32_t d = 0; d < dim; ++d) q[d] = half_to_float(queries[row_of(head, token) + d]);
    for (uint32_t d = 0; d < dim / 2; ++d) {
      const double angle = token * json["inv_freq"][d].get<double>();
      out[d] = q[d] * std::cos(angle) - q[d + dim / 2] * std::sin(angle);
      out[d + dim / 2] = q[d + dim / 2] * std::cos(angle) + q[d] * std::sin(angle);
    }
    return out;
  }

  // [tokens][tokens], the mean over the heads that share the KV head.
  std::vector<float> attention_of(uint32_t list) const {
    const uint32_t group = heads / kv_heads;
    std::vector<float> out(size_t{tokens} * tokens);
    for (uint32_t head = list * group; head < (list + 1) * group; ++head) {
      for (uint32_t query = 0; query < tokens; ++query) {
        const std::vector<double> q = rotated_query(head, query);
        std::vector<double> weights(query + 1);
        double sum = 0;
        for (uint32_t rank = 0; rank <= query; ++rank) {
          double score = 0;
          for (uint32_t d = 0; d < dim; ++d) score += q[d] * half_to_float(keys[row_of(list, rank) + d]);
          sum += weights[rank] = std::exp(score / std::sqrt(static_cast<double>(dim)));
        }
        for (uint32_t rank = 0; rank <= query; ++rank) {
          out[size_t{query} * tokens + rank] += static_cast<float>(weights[rank] / sum / group);
        }
      }
    }
    return out;
  }

  Token token(uint32_t list, uint32_t position, uint32_t rest_bytes) const {
    Token token{position, test::Bytes(rest_bytes)};  // the state is zero
    for (uint32_t d = 0; d < dim; ++d) {
      memcpy(&token.rest[4 * d], &keys[row_of(list, position) + d], 2);
      memcpy(&token.rest[4 * d + 2], &values[row_of(list, position) + d], 2);
    }
    return token;
  }

  Json json;
  uint32_t layers, heads, kv_heads, dim, tokens;
  std::vector<uint16_t> queries, keys, values;  // [layers * heads][tokens][dim]
  std::vector<std::vector<float>> attention;    // [lists] of attention_of
};

const Golden& golden() {
  static const Golden golden;
  return golden;
}

Retention retention_of(const Json& entry, Retention retention) {
  const auto name = [&](const char* key) { return entry.value(key, std::string()); };
  retention.recent_percent = entry.value("recent", retention.recent_percent);
  retention.value_norm = entry.value("value_norm", retention.value_norm);
  if (name("budget") == "pyramid") retention.budget = Budget::kPyramid;
  if (name("budget") == "layer") retention.budget = Budget::kLayer;
  if (name("pool") == "mean") retention.pooling = {PoolKind::kMean, entry["pool_width"]};
  return retention;
}

// The golden cache under the policy and the options of one case.
struct GoldenCache {
  explicit GoldenCache(const Json& entry)
      : policy(*find_policy(entry["policy"].get<std::string>())),
        retention(retention_of(entry, policy.retention)),
        owned(shape(policy, retention.budget)) {
    const Golden& g = golden();
    REQUIRE(owned.pool.begin_append(g.tokens).ok());
    for (uint32_t list = 0; list < g.lists(); ++list) {
      std::vector<Token> tokens;
      for (uint32_t t = 0; t < g.tokens; ++t) tokens.push_back(g.token(list, t, owned.access.rest_bytes()));
      owned.store(list / g.kv_heads, list % g.kv_heads, tokens);
    }
    owned.pool.commit_append();
    if (policy.observer.see_queries != nullptr) show_queries();
    options.sinks = entry["sinks"];
    options.retention = retention;
    options.attention = attention;
    options.low_water_eighths = 8;
    Arena measured = Arena::measuring();
    REQUIRE(manager.carve(measured, owned.pool, policy, options).ok());
    scratch.resize(measured.used() / 64);
    Arena carved(reinterpret_cast<uint8_t*>(scratch.data()), measured.used());
    REQUIRE(manager.carve(carved, owned.pool, policy, options).ok());
    const uint32_t last = std::min(entry.value("last_queries", g.tokens), policy.observer.queries);
    for (uint32_t query = g.tokens - std::min(last, g.tokens); query < g.tokens; ++query) show(query);
  }

  static KvPoolOptions shape(const Policy& policy, Budget budget) {
    const Golden& g = golden();
    const uint32_t share = kv_blocks_of_tokens(g.tokens) * kBlockSlots;
    return {.layers = g.layers,
            .kv_heads = g.kv_heads,
            .head_dim = g.dim,
            .type = KvType::kF16,
            .block_count = g.lists() * share / kBlockSlots,
            .state_bytes_per_slot = policy.state_bytes_per_slot,
            .token_capacity = longest_list(budget, share)};
  }

  const KvList& list(uint32_t index) const {
    return owned.pool.list(index / golden().kv_heads, index % golden().kv_heads);
  }

  // Shows the policy all queries, in two steps.
  void show_queries() {
    const Golden& g = golden();
    const uint32_t group = g.heads / g.kv_heads;
    const uint32_t floats = policy.list_state_floats(group, g.dim);
    Arena measured = Arena::measuring();
    REQUIRE(owned.pool.carve_list_state(measured, floats).ok());
    list_state.resize(measured.used() / 64);
    Arena carved(reinterpret_cast<uint8_t*>(list_state.data()), measured.used());
    REQUIRE(owned.pool.carve_list_state(carved, floats).ok());

    for (const double frequency : g.json["inv_freq"]) inv_freq.push_back(static_cast<float>(frequency));
    std::vector<float> cos, sin;
    for (uint32_t t = 0; t < g.tokens; ++t) {
      for (const float frequency : inv_freq) {
        cos.push_back(static_cast<float>(std::cos(t * static_cast<double>(frequency))));
        sin.push_back(static_cast<float>(std::sin(t * static_cast<double>(frequency))));
      }
    }
    for (uint32_t layer = 0; layer < g.layers; ++layer) {
      attention.push_back({group, 1 / std::sqrt(static_cast<float>(g.dim)), g.dim, inv_freq.data()});
    }
    for (uint32_t index = 0; index < g.lists(); ++index) {
      std::vector<float> q;
      for (uint32_t t = 0; t < g.tokens; ++t) {
        for (uint32_t head = index * group; head < (index + 1) * group; ++head) {
          for (const double x : g.rotated_query(head, t)) q.push_back(static_cast<float>(x));
        }
      }
      for (uint32_t begin = 0, end = 100; begin < g.tokens; begin = end, end = g.tokens) {
        policy.observer.see_queries({.list_state = owned.pool.list_state(index / g.kv_heads, index % g.kv_heads),
                                     .layer = index / g.kv_heads,
                                     .kv_head = index % g.kv_heads,
                                     .first_position = begin,
                                     .queries = end - begin,
                                     .group = group,
                                     .head_dim = g.dim,
                                     .q = &q[size_t{begin} * group * g.dim],
                                     .q_stride = group * g.dim,
                                     .cos = &cos[size_t{begin} * g.dim / 2],
                                     .sin = &sin[size_t{begin} * g.dim / 2],
                                     .rotary_dim = g.dim});
      }
    }
  }

  // Shows the policy what one query pays to the tokens up to it.
  void show(uint32_t query) {
    const Golden& g = golden();
    for (uint32_t index = 0; index < g.lists(); ++index) {
      policy.observer.see({.pool = owned.pool.view(),
                           .list = list(index),
                           .layer = index / g.kv_heads,
                           .kv_head = index % g.kv_heads,
                           .first_query_rank = query,
                           .first_query_position = query,
                           .queries = 1,
                           .rank_begin = 0,
                           .rank_end = query + 1,
                           .start_block = list(index).first_block,
                           .attention = &g.attention[index][size_t{query} * g.tokens],
                           .stride = g.tokens,
                           .last = query + 1 == g.tokens});
    }
  }

  std::vector<float> scores(uint32_t index) const {
    const Golden& g = golden();
    std::vector<float> out(g.tokens, NAN), work(policy_work_floats(policy, g.tokens, g.dim));
    policy.score({.pool = owned.pool.view(),
                  .list = list(index),
                  .layer = index / g.kv_heads,
                  .kv_head = index % g.kv_heads,
                  .next_position = g.tokens,
                  .sinks = options.sinks,
                  .seed = 0,
                  .work = work,
                  .list_state = owned.pool.list_state(index / g.kv_heads, index % g.kv_heads),
                  .attention = attention.empty() ? LayerAttention{} : attention[index / g.kv_heads]},
                 out);
    return out;
  }

  // Which positions a list still holds, as the fixture writes it.
  std::string kept(uint32_t index) {
    std::string out(golden().tokens, '0');
    uint32_t block = list(index).first_block;
    for (uint32_t rank = 0; rank < list(index).length; ++rank) {
      if (rank != 0 && rank % kBlockSlots == 0) block = owned.pool.view().next[block];
      const auto* positions =
          reinterpret_cast<const uint32_t*>(owned.block(block) + owned.pool.layout().positions_offset);
      out.at(positions[rank % kBlockSlots]) = '1';
    }
    return out;
  }

  const Policy& policy;
  Retention retention;
  CacheOptions options;
  OwnedPool owned;
  CacheManager manager;
  std::vector<OwnedPool::Line> scratch, list_state;
  std::vector<float> inv_freq;
  std::vector<LayerAttention> attention;
};

bool is_close(float a, float b) { return std::abs(a - b) <= 1e-7f + 1e-5f * std::abs(b); }

}  // namespace

TEST_CASE("golden: policies score and keep what kvpress and the papers' formulas do") {
  const Golden& g = golden();
  std::set<std::string> seen;
  for (const Json& entry : g.json["cases"]) {
    CAPTURE(entry["name"].get<std::string>());
    REQUIRE(find_policy(entry["policy"].get<std::string>()) != nullptr);
    GoldenCache cache(entry);
    seen.insert(entry["policy"]);
    const Json scored = entry.value("scores", Json::array());  // of the first lists
    for (uint32_t index = 0; index < scored.size(); ++index) {
      const std::vector<float> expected = decode<float>(scored[index]), scores = cache.scores(index);
      for (uint32_t rank = 0; rank < g.tokens; ++rank) {
        CAPTURE(rank);
        // What the press does not score, but keeps, is not a number.
        if (!std::isnan(expected[rank])) REQUIRE(is_close(scores[rank], expected[rank]));
      }
    }
    const Status status = cache.manager.shrink(entry["share"], g.tokens);
    REQUIRE_MESSAGE(status.ok(), status.message());
    cache.owned.require_sound();
    for (uint32_t index = 0; index < g.lists(); ++index) {
      CAPTURE(index);
      REQUIRE(cache.kept(index) == entry["kept"][index].get<std::string>());
    }
  }
  for (const Policy* policy : policies()) {
    const std::string name = policy->name;
    if (name != "full" && name != "random" && !policy->is_learned)
      CHECK_MESSAGE(seen.contains(name), name, " has no golden case");
  }
}

}  // namespace lethe
