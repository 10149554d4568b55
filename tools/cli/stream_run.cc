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

double divergence(std::span<const float> from, std::span<const float> to) {
  double kl = 0;
  for (size_t i = 0; i < from.size(); ++i) kl += static_cast<double>(std::exp(from[i]) * (from[i] - to[i]));
  return kl;
}

}  // namespace

void LogProbs::feed(api::Session& session, std::span<const int32_t> ids) {
  static const cpu::Kernels kernels = cpu::simd_kernels();
  check(session.feed_logits(ids.data(), ids.size(), 0, [&](size_t i, const float* logits, size_t) {
    const float shift = kernels.log_sum_exp(logits, vocab_);
    std::transform(logits, logits + vocab_, values_.begin() + static_cast<ptrdiff_t>(i * vocab_),
                   [&](float logit) { return logit - shift; });
  }));
}

StreamReader::StreamReader(const api::Model& model, const StreamLength& length,
                           const std::optional<double>& kv_fraction, lethe_session_params params)
    : session_([&] {
        // All rows of a step at once, unless they would take from a cap: one by one the output layer reads its weights
        // for each.
        if (kv_fraction) params.logit_rows = std::min(length.step, kMostLogitRows);
        fit_budget(model, kv_fraction, length.tokens, params);
        return check(api::Session::create(model, params));
      }()),
      full_bytes_(full_cache_bytes(model, length.tokens)) {
  result_.nll_by_eighth.resize(8);
}

void StreamReader::read(std::span<const int32_t> ids) {
  const uint64_t started = os::monotonic_ns();
  check(session_.feed(ids.data(), ids.size()));
  result_.seconds += static_cast<double>(os::monotonic_ns() - started) * 1e-9;
}

void StreamReader::score(std::span<const int32_t> ids, std::span<const int32_t> next, const LogProbs* full,
                         const std::function<size_t(size_t)>& eighth, LogProbs& work) {
  const uint64_t started = os::monotonic_ns();
  work.feed(session_, ids);
  result_.seconds += static_cast<double>(os::monotonic_ns() - started) * 1e-9;
  for (size_t i = 0; i < ids.size(); ++i) {
    const std::span<const float> row = work.row(i);
    const auto id = static_cast<size_t>(next[i]);
    const double nll = -static_cast<double>(row[id]);
    result_.nll.add(nll);
    result_.nll_by_eighth[eighth(i)].add(nll);
    if (full == nullptr) continue;
    const std::span<const float> reference = full->row(i);
    result_.over_full.add(nll + static_cast<double>(reference[id]));
    result_.kl.add(divergence(reference, row));
    result_.agreement.add(best(row) == best(reference) ? 1 : 0);
  }
}

StreamResult StreamReader::result() const {
  StreamResult result = result_;
  const lethe_memory memory = session_.memory();
  result.kv_bytes = pool_bytes(memory);
  result.kv_share = static_cast<double>(result.kv_bytes) / static_cast<double>(full_bytes_);
  result.cache_tokens = memory.cache_tokens;
  result.policy = memory.policy;
  result.stats = session_.stats();
  return result;
}

void run_stream(const api::Model& model, const StreamLength& length, const std::vector<int32_t>& ids,
                std::span<const std::unique_ptr<StreamReader>> readers, bool compare, uint32_t full_threads,
                const OnProgress& on_progress) {
  std::optional<api::Session> full;
  if (compare) {
    lethe_session_params params = full_cache_params(length.tokens, full_threads);
    params.logit_rows = std::min(length.step, kMostLogitRows);
    full.emplace(check(api::Session::create(model, params)));
  }
  const size_t vocab = check(model.info()).vocab, from = length.score_from;
  LogProbs work(length.step, vocab), reference(full ? length.step : 0, vocab);
  if (from > 1) {
    const std::span front(ids.data(), from - 1);
    for (const auto& reader : readers) reader->read(front);
    if (full) check(full->feed(front.data(), front.size()));
  }
  for (size_t at = from; at < ids.size(); at += length.step) {
    // What comes after the token before each.
    const std::span next(&ids[at], std::min<size_t>(length.step, ids.size() - at));
    const std::span part(&ids[at - 1], next.size());
    if (full) reference.feed(*full, part);
    const auto eighth = [&](size_t i) { return (at + i - from) * 8 / (ids.size() - from); };
    for (const auto& reader : readers) reader->score(part, next, full ? &reference : nullptr, eighth, work);
    on_progress(at + part.size() - from);
  }
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
