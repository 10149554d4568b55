// One text read once, from the first token to the last, by caches under caps, and beside them by the full cache.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lethe/lethe.hpp"
#include "tools/cli/mean.h"

namespace lethe::cli {

struct StreamLength {
  uint32_t tokens, score_from;  // read, and the first that is scored
  uint32_t step;                // tokens of the scored part that arrive at once
};

struct StreamResult {
  Mean nll, over_full, kl, agreement;  // all but the first: against the full cache; empty without it
  std::vector<Mean> nll_by_eighth;     // of the scored part
  uint64_t kv_bytes;                   // of the pool, policy state included
  double kv_share;                     // of the full f16 cache of as many tokens
  uint32_t cache_tokens;
  const char* policy;
  lethe_stats stats;
  double seconds;  // of this cache alone
};

// Rows of natural logarithms of probabilities: what a cache says comes next, for every token of a step.
class LogProbs {
 public:
  LogProbs(uint32_t rows, size_t vocab) : vocab_(vocab), values_(rows * vocab) {}

  std::span<const float> row(size_t i) const { return {values_.data() + i * vocab_, vocab_}; }
  // Appends `ids` to the conversation; row i is what comes after ids[i].
  void feed(api::Session& session, std::span<const int32_t> ids);

 private:
  size_t vocab_;
  std::vector<float> values_;
};

// A cache that reads a stream, and what came of it.
class StreamReader {
 public:
  // Throws as Session::create and fit_budget do.
  StreamReader(const api::Model& model, const StreamLength& length, const std::optional<double>& kv_fraction,
               lethe_session_params params);

  // The part that is not scored, then step by step the scored one: `ids` as LogProbs has it, `next[i]` is what really
  // comes after ids[i], `eighth(i)` tells in which eighth of the scored part that lies.
  void read(std::span<const int32_t> ids);
  void score(std::span<const int32_t> ids, std::span<const int32_t> next, const LogProbs* full,
             const std::function<size_t(size_t)>& eighth, LogProbs& work);
  StreamResult result() const;

 private:
  api::Session session_;
  uint64_t full_bytes_;
  StreamResult result_{};
};

using OnProgress = std::function<void(uint64_t done)>;  // tokens scored so far

// Takes all readers through `ids`, exactly length.tokens, at once. With `compare` the full cache runs beside them, once
// for all.
void run_stream(const api::Model& model, const StreamLength& length, const std::vector<int32_t>& ids,
                std::span<const std::unique_ptr<StreamReader>> readers, bool compare, uint32_t full_threads,
                const OnProgress& on_progress);

// All tokens of a text, with BOS where the model wants it.
std::vector<int32_t> tokenize_text(const api::Model& model, const std::string& text);
// BOS, if the model wants one.
std::optional<int32_t> bos_token(const api::Model& model);
// `tokens` tokens of a text after the first `skip`; BOS stands in place of the first.
std::vector<int32_t> stream_window(const std::vector<int32_t>& ids, std::optional<int32_t> bos, uint64_t skip,
                                   uint32_t tokens);

}  // namespace lethe::cli
