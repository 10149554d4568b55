// What a session's logits say.
#pragma once

#include <cstdint>
#include <span>

#include "lethe/lethe.hpp"

namespace lethe::cli {

// The likeliest token.
int32_t best(std::span<const float> log_probs);

// A given continuation, token by token as if the model had written it; it is fed on the way.
struct Forced {
  double nll_sum = 0;         // nats
  bool all_likeliest = true;  // greedy decoding would have written it
};
Forced force(api::Session& session, std::span<const int32_t> ids);

}  // namespace lethe::cli
