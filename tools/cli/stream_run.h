// One text read once, from the first token to the last, by a cache under a cap, and beside it by the full cache.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lethe/lethe.hpp"
#include "tools/cli/mean.h"

namespace lethe::cli {

struct StreamRun {
  uint32_t tokens, score_from;  // read, and the first that is scored
  uint32_t step;                // tokens of the scored part that arrive at once
  std::optional<double> kv_fraction;
  bool compare;  // run the full cache beside it
  lethe_session_params params;
};

struct StreamResult {
  Mean nll, over_full, kl, agreement;  // all but the first: against the full cache; empty without it
  std::vector<Mean> nll_by_eighth;     // of the scored part
  uint64_t kv_bytes;                   // of the pool, policy state included
  double kv_share;                     // of the full f16 cache of as many tokens
  uint32_t cache_tokens;
  lethe_stats stats;
  double seconds;
};

using OnProgress = std::function<void(uint64_t done)>;  // tokens scored so far

// `ids`: exactly run.tokens.
StreamResult run_stream(const api::Model& model, StreamRun run, const std::vector<int32_t>& ids,
                        const OnProgress& on_progress);

// All tokens of a text, with BOS where the model wants it.
std::vector<int32_t> tokenize_text(const api::Model& model, const std::string& text);
// BOS, if the model wants one.
std::optional<int32_t> bos_token(const api::Model& model);
// `tokens` tokens of a text after the first `skip`; BOS stands in place of the first.
std::vector<int32_t> stream_window(const std::vector<int32_t>& ids, std::optional<int32_t> bos, uint64_t skip,
                                   uint32_t tokens);

}  // namespace lethe::cli
