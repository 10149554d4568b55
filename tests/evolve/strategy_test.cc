// The evolution strategy against another implementation of it, and on functions whose optimum is known.
#include "tools/evolve/strategy.h"

#include <doctest/doctest.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

namespace lethe::evolve {
namespace {

using Json = nlohmann::json;

void check_near(const std::vector<double>& numbers, const Json& expected, double tolerance) {
  REQUIRE(numbers.size() == expected.size());
  for (size_t i = 0; i < numbers.size(); ++i) {
    CAPTURE(i);
    CHECK(numbers[i] == doctest::Approx(expected[i].get<double>()).epsilon(tolerance));
  }
}

StrategyOptions options_of(const Json& run) {
  return {.dimensions = run["dimensions"],
          .population = run["population"],
          .sigma = run["sigma"],
          .covariance = run["covariance"] == "diagonal" ? Covariance::kDiagonal : Covariance::kIdentity,
          .seed = run["seed"]};
}

TEST_CASE(
    "the strategy computes what an implementation with full matrices does (tools/reference/evolution_fixtures.py)") {
  std::ifstream file(LETHE_TEST_DATA "/evolution.json");
  const Json json = Json::parse(file);
  for (const Json& run : json["runs"]) {
    CAPTURE(run["covariance"].dump());
    const StrategyConstants k = constants_of(options_of(run));
    const std::pair<const char*, double> constants[] = {
        {"mu_eff", k.mu_eff},   {"c_1", k.c_1}, {"c_mu", k.c_mu},  {"c_sigma", k.c_sigma},
        {"d_sigma", k.d_sigma}, {"c_c", k.c_c}, {"chi_n", k.chi_n}};
    for (const auto& [name, value] : constants) {
      CAPTURE(name);
      CHECK(value == doctest::Approx(run["constants"][name].get<double>()).epsilon(1e-12));
    }
    check_near(k.weights, run["weights"], 1e-12);
    Strategy strategy(options_of(run));
    for (const Json& fitness : run["fitness"]) strategy.tell(fitness.get<std::vector<double>>());
    const StrategyState& end = strategy.state();
    CHECK(end.generation == run["fitness"].size());
    CHECK(end.sigma == doctest::Approx(run["end"]["sigma"].get<double>()).epsilon(1e-9));
    check_near(end.mean, run["end"]["mean"], 1e-9);
    check_near(end.variances, run["end"]["variances"], 1e-9);
    check_near(end.path_sigma, run["end"]["path_sigma"], 1e-9);
    check_near(end.path_c, run["end"]["path_c"], 1e-9);
  }
}

TEST_CASE("the constants of the published setting are those of the authors' code") {
  StrategyOptions options{.dimensions = 4172, .population = 32, .covariance = Covariance::kIdentity};
  const StrategyConstants k = constants_of(options);
  CHECK(k.parents == 16);
  CHECK(k.mu_eff == doctest::Approx(9.17882891).epsilon(1e-8));
  CHECK(k.weights[0] == doctest::Approx(0.19767).epsilon(1e-4));
  CHECK(k.c_sigma == doctest::Approx(2.67041e-3).epsilon(1e-5));
  CHECK(k.d_sigma == doctest::Approx(1.00267).epsilon(1e-5));
  CHECK(k.c_c == doctest::Approx(9.5838e-4).epsilon(1e-4));
  CHECK(k.chi_n == doctest::Approx(64.58715).epsilon(1e-7));
  // Theirs are 1.14834e-7 and 8.36604e-7, of a full covariance.
  options.covariance = Covariance::kDiagonal;
  CHECK(constants_of(options).c_1 == doctest::Approx(1.14834e-7 * 4174 / 3).epsilon(1e-5));
  CHECK(constants_of(options).c_mu == doctest::Approx(8.36604e-7 * 4174 / 3).epsilon(1e-5));
}

using Function = std::function<double(const std::vector<float>&)>;

// Generations until the mean is worth more than `wanted`; 2,000 at most.
uint32_t generations_to(double wanted, const StrategyOptions& options, const Function& function) {
  Strategy strategy(options);
  std::vector<double> fitness(options.population);
  while (function(strategy.mean()) < wanted && strategy.state().generation < 2000) {
    for (uint32_t i = 0; i < options.population; ++i) fitness[i] = function(strategy.candidate(i));
    strategy.tell(fitness);
  }
  return strategy.state().generation;
}

// - sum of 10^(exponent i / (n - 1)) (x_i - 1)^2
Function ellipsoid(double exponent) {
  return [exponent](const std::vector<float>& x) {
    double sum = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double from = static_cast<double>(x[i]) - 1,
                   power = static_cast<double>(i) / static_cast<double>(x.size() - 1);
      sum -= std::pow(10, exponent * power) * from * from;
    }
    return sum;
  };
}

TEST_CASE("both forms find the top of a sphere, and the diagonal one that of an ellipsoid, which the other cannot") {
  StrategyOptions options{.dimensions = 20, .population = 12, .sigma = 0.5};
  for (const uint64_t seed : {1u, 2u, 3u}) {
    CAPTURE(seed);
    options.seed = seed;
    options.covariance = Covariance::kIdentity;
    CHECK(generations_to(-1e-6, options, ellipsoid(0)) < 200);
    CHECK(generations_to(-1e-6, options, ellipsoid(6)) == 2000);
    options.covariance = Covariance::kDiagonal;
    CHECK(generations_to(-1e-6, options, ellipsoid(0)) < 250);
    CHECK(generations_to(-1e-6, options, ellipsoid(6)) < 800);
  }
}

TEST_CASE("the step size grows on a slope, and without a signal neither it nor the variances run away") {
  StrategyOptions options{.dimensions = 200, .population = 16};
  Strategy slope(options), noise(options);
  std::vector<double> rising(16), same(16, 1.0);
  for (int g = 0; g < 100; ++g) {
    for (uint32_t i = 0; i < 16; ++i) {
      rising[i] = 0;
      for (const float x : slope.candidate(i)) rising[i] += static_cast<double>(x);
    }
    slope.tell(rising);
    noise.tell(same);
  }
  CHECK(slope.state().sigma > 2 * options.sigma);
  CHECK(noise.state().sigma == doctest::Approx(options.sigma).epsilon(0.5));
  for (const double variance : noise.state().variances) {
    CHECK(variance > 0.1);
    CHECK(variance < 10);
  }
}

TEST_CASE("candidates follow from the seed and the generation alone, and a state goes on bit for bit") {
  const StrategyOptions options{.dimensions = 33, .population = 8, .seed = 7};
  const Function function = ellipsoid(2);
  const auto generation = [&](Strategy& strategy) {
    std::vector<double> fitness(8);
    for (uint32_t i = 8; i-- > 0;) fitness[i] = function(strategy.candidate(i));
    strategy.tell(fitness);
  };
  Strategy whole(options), first(options);
  CHECK(whole.candidate(3) == first.candidate(3));
  CHECK(whole.candidate(3) != whole.candidate(4));
  for (int g = 0; g < 10; ++g) generation(whole);
  for (int g = 0; g < 4; ++g) generation(first);
  Strategy second(options, first.state());
  for (int g = 4; g < 10; ++g) generation(second);
  CHECK(second.state().sigma == whole.state().sigma);
  CHECK(second.state().mean == whole.state().mean);
  CHECK(second.state().variances == whole.state().variances);
  CHECK(second.candidate(0) == whole.candidate(0));
  StrategyOptions other = options;
  other.seed = 8;
  CHECK(Strategy(other).candidate(0) != Strategy(options).candidate(0));
}

TEST_CASE("a fitness that is no number is the worst") {
  const StrategyOptions options{.dimensions = 5, .population = 4};
  Strategy with(options), without(options);
  with.tell(std::vector<double>{1, NAN, 3, NAN});
  without.tell(std::vector<double>{1, -2, 3, -2});
  CHECK(with.state().mean == without.state().mean);
}

}  // namespace
}  // namespace lethe::evolve
