#include "tools/cli/stream_run.h"

#include <cmath>

#include "runtime/os/process.h"
#include "tools/cli/failure.h"
#include "tools/cli/kv_budget.h"
#include "tools/cli/logits.h"

namespace lethe::cli {
namespace {

double divergence(const std::vector<float>& from, const std::vector<float>& to) {
  double kl = 0;
  for (size_t i = 0; i < from.size(); ++i) {
    const auto p = static_cast<double>(from[i]);
    kl += std::exp(p) * (p - static_cast<double>(to[i]));
  }
  return kl;
}

}  // namespace

StreamResult run_stream(const api::Model& model, StreamRun run, const std::vector<int32_t>& ids,
                        const OnProgress& on_progress) {
  fit_budget(model, run.kv_fraction, run.tokens, run.params);
  api::Session session = check(api::Session::create(model, run.params));
  std::optional<api::Session> full;
  if (run.compare) {
    full.emplace(check(api::Session::create(model, full_cache_params(run.tokens, run.params.threads))));
  }

  const uint64_t started = os::monotonic_ns();
  const uint32_t from = run.score_from;
  check(session.feed(ids.data(), from));
  if (full) check(full->feed(ids.data(), from));
  StreamResult result{};
  result.nll_by_eighth.resize(8);
  for (size_t at = from; at < ids.size(); ++at) {
    const std::vector<float> row = log_softmax(session);
    const double nll = -static_cast<double>(row[static_cast<size_t>(ids[at])]);
    result.nll.add(nll);
    result.nll_by_eighth[(at - from) * 8 / (ids.size() - from)].add(nll);
    if (full) {
      const std::vector<float> reference = log_softmax(*full);
      result.over_full.add(nll + static_cast<double>(reference[static_cast<size_t>(ids[at])]));
      result.kl.add(divergence(reference, row));
      result.agreement.add(best(row) == best(reference) ? 1 : 0);
      check(full->feed(&ids[at], 1));
    }
    check(session.feed(&ids[at], 1));
    on_progress(at + 1 - from);
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
