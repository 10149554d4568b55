#include "runtime/sample/sampler.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <vector>

namespace lethe {
namespace {

struct Fixture {
  std::vector<Sampler::Candidate> candidates;
  Sampler sampler;

  explicit Fixture(size_t vocab, const SamplerOptions& options = {}) : candidates(vocab) {
    sampler.open({candidates});
    REQUIRE(sampler.configure(options).ok());
  }
  int32_t sample(const std::vector<float>& logits) {
    const Result<int32_t> id = sampler.sample(logits);
    REQUIRE_MESSAGE(id.ok(), id.status().message());
    return id.value();
  }
};

// By definition, with sorting and double precision: the probability of each id.
std::map<int32_t, double> exact(const std::vector<float>& logits, const SamplerOptions& options) {
  std::vector<std::pair<double, int32_t>> ranked;  // -logit, id
  for (size_t i = 0; i < logits.size(); ++i)
    ranked.emplace_back(-logits[i] / options.temperature, static_cast<int32_t>(i));
  std::sort(ranked.begin(), ranked.end());
  if (options.top_k > 0 && options.top_k < ranked.size()) ranked.resize(options.top_k);
  const auto probabilities = [&] {
    std::vector<double> p;
    for (const auto& [negative, id] : ranked) p.push_back(std::exp(ranked[0].first - negative));
    const double total = std::accumulate(p.begin(), p.end(), 0.0);
    for (double& value : p) value /= total;
    return p;
  };
  if (options.top_p < 1) {
    const std::vector<double> p = probabilities();
    double sum = 0;
    size_t kept = 0;
    while (kept < p.size() && sum < options.top_p) sum += p[kept++];
    ranked.resize(kept);
  }
  if (options.min_p > 0) {
    const std::vector<double> p = probabilities();
    ranked.resize(
        static_cast<size_t>(std::count_if(p.begin(), p.end(), [&](double v) { return v >= options.min_p * p[0]; })));
  }
  const std::vector<double> p = probabilities();
  std::map<int32_t, double> result;
  for (size_t i = 0; i < ranked.size(); ++i) result[ranked[i].second] = p[i];
  return result;
}

std::vector<float> random_logits(std::mt19937& random, size_t vocab) {
  std::normal_distribution<float> normal(0, 2);
  std::vector<float> logits(vocab);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

TEST_CASE("greedy takes the greatest, the smallest id of equals") {
  Fixture fixture(5);
  CHECK(fixture.sample({1, 3, 2, 3, 0}) == 1);
  CHECK(fixture.sample({-1, -1, -1, -1, -1}) == 0);
  CHECK(fixture.sample({-5, -4, -3, -2, -1}) == 4);
}

TEST_CASE("draws follow the exact probabilities of every combination of options") {
  std::mt19937 random(1);
  const std::vector<SamplerOptions> settings = {{.temperature = 1},
                                                {.temperature = 0.5f},
                                                {.temperature = 2},
                                                {.temperature = 1, .top_k = 5},
                                                {.temperature = 1, .top_p = 0.8f},
                                                {.temperature = 1, .min_p = 0.1f},
                                                {.temperature = 1.5f, .top_k = 12, .top_p = 0.9f},
                                                {.temperature = 0.8f, .top_k = 15, .top_p = 0.95f, .min_p = 0.05f},
                                                {.temperature = 1, .top_k = 1},
                                                {.temperature = 1, .top_p = 0.0001f},
                                                {.temperature = 1, .min_p = 1}};
  for (SamplerOptions options : settings) {
    for (uint64_t seed = 1; seed <= 3; ++seed) {
      options.seed = seed;
      const std::vector<float> logits = random_logits(random, 30);
      const std::map<int32_t, double> expected = exact(logits, options);
      Fixture fixture(logits.size(), options);
      std::map<int32_t, int> counts;
      constexpr int kDraws = 20000;
      for (int i = 0; i < kDraws; ++i) ++counts[fixture.sample(logits)];
      double chi_square = 0, rare = 0, rare_expected = 0;
      int degrees = -1;
      for (const auto& [id, p] : expected) {
        const double mean = p * kDraws;
        if (mean < 5) {  // too few for the approximation: together
          rare += counts[id];
          rare_expected += mean;
          continue;
        }
        chi_square += (counts[id] - mean) * (counts[id] - mean) / mean;
        ++degrees;
      }
      if (rare_expected > 0) {
        chi_square += (rare - rare_expected) * (rare - rare_expected) / std::max(rare_expected, 1.0);
        ++degrees;
      }
      for (const auto& [id, count] : counts) CHECK((count == 0 || expected.count(id) == 1));
      // Mean `degrees`, standard deviation sqrt(2 * degrees); 33 cases, so five deviations.
      CAPTURE(options.temperature);
      CAPTURE(options.top_k);
      CHECK(chi_square <= degrees + 5 * std::sqrt(2.0 * degrees) + 1e-9);
    }
  }
}

TEST_CASE("the tokens that can be drawn are those of a full sort, also in a large vocabulary") {
  std::mt19937 random(2);
  for (const SamplerOptions& options :
       {SamplerOptions{.temperature = 8, .top_k = 300}, SamplerOptions{.temperature = 1, .top_p = 0.9f},
        SamplerOptions{.temperature = 4, .top_p = 0.99f}, SamplerOptions{.temperature = 2, .min_p = 0.02f},
        SamplerOptions{.temperature = 3, .top_k = 2000, .top_p = 0.7f, .min_p = 0.01f}}) {
    const std::vector<float> logits = random_logits(random, 5000);
    const std::map<int32_t, double> expected = exact(logits, options);
    Fixture fixture(logits.size(), options);
    std::map<int32_t, int> counts;
    for (int i = 0; i < 3000; ++i) ++counts[fixture.sample(logits)];
    size_t outside = 0;
    for (const auto& [id, count] : counts) outside += expected.count(id) == 0;
    CHECK(outside == 0);
    // As many different tokens as 3000 draws from the exact distribution give, within five deviations.
    double mean = 0, variance = 0;
    for (const auto& [id, p] : expected) {
      const double seen = 1 - std::pow(1 - p, 3000);
      mean += seen;
      variance += seen * (1 - seen);
    }
    CHECK(std::abs(static_cast<double>(counts.size()) - mean) <= 5 * std::sqrt(variance) + 1e-6);
  }
}

TEST_CASE("equal logits at the edge of top-k and top-p go by id") {
  const std::vector<float> equal(8, 1.0f);
  for (const SamplerOptions& options :
       {SamplerOptions{.temperature = 1, .top_k = 3}, SamplerOptions{.temperature = 1, .top_p = 0.33f}}) {
    Fixture fixture(8, options);
    std::map<int32_t, int> counts;
    for (int i = 0; i < 500; ++i) ++counts[fixture.sample(equal)];
    CHECK(counts.size() == 3);
    CHECK(counts.rbegin()->first == 2);
  }
}

TEST_CASE("the penalty divides above zero and multiplies below, once per token, within the window") {
  // Greedy over two candidates: the penalised logit against a probe.
  const auto penalised_beats = [](float logit, float probe, int accepted, uint32_t window, int others) {
    Fixture fixture(3, {.repetition_penalty = 2, .penalty_window = window});
    for (int i = 0; i < accepted; ++i) fixture.sampler.accept(0);
    for (int i = 0; i < others; ++i) fixture.sampler.accept(2);
    return fixture.sample({logit, probe, -100}) == 0;
  };
  CHECK(penalised_beats(4, 1.99f, 1, 64, 0));
  CHECK_FALSE(penalised_beats(4, 2.01f, 1, 64, 0));
  CHECK(penalised_beats(4, 1.99f, 3, 64, 0));  // accepted three times: still 2
  CHECK(penalised_beats(-1, -2.01f, 1, 64, 0));
  CHECK_FALSE(penalised_beats(-1, -1.99f, 1, 64, 0));
  CHECK_FALSE(penalised_beats(4, 3, 1, 4, 3));  // the fourth from the end
  CHECK(penalised_beats(4, 3, 1, 4, 4));        // has left the window
  CHECK(penalised_beats(4, 3, 1, 0, 0));
  CHECK_FALSE(penalised_beats(4, 3, 1, 256, 255));
  CHECK(penalised_beats(4, 3, 1, 256, 256));
}

TEST_CASE("impossible options are refused by name and change nothing") {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  const std::vector<std::pair<std::string, SamplerOptions>> bad = {{"temperature", {.temperature = -0.1f}},
                                                                   {"temperature", {.temperature = nan}},
                                                                   {"temperature", {.temperature = inf}},
                                                                   {"top_p", {.top_p = 0}},
                                                                   {"top_p", {.top_p = 1.1f}},
                                                                   {"top_p", {.top_p = nan}},
                                                                   {"min_p", {.min_p = -0.1f}},
                                                                   {"min_p", {.min_p = 1.5f}},
                                                                   {"min_p", {.min_p = nan}},
                                                                   {"repetition_penalty", {.repetition_penalty = 0}},
                                                                   {"repetition_penalty", {.repetition_penalty = -1}},
                                                                   {"repetition_penalty", {.repetition_penalty = nan}},
                                                                   {"repetition_penalty", {.repetition_penalty = inf}},
                                                                   {"penalty_window", {.penalty_window = 257}}};
  Fixture fixture(4, {.temperature = 1, .seed = 9});
  Fixture same(4, {.temperature = 1, .seed = 9});
  for (const auto& [name, options] : bad) {
    const Status status = fixture.sampler.configure(options);
    CHECK(status.code() == ErrorCode::kInvalidArgument);
    CHECK(std::string(status.message()).starts_with(name + " is "));
  }
  for (int i = 0; i < 50; ++i) CHECK(fixture.sample({1, 2, 3, 2}) == same.sample({1, 2, 3, 2}));
}

TEST_CASE("logits that are not finite are counted") {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  Fixture fixture(5);
  const Result<int32_t> id = fixture.sampler.sample(std::vector<float>{1, nan, inf, -inf, 2});
  CHECK(id.status().code() == ErrorCode::kInternal);
  CHECK(std::string(id.status().message()) == "3 of 5 logits are not finite");
  CHECK(fixture.sampler.sample(std::vector<float>{1, 2}).status().code() == ErrorCode::kInvalidArgument);
}

TEST_CASE("extreme options still give a token") {
  const float most = std::numeric_limits<float>::max();
  for (const float temperature : {1e-38f, 1e38f}) {
    Fixture fixture(4, {.temperature = temperature, .top_p = 0.5f, .min_p = 0.5f, .repetition_penalty = 1e30f});
    fixture.sampler.accept(2);
    for (int i = 0; i < 20; ++i) {
      const int32_t id = fixture.sample({-most, most, most, -most});
      CHECK((id >= 0 && id < 4));
      if (temperature < 1) CHECK(id == 1);
    }
  }
}

TEST_CASE("a restored sampler goes on as the saved one") {
  const SamplerOptions options = {.temperature = 1.2f, .repetition_penalty = 1.3f, .penalty_window = 256, .seed = 4};
  std::mt19937 random(8);
  for (const int before : {0, 10, 256, 700}) {
    Fixture saved(50, options), restored(50, options);
    for (int i = 0; i < before; ++i) saved.sampler.accept(saved.sample(random_logits(random, 50)));
    REQUIRE(restored.sampler.restore(saved.sampler.state()).ok());
    for (int i = 0; i < 300; ++i) {
      const std::vector<float> logits = random_logits(random, 50);
      const int32_t id = saved.sample(logits);
      REQUIRE(restored.sample(logits) == id);
      saved.sampler.accept(id);
      restored.sampler.accept(id);
    }
  }
}

TEST_CASE("damaged states are refused") {
  Fixture fixture(10);
  fixture.sampler.accept(3);
  const Sampler::State sound = fixture.sampler.state();
  const auto refused = [&](auto damage) {
    Sampler::State state = sound;
    damage(state);
    return fixture.sampler.restore(state).code() == ErrorCode::kCorruptSnapshot;
  };
  CHECK(refused([](Sampler::State& s) { s.accepted_count = 257; }));
  CHECK(refused([](Sampler::State& s) { s.accepted[0] = 10; }));
  CHECK(refused([](Sampler::State& s) { s.accepted[0] = -1; }));
  CHECK(refused([](Sampler::State& s) { s.random = {}; }));
  CHECK(refused([](Sampler::State& s) { s.zero = 1; }));
  CHECK_FALSE(refused([](Sampler::State&) {}));
}

TEST_CASE("the same seed gives the same tokens, and reset begins again") {
  const SamplerOptions options = {.temperature = 1, .repetition_penalty = 1.5f, .seed = 77};
  Fixture a(20, options), b(20, options);
  std::vector<int32_t> first, second, again;
  const std::vector<float> flat(20, 0.5f);
  const auto run = [&](Fixture& fixture, std::vector<int32_t>* ids) {
    for (int i = 0; i < 100; ++i) {
      ids->push_back(fixture.sample(flat));
      fixture.sampler.accept(ids->back());
    }
  };
  run(a, &first);
  run(b, &second);
  CHECK(first == second);
  a.sampler.reset();
  run(a, &again);
  CHECK(first == again);
}

}  // namespace
}  // namespace lethe
