#include "tools/cli/stream_run.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "runtime/backend/cpu/kernels.h"
#include "runtime/os/process.h"
#include "tools/cli/failure.h"
#include "tools/cli/kv_budget.h"
#include "tools/cli/logits.h"

namespace lethe::cli {
namespace {

constexpr uint32_t kMostLogitRows = 64;  // lethe.h

// Rows of natural logarithms of probabilities.
class Rows {
 public:
  Rows(uint32_t rows, size_t vocab) : vocab_(vocab), values_(rows * vocab) {}

  std::span<float> row(size_t i) { return {values_.data() + i * vocab_, vocab_}; }
  void set(size_t i, const float* logits) {
    const float shift = kernels_.log_sum_exp(logits, vocab_);
    std::transform(logits, logits + vocab_, row(i).begin(), [&](float logit) { return logit - shift; });
  }
  // Appends `ids` to the conversation; row i is what comes after ids[i].
  void feed(api::Session& session, std::span<const int32_t> ids) {
    check(
        session.feed_logits(ids.data(), ids.size(), 0, [&](size_t i, const float* logits, size_t) { set(i, logits); }));
  }

 private:
  const cpu::Kernels kernels_ = cpu::simd_kernels();
  size_t vocab_;
  std::vector<float> values_;
};

double divergence(std::span<const float> from, std::span<const float> to) {
  double kl = 0;
  for (size_t i = 0; i < from.size(); ++i) kl += static_cast<double>(std::exp(from[i]) * (from[i] - to[i]));
  return kl;
}

}  // namespace

StreamResult run_stream(const api::Model& model, StreamRun run, const std::vector<int32_t>& ids,
                        const OnProgress& on_progress) {
  // All rows of a step at once, unless they would take from a cap: one by one the output layer reads its weights for
  // each.
  if (run.kv_fraction) run.params.logit_rows = std::min(run.step, kMostLogitRows);
  fit_budget(model, run.kv_fraction, run.tokens, run.params);
  api::Session session = check(api::Session::create(model, run.params));
  std::optional<api::Session> full;
  if (run.compare) {
    lethe_session_params params = full_cache_params(run.tokens, run.params.threads);
    params.logit_rows = std::min(run.step, kMostLogitRows);
    full.emplace(check(api::Session::create(model, params)));
  }

  const uint64_t started = os::monotonic_ns();
  const uint32_t from = run.score_from;
  const size_t vocab = check(model.info()).vocab;
  Rows rows(run.step, vocab), full_rows(full ? run.step : 0, vocab);
  if (from > 1) check(session.feed(ids.data(), from - 1));
  if (from > 1 && full) check(full->feed(ids.data(), from - 1));
  StreamResult result{};
  result.nll_by_eighth.resize(8);
  for (size_t at = from; at < ids.size(); at += run.step) {
    // What comes after the token before each: row i is about ids[at + i].
    const std::span part(&ids[at - 1], std::min<size_t>(run.step, ids.size() - at));
    rows.feed(session, part);
    if (full) full_rows.feed(*full, part);
    for (size_t i = 0; i < part.size(); ++i) {
      const std::span<const float> row = rows.row(i);
      const auto next = static_cast<size_t>(ids[at + i]);
      const double nll = -static_cast<double>(row[next]);
      result.nll.add(nll);
      result.nll_by_eighth[(at + i - from) * 8 / (ids.size() - from)].add(nll);
      if (full) {
        const std::span<const float> reference = full_rows.row(i);
        result.over_full.add(nll + static_cast<double>(reference[next]));
        result.kl.add(divergence(reference, row));
        result.agreement.add(best(row) == best(reference) ? 1 : 0);
      }
    }
    on_progress(at + part.size() - from);
  }
  const lethe_memory memory = session.memory();
  result.kv_bytes = pool_bytes(memory);
  result.kv_share = static_cast<double>(result.kv_bytes) / static_cast<double>(full_cache_bytes(model, run.tokens));
  result.cache_tokens = memory.cache_tokens;
  result.stats = session.stats();
  result.seconds = static_cast<double>(os::monotonic_ns() - started) * 1e-9;
  return result;
}

std::vector<int32_t> tokenize_text(const api::Model& model, const std::string& text) {
  lethe_session_params params = full_cache_params(1, 1);
  params.prefill_chunk = 1;
  api::Session session = check(api::Session::create(model, params));
  std::vector<int32_t> ids(text.size() + 1);  // a byte is at most one token
  size_t count = 0;
  check(session.tokenize(text, LETHE_TEXT_BOS, ids.data(), ids.size(), &count));
  ids.resize(count);
  return ids;
}

std::optional<int32_t> bos_token(const api::Model& model) {
  const std::vector<int32_t> ids = tokenize_text(model, "");
  return ids.empty() ? std::nullopt : std::optional(ids[0]);
}

std::vector<int32_t> stream_window(const std::vector<int32_t>& ids, std::optional<int32_t> bos, uint64_t skip,
                                   uint32_t tokens) {
  const auto begin = ids.begin() + static_cast<ptrdiff_t>(skip);
  std::vector<int32_t> window(begin, begin + tokens);
  if (bos) window[0] = *bos;
  return window;
}

}  // namespace lethe::cli
