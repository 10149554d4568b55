#include "tools/cli/logits.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "tools/cli/failure.h"

namespace lethe::cli {

namespace {

// Natural logarithms of the probabilities of the next token [vocab].
std::vector<float> log_softmax(api::Session& session) {
  const float* logits = nullptr;
  size_t vocab = 0;
  check(session.logits(&logits, &vocab));
  const float most = *std::max_element(logits, logits + vocab);
  double sum = 0;
  for (size_t i = 0; i < vocab; ++i) sum += std::exp(static_cast<double>(logits[i] - most));
  const auto shift = static_cast<float>(most + std::log(sum));
  std::vector<float> out(vocab);
  for (size_t i = 0; i < vocab; ++i) out[i] = logits[i] - shift;
  return out;
}

}  // namespace

int32_t best(std::span<const float> log_probs) {
  return static_cast<int32_t>(std::max_element(log_probs.begin(), log_probs.end()) - log_probs.begin());
}

Forced force(api::Session& session, std::span<const int32_t> ids) {
  Forced forced;
  for (const int32_t id : ids) {
    const std::vector<float> log_probs = log_softmax(session);
    forced.nll_sum -= static_cast<double>(log_probs[static_cast<size_t>(id)]);
    forced.all_likeliest = forced.all_likeliest && best(log_probs) == id;
    check(session.feed(&id, 1));
  }
  return forced;
}

}  // namespace lethe::cli
