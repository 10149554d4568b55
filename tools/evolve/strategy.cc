#include "tools/evolve/strategy.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "runtime/sample/random.h"
#include "tools/eval/task.h"

namespace lethe::evolve {
namespace {

double squared_length(std::span<const double> x) { return std::inner_product(x.begin(), x.end(), x.begin(), 0.0); }

// Candidates from the best to the worst.
std::vector<uint32_t> ranking(std::span<const double> fitness) {
  const auto worth = [&](uint32_t i) { return std::isnan(fitness[i]) ? -INFINITY : fitness[i]; };
  std::vector<uint32_t> order(fitness.size());
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(),
            [&](uint32_t a, uint32_t b) { return worth(a) != worth(b) ? worth(a) > worth(b) : a < b; });
  return order;
}

}  // namespace

StrategyConstants constants_of(const StrategyOptions& options) {
  const double n = options.dimensions, lambda = options.population;
  StrategyConstants k{};
  k.parents = options.population / 2;
  double sums[2] = {}, squares[2] = {}, signed_sums[2] = {};  // of the parents and of the others; of > 0 and of < 0
  for (uint32_t i = 0; i < options.population; ++i) {
    const double weight = std::log((lambda + 1) / 2) - std::log(i + 1.0);
    const bool is_parent = i < k.parents;
    sums[is_parent ? 0 : 1] += weight;
    squares[is_parent ? 0 : 1] += weight * weight;
    signed_sums[weight >= 0 ? 0 : 1] += std::abs(weight);
    k.weights.push_back(weight);
  }
  k.mu_eff = sums[0] * sums[0] / squares[0];
  const double mu_eff_minus = sums[1] * sums[1] / squares[1];
  const double rate = options.covariance == Covariance::kDiagonal ? (n + 2) / 3 : 0;
  k.c_1 = std::min(1.0, rate * 2 / ((n + 1.3) * (n + 1.3) + k.mu_eff));
  k.c_mu = std::min(1 - k.c_1, rate * 2 * (k.mu_eff - 2 + 1 / k.mu_eff) / ((n + 2) * (n + 2) + k.mu_eff));
  // The negative weights: never so large that a variance could become negative.
  const double most =
      k.c_mu > 0
          ? std::min({1 + k.c_1 / k.c_mu, 1 + 2 * mu_eff_minus / (k.mu_eff + 2), (1 - k.c_1 - k.c_mu) / (n * k.c_mu)})
          : 0;
  for (double& weight : k.weights) weight *= weight >= 0 ? 1 / signed_sums[0] : most / signed_sums[1];
  k.c_sigma = (k.mu_eff + 2) / (n + k.mu_eff + 5);
  k.d_sigma = 1 + 2 * std::max(0.0, std::sqrt((k.mu_eff - 1) / (n + 1)) - 1) + k.c_sigma;
  k.c_c = (4 + k.mu_eff / n) / (n + 4 + 2 * k.mu_eff / n);
  k.chi_n = std::sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n * n));
  return k;
}

Strategy::Strategy(const StrategyOptions& options)
    : Strategy(options, {.sigma = options.sigma,
                         .mean = std::vector<double>(options.dimensions),
                         .variances = std::vector<double>(options.dimensions, 1.0),
                         .path_sigma = std::vector<double>(options.dimensions),
                         .path_c = std::vector<double>(options.dimensions)}) {}

Strategy::Strategy(const StrategyOptions& options, StrategyState state)
    : options_(options), constants_(constants_of(options)), state_(std::move(state)) {}

std::vector<double> Strategy::draw(uint32_t index) const {
  Random random(eval::trial_seed(eval::trial_seed(options_.seed, state_.generation), index));
  std::vector<double> z(options_.dimensions);
  for (size_t i = 0; i < z.size(); i += 2) {  // Box and Muller's two at a time
    const double radius = std::sqrt(-2 * std::log(1 - random.uniform()));
    const double angle = 2 * std::numbers::pi * random.uniform();
    z[i] = radius * std::cos(angle);
    if (i + 1 < z.size()) z[i + 1] = radius * std::sin(angle);
  }
  return z;
}

std::vector<float> Strategy::candidate(uint32_t index) const {
  const std::vector<double> z = draw(index);
  std::vector<float> out(z.size());
  for (size_t i = 0; i < z.size(); ++i) {
    out[i] = static_cast<float>(state_.mean[i] + state_.sigma * std::sqrt(state_.variances[i]) * z[i]);
  }
  return out;
}

std::vector<float> Strategy::mean() const { return {state_.mean.begin(), state_.mean.end()}; }

void Strategy::tell(std::span<const double> fitness) {
  const StrategyConstants& k = constants_;
  const double n = options_.dimensions;
  const std::vector<uint32_t> order = ranking(fitness);
  // In units of the deviations: the step of the mean, and what the ranks say of every variance.
  std::vector<double> step(options_.dimensions), spread(options_.dimensions);
  for (uint32_t rank = 0; rank < order.size(); ++rank) {
    const std::vector<double> z = draw(order[rank]);
    const double weight = k.weights[rank];
    const double share = weight >= 0 ? weight : weight * n / squared_length(z);
    for (size_t i = 0; i < z.size(); ++i) {
      if (rank < k.parents) step[i] += weight * z[i];
      spread[i] += share * z[i] * z[i];
    }
  }
  ++state_.generation;
  const double sigma_gain = std::sqrt(k.c_sigma * (2 - k.c_sigma) * k.mu_eff);
  const double c_gain = std::sqrt(k.c_c * (2 - k.c_c) * k.mu_eff);
  for (size_t i = 0; i < step.size(); ++i) {
    state_.mean[i] += state_.sigma * std::sqrt(state_.variances[i]) * step[i];
    state_.path_sigma[i] = (1 - k.c_sigma) * state_.path_sigma[i] + sigma_gain * step[i];
  }
  const double length = std::sqrt(squared_length(state_.path_sigma));
  // The path of the variances rests while the step size grows.
  const double expected = std::sqrt(1 - std::pow(1 - k.c_sigma, 2.0 * state_.generation)) * k.chi_n;
  const double moves = length < (1.4 + 2 / (n + 1)) * expected ? 1 : 0;
  const double weight_sum = std::accumulate(k.weights.begin(), k.weights.end(), 0.0);
  const double keep = 1 + k.c_1 * (1 - moves) * k.c_c * (2 - k.c_c) - k.c_1 - k.c_mu * weight_sum;
  for (size_t i = 0; i < step.size(); ++i) {
    double& variance = state_.variances[i];
    double& path = state_.path_c[i];
    path = (1 - k.c_c) * path + moves * c_gain * std::sqrt(variance) * step[i];
    variance = keep * variance + k.c_1 * path * path + k.c_mu * variance * spread[i];
  }
  state_.sigma *= std::exp(k.c_sigma / k.d_sigma * (length / k.chi_n - 1));
}

}  // namespace lethe::evolve
